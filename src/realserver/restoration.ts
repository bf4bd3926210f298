/** What takes a step back, as data that is kept in a file. */
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { isBpfFileSystem, isMountPoint } from '../datapath/bpf-files.ts';
import { BpfLink, BpfMap } from '../datapath/ffi/libbpf.ts';
import { unmountFileSystem } from '../datapath/ffi/libc.ts';
import {
  interfaces,
  readSetting,
  routeLines,
  run,
  type SettingName,
  sameRoute,
  settingText,
  writeSetting,
} from './host.ts';

export type Restoration =
  /** `before` and `after`: the values. */
  | { kind: 'setting'; name: SettingName; before: number; after: number }
  /** Was not there. With its prefix length. */
  | { kind: 'address'; address: string; device: string }
  /** A route as `ip route` takes it; without `before` there was none. */
  | { kind: 'route'; family: 4 | 6; before?: string; after: string }
  | { kind: 'device'; name: string }
  | { kind: 'fou'; family: 4 | 6; port: number }
  /** Programs and maps in a directory of a BPF file system. */
  | { kind: 'pins'; directory: string }
  /** A map's entry; without `before` there was none. Hexadecimal. */
  | { kind: 'entry'; map: string; key: string; before?: string; after: string }
  | { kind: 'links'; pins: string[] }
  | { kind: 'filter'; device: string; preference: number; hadQdisc: boolean; program: string }
  /** Without `before` there was no such file. `folder`: the folder it is in was not there either. */
  | { kind: 'file'; path: string; before?: string; after: string; folder?: true }
  | { kind: 'symlink'; path: string; folder?: true };

/** `already`: somebody else has taken it back. `changed`: it is neither as it was left nor as it was before. */
export type Outcome = { result: 'restored' | 'already' } | { result: 'changed'; text: string };

const restored: Outcome = { result: 'restored' };
const already: Outcome = { result: 'already' };

/** Takes a step back, unless somebody else has changed the same thing since. @throws Error if that fails */
export function restore(step: Restoration): Outcome {
  switch (step.kind) {
    case 'setting':
      return restoreSetting(step.name, step.before, step.after);
    case 'address':
      return restoreAddress(step.address, step.device);
    case 'route':
      return restoreRoute(step.family, step.before, step.after);
    case 'device':
      if (!interfaces().some(({ name }) => name === step.name)) return already;
      run('ip', 'link', 'delete', step.name);
      return restored;
    case 'fou':
      run('ip', 'fou', 'del', 'port', String(step.port), ...(step.family === 6 ? ['-6'] : []));
      return restored;
    case 'pins':
      return removePins(step.directory);
    case 'entry':
      return restoreEntry(step.map, step.key, step.before, step.after);
    case 'links':
      return removeLinks(step.pins);
    case 'filter':
      return removeFilter(step);
    case 'file':
      return removeFolder(step, restoreFile(step.path, step.before, step.after));
    case 'symlink':
      return removeFolder(step, removeSymlink(step.path));
  }
}

function restoreSetting(name: SettingName, before: number, after: number): Outcome {
  const now = readSetting(name);
  if (now === undefined || now === before) return already;
  if (now !== after) {
    return {
      result: 'changed',
      text: `${settingText(name)} is ${now} now: it was ${before}, dirigo made it ${after}, somebody else changed it since`,
    };
  }
  writeSetting(name, before);
  return restored;
}

function restoreAddress(text: string, device: string): Outcome {
  const [address, prefix] = text.split('/');
  const found = interfaces()
    .find(({ name }) => name === device)
    ?.addresses.filter(each => each.address === address);
  if (!found?.some(({ prefixLength }) => prefixLength === Number(prefix))) {
    const [other] = found ?? [];
    if (!other) return already;
    return {
      result: 'changed',
      text: `${address} is on ${device} with prefix length ${other.prefixLength} now`,
    };
  }
  run('ip', 'address', 'delete', text, 'dev', device);
  return restored;
}

