/** The kernel's own tunnel devices, where it has them. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { type Family, familyOf } from '../wire/address.ts';
import { effective, interfaces, readSetting, run, settingText, writeSetting } from './host.ts';
import type { Tunnel } from './request.ts';
import type { Restoration } from './restoration.ts';
import { type Finding, RUN_IT, type Step } from './step.ts';

/** A device that takes packets out of one kind of tunnel. */
interface DeviceKind {
  /** As `ip link` and the module are called; `words` follow the type. */
  type: string;
  module: string;
  words: readonly string[];
}

/** Outside IPv4 there is a device for each family inside; outside IPv6 one for both. */
const KINDS: Readonly<Record<Exclude<Tunnel, 'gue'>, Readonly<Record<Family, readonly DeviceKind[]>>>> = {
  ipip: {
    4: [
      { type: 'ipip', module: 'ipip', words: [] },
      { type: 'sit', module: 'sit', words: [] },
    ],
    6: [{ type: 'ip6tnl', module: 'ip6_tunnel', words: ['mode', 'any'] }],
  },
  gre: {
    4: [{ type: 'gre', module: 'ip_gre', words: [] }],
    6: [{ type: 'ip6gre', module: 'ip6_gre', words: [] }],
  },
};

/** GUE's packets go on as IPIP when the kernel has taken them out of UDP. */
function kindsFor(tunnels: readonly Tunnel[], outer: Family): DeviceKind[] {
  const kinds = tunnels.flatMap(tunnel => KINDS[tunnel === 'gue' ? 'ipip' : tunnel][outer]);
  return [...new Set(kinds)];
}

/** True if the kernel has what these tunnels need, loaded or to be loaded. Changes nothing. */
export function hasTunnelDevices(tunnels: readonly Tunnel[], outers: readonly Family[]): boolean {
  const modules = outers.flatMap(outer => kindsFor(tunnels, outer).map(({ module }) => module));
  if (tunnels.includes('gue')) modules.push(...outers.map(outer => (outer === 4 ? 'fou' : 'fou6')));
  return modules.every(
    module =>
      existsSync(`/sys/module/${module}`) ||
      spawnSync('modprobe', ['--dry-run', '--quiet', module], { stdio: 'ignore' }).status === 0,
  );
}

/** @param ends this host's addresses, where tunnels end */
export function tunnelDeviceSteps(
  tunnels: readonly Tunnel[],
  ends: readonly string[],
  guePort: number,
): Step[] {
  const steps: Step[] = [];
  for (const [index, end] of ends.entries()) {
    for (const kind of kindsFor(tunnels, familyOf(end))) steps.push(new DeviceStep(kind, end, index));
  }
  if (tunnels.includes('gue')) {
    for (const family of [4, 6] as const) {
      if (ends.some(end => familyOf(end) === family)) steps.push(new GueStep(family, guePort));
    }
  }
  return steps;
}

class DeviceStep implements Step {
  readonly key: string;
  readonly label: string;
  readonly #name: string;
  readonly #add: readonly string[];

  constructor({ type, words }: DeviceKind, end: string, index: number) {
    this.#name = `dirigo-${type}${index}`;
    this.#add = ['link', 'add', 'name', this.#name, 'type', type, ...words, 'local', end];
    this.key = `device ${this.#name}`;
    this.label = `tunnel device ${this.#name} for ${end}`;
  }

  get #filter(): { family: 4; device: string; key: string } {
    return { family: 4, device: this.#name, key: 'rp_filter' };
  }

  /** Replies do not leave by the tunnel: strict reverse path filtering would drop everything that comes out of it. */
  commands(): string[] {
    return [
      `ip ${this.#add.join(' ')}`,
      `sysctl -w ${settingText(this.#filter)}=2`,
      `ip link set ${this.#name} up`,
    ];
  }

  isMade(): boolean {
    const device = interfaces().find(({ name }) => name === this.#name);
    return device?.isUp === true && effective(this.#filter) !== 1;
  }

  inspect(): Finding | undefined {
    if (this.isMade()) return undefined;
    return { level: 'missing', text: `the tunnel device ${this.#name} is missing or down`, remedy: RUN_IT };
  }

  prepare(): Restoration {
    return { kind: 'device', name: this.#name };
  }

  make(): void {
    if (readSetting(this.#filter) === undefined) run('ip', ...this.#add);
    writeSetting(this.#filter, 2);
    run('ip', 'link', 'set', this.#name, 'up');
  }
}

/** Receives GUE on a UDP port. */
class GueStep implements Step {
  readonly key: string;
  readonly label: string;
  readonly #family: Family;
  readonly #port: number;

  constructor(family: Family, port: number) {
    this.#family = family;
    this.#port = port;
    this.key = `fou ${family} ${port}`;
    this.label = `GUE on UDP port ${port} (IPv${family})`;
  }

  get #words(): string[] {
    return ['fou', 'add', 'port', String(this.#port), 'gue', ...(this.#family === 6 ? ['-6'] : [])];
  }

  commands(): string[] {
    return [`ip ${this.#words.join(' ')}`];
  }

  isMade(): boolean {
    const lines = spawnSync('ip', ['fou', 'show'], { encoding: 'utf8' }).stdout ?? '';
    return lines
      .split('\n')
      .some(
        line =>
          new RegExp(`^port ${this.#port} gue\\b`).test(line) && / -6\b/.test(line) === (this.#family === 6),
      );
  }

  inspect(): Finding | undefined {
    if (this.isMade()) return undefined;
    return { level: 'missing', text: `nothing receives ${this.label}`, remedy: RUN_IT };
  }

  prepare(): Restoration {
    return { kind: 'fou', family: this.#family, port: this.#port };
  }

  make(): void {
    run('ip', ...this.#words);
  }
}
