/** The kernel parameters that decide who answers ARP, what is forwarded and which sources are believed. */

export const INTERFACE_SYSCTLS = ['arp_announce', 'arp_ignore', 'rp_filter'] as const;
export type InterfaceSysctl = (typeof INTERFACE_SYSCTLS)[number];

/** Paths as below /proc/sys/, with slashes. */
const IP_FORWARD = 'net/ipv4/ip_forward';
const FORWARDING6 = 'net/ipv6/conf/all/forwarding';
const CONF = 'net/ipv4/conf/';

export class Sysctls {
  #hostWide = new Map<string, number>([
    [IP_FORWARD, 0],
    [FORWARDING6, 0],
  ]);
  #conf = new Map<string, Record<InterfaceSysctl, number>>([
    ['all', { arp_announce: 0, arp_ignore: 0, rp_filter: 0 }],
    ['default', { arp_announce: 0, arp_ignore: 0, rp_filter: 0 }],
  ]);

  /** A new interface starts with the values of `default`. */
  addInterface(name: string): void {
    const { arp_announce, arp_ignore, rp_filter } = this.#of('default');
    this.#conf.set(name, { arp_announce, arp_ignore, rp_filter });
  }

  get forwards4(): boolean {
    return this.#hostWide.get(IP_FORWARD) !== 0;
  }

  get forwards6(): boolean {
    return this.#hostWide.get(FORWARDING6) !== 0;
  }

  /** The value that counts on an interface: the larger of its own and `all` (IN_DEV_MAXCONF, include/linux/inetdevice.h). */
  effective(interfaceName: string, name: InterfaceSysctl): number {
    return Math.max(this.#of('all')[name], this.#of(interfaceName)[name]);
  }

  /** The value at a path below /proc/sys/, undefined if there is none. */
  read(path: string): number | undefined {
    const setting = this.#conf.get(pathParts(path)?.[0] ?? '');
    const name = pathParts(path)?.[1];
    if (setting && name) return setting[name];
    return this.#hostWide.get(path);
  }

  /**
   * Sets the value at a path below /proc/sys/.
   * @returns 'missing' if there is no such parameter, 'invalid' if the text is no 32-bit integer
   */
  write(path: string, text: string): 'done' | 'missing' | 'invalid' {
    if (this.read(path) === undefined) return 'missing';
    const value = Number(text);
    if (!/^\s*-?\d+\s*$/.test(text) || value > 0x7fffffff || value < -0x80000000) return 'invalid';
    const parts = pathParts(path);
    if (parts) this.#of(parts[0])[parts[1]] = value;
    else this.#hostWide.set(path, value);
    return 'done';
  }

  /** All paths, sorted. */
  paths(): string[] {
    const paths = [...this.#hostWide.keys()];
    for (const name of this.#conf.keys())
      for (const setting of INTERFACE_SYSCTLS) paths.push(`${CONF}${name}/${setting}`);
    return paths.sort();
  }

  #of(name: string): Record<InterfaceSysctl, number> {
    const setting = this.#conf.get(name);
    if (!setting) throw new Error(`no interface named ${name}`);
    return setting;
  }
}

/** Interface and parameter of a path under net/ipv4/conf. */
function pathParts(path: string): [string, InterfaceSysctl] | undefined {
  const match = /^net\/ipv4\/conf\/([^/]+)\/([^/]+)$/.exec(path);
  if (!match) return undefined;
  const name = INTERFACE_SYSCTLS.find(each => each === match[2]);
  return name ? [match[1] as string, name] : undefined;
}
