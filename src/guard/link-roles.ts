/** What interfaces are besides themselves: bridges, ports of one, places of an XDP program. */
import { runIp } from '../datapath/host-state.ts';

export interface LinkRoles {
  /** Ports by the name of their bridge. */
  ports: ReadonlyMap<string, readonly string[]>;
  /** Names of all ports. */
  isPort: ReadonlySet<string>;
  /** The kernel's number of the XDP program on an interface, by its name. */
  xdpPrograms: ReadonlyMap<string, number>;
}

interface LinkJson {
  ifname: string;
  master?: string;
  xdp?: { prog?: { id?: number } };
  linkinfo?: { info_kind?: string; info_slave_kind?: string };
}

export async function readLinkRoles(): Promise<LinkRoles> {
  return parseLinkRoles(await runIp(['-json', '-details', 'link', 'show']));
}

/** @param text what `ip -json -details link show` printed */
export function parseLinkRoles(text: string): LinkRoles {
  const links = JSON.parse(text || '[]') as LinkJson[];
  const ports = new Map<string, string[]>();
  for (const { ifname, linkinfo } of links) if (linkinfo?.info_kind === 'bridge') ports.set(ifname, []);
  const isPort = new Set<string>();
  const xdpPrograms = new Map<string, number>();
  for (const { ifname, master, linkinfo, xdp } of links) {
    if (xdp?.prog?.id !== undefined) xdpPrograms.set(ifname, xdp.prog.id);
    if (linkinfo?.info_slave_kind !== 'bridge' || master === undefined) continue;
    isPort.add(ifname);
    ports.get(master)?.push(ifname);
  }
  return { ports, isPort, xdpPrograms };
}