function restoreRoute(family: 4 | 6, before: string | undefined, after: string): Outcome {
  const has = (route: string): boolean => routeLines(family).some(line => sameRoute(line, route));
  if (!has(after)) {
    if (before === undefined || has(before)) return already;
    return { result: 'changed', text: `the route "${after}" is gone; before it there was "${before}"` };
  }
  if (before === undefined) run('ip', `-${family}`, 'route', 'delete', ...after.split(' '));
  else run('ip', `-${family}`, 'route', 'replace', ...before.split(' '));
  return restored;
}

function removePins(directory: string): Outcome {
  if (!isBpfFileSystem(directory)) return already;
  for (const entry of readdirSync(directory)) unlinkSync(join(directory, entry));
  removeDirectories(directory);
  return restored;
}

/** The directory and those above it that nothing is in any more, up to where the file system begins. */
function removeDirectories(directory: string): void {
  for (let path = directory; ; path = dirname(path)) {
    const isRoot = isMountPoint(path);
    if (isRoot && path === '/sys/fs/bpf') return;
    if (readdirSync(path).length > 0) return;
    if (isRoot) unmountFileSystem(path);
    rmdirSync(path);
    if (isRoot) return;
  }
}

function restoreEntry(path: string, key: string, before: string | undefined, after: string): Outcome {
  const map = existsSync(path) ? BpfMap.openPinned(path, path) : undefined;
  if (!map) return already;
  try {
    const bytes = new Uint8Array(map.valueSize);
    const now = map.lookup(Buffer.from(key, 'hex'), bytes) ? Buffer.from(bytes).toString('hex') : undefined;
    if (now === before) return already;
    if (now !== after)
      return { result: 'changed', text: `the entry ${key} of ${path} is ${now ?? 'gone'} now` };
    if (before === undefined) map.delete(Buffer.from(key, 'hex'));
    else map.update(Buffer.from(key, 'hex'), Buffer.from(before, 'hex'));
    return restored;
  } finally {
    map.close();
  }
}

function removeLinks(pins: readonly string[]): Outcome {
  let outcome = already;
  for (const path of pins) {
    if (!existsSync(path)) continue;
    const link = BpfLink.openPinned(path);
    // The link of a cgroup that is gone is detached already.
    link?.detach();
    link?.close();
    unlinkSync(path);
    outcome = restored;
  }
  return outcome;
}

function removeFilter({
  device,
  preference,
  hadQdisc,
  program,
}: Extract<Restoration, { kind: 'filter' }>): Outcome {
  if (!interfaces().some(({ name }) => name === device)) return already;
  const filters = (): string => run('tc', 'filter', 'show', 'dev', device, 'ingress');
  const own = filters()
    .split('\n')
    .some(line => line.includes(` pref ${preference} bpf `) && line.includes(` name ${basename(program)} `));
  if (own) run('tc', 'filter', 'delete', 'dev', device, 'ingress', 'pref', String(preference));
  const others = filters() + run('tc', 'filter', 'show', 'dev', device, 'egress');
  const hasQdisc = / clsact /.test(run('tc', 'qdisc', 'show', 'dev', device));
  if (!hadQdisc && hasQdisc && others.trim() === '') run('tc', 'qdisc', 'delete', 'dev', device, 'clsact');
  return own ? restored : already;
}

function removeSymlink(path: string): Outcome {
  if (!lstatSync(path, { throwIfNoEntry: false })) return already;
  unlinkSync(path);
  return restored;
}

function removeFolder({ path, folder }: { path: string; folder?: true }, outcome: Outcome): Outcome {
  const parent = dirname(path);
  if (folder && existsSync(parent) && readdirSync(parent).length === 0) rmdirSync(parent);
  return outcome;
}

function restoreFile(path: string, before: string | undefined, after: string): Outcome {
  if (!existsSync(path))
    return before === undefined ? already : { result: 'changed', text: `${path} is gone` };
  const now = readFileSync(path, 'utf8');
  if (now === before) return already;
  if (now !== after) return { result: 'changed', text: `${path} was edited: it stays as it is` };
  if (before === undefined) rmSync(path);
  else {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, before);
  }
  return restored;
}
