/** FULLNAT: programs see the client's address, which comes in a TCP option, in the place of the director's. */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { cgroupRoot, interfaces } from './host.ts';
import {
  CgroupStep,
  EntryStep,
  mapPrefix,
  PinnedObjectStep,
  pinDirectory,
  readCounts,
} from './program-steps.ts';
import type { Request } from './request.ts';
import type { Finding, Plan, Step } from './step.ts';

/** enum count in bpf/realserver/toa.bpf.c */
export const TOA_COUNTS = ['told', 'without', 'refused', 'noMemory'] as const;

const PROGRAMS = { sock_ops: 'read_toa', getpeername4: 'tell_ipv4', getpeername6: 'tell_ipv6' } as const;

/** @throws Error if a cgroup or unit is not there */
export function planFullnat(request: Request): Plan {
  const directory = pinDirectory('toa');
  const cgroups = [...request.cgroups.map(findCgroup), ...request.units.map(cgroupOfUnit)];
  const steps: Step[] = [
    new PinnedObjectStep('toa.bpf.o', directory, Object.values(PROGRAMS), [
      'clients',
      'local_addresses',
      'counts',
    ]),
  ];
  for (const prefix of request.localAddresses) {
    const text = `${prefix.address}/${prefix.length}`;
    steps.push(
      new EntryStep({
        map: join(directory, 'local_addresses'),
        key: mapPrefix(prefix),
        value: Uint8Array.of(1),
        label: `clients' addresses from ${text} are believed`,
        text: `${text} is not known as the director's: what it says of clients is not believed`,
      }),
    );
  }
  for (const cgroup of cgroups) steps.push(new CgroupStep(cgroup, directory, PROGRAMS));
  return {
    steps,
    examine: () => [
      ...examineVips(request.vips),
      ...cgroups.flatMap(examineCgroup),
      ...examineCounts(join(directory, 'counts')),
    ],
    advice: () => [
      'an address from the option is as true as the network between director and server: keep others from sending ' +
        "packets with the director's local addresses as their source",
      'sockets that were opened outside of the cgroup (systemd socket units, programs moved into it later) are not covered',
    ],
  };
}

function rootOfCgroups(): string {
  const root = cgroupRoot();
  if (root) return root;
  throw new Error('cgroups of version 2 are not mounted: mount -t cgroup2 none /sys/fs/cgroup/unified');
}

function findCgroup(path: string): string {
  const root = rootOfCgroups();
  const folder = path === root || path.startsWith(`${root}/`) ? path : join(root, path);
  if (existsSync(join(folder, 'cgroup.procs'))) return folder.replace(/(?<=.)\/+$/, '');
  throw new Error(`--cgroup ${path}: there is no such cgroup below ${root}`);
}

function cgroupOfUnit(unit: string): string {
  let path = '';
  try {
    path = execFileSync('systemctl', ['show', '--property=ControlGroup', '--value', '--', unit], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
  } catch {
    throw new Error(`--unit ${unit}: systemd does not run here; name the cgroup with --cgroup`);
  }
  if (path === '') throw new Error(`--unit ${unit} is not running, so it has no cgroup: start it first`);
  return findCgroup(path);
}

/** Number of processes in a cgroup and below it. */
function population(folder: string): number {
  const own = readFileSync(join(folder, 'cgroup.procs'), 'utf8').split('\n').length - 1;
  const below = readdirSync(folder).map(name => join(folder, name));
  return below
    .filter(path => statSync(path).isDirectory())
    .reduce((sum, path) => sum + population(path), own);
}

function examineCgroup(cgroup: string): Finding[] {
  if (population(cgroup) > 0) return [];
  return [
    {
      level: 'warning',
      text: `no process is in ${cgroup}`,
      remedy: `start the service in it: its listening sockets have to be opened there`,
    },
  ];
}

/** In FULLNAT the server does not have the VIP; left over from direct routing it keeps connections from here to itself. */
export function examineVips(vips: readonly string[]): Finding[] {
  return interfaces().flatMap(({ name, addresses }) =>
    addresses
      .filter(({ address }) => vips.includes(address))
      .map(({ address, prefixLength }) => ({
        level: 'wrong',
        text: `${address} is on ${name}: in this mode only the director has the VIP`,
        remedy: `ip address delete ${address}/${prefixLength} dev ${name}`,
      })),
  );
}

function examineCounts(map: string): Finding[] {
  const { refused = 0, without = 0, noMemory = 0 } = readCounts(map, TOA_COUNTS);
  const findings: Finding[] = [];
  if (refused > 0) {
    findings.push({
      level: 'warning',
      text: `${refused} connections brought a client's address from somewhere that --lip does not name: not believed`,
      remedy:
        'if it was the director, name its local address with --lip; if not, somebody tries to forge addresses',
    });
  }
  if (without > 0) {
    findings.push({
      level: 'warning',
      text: `${without} connections from the director brought no client's address: health checks, or TOA is off there`,
      remedy: 'none for health checks; else let the service on the director pass the client on by TOA',
    });
  }
  if (noMemory > 0) {
    findings.push({
      level: 'warning',
      text: `${noMemory} connections' addresses were lost for want of memory`,
      remedy: 'give the host, or the cgroup, more memory',
    });
  }
  return findings;
}
