/** Steps on BPF programs and their maps, pinned so that they work on when the command has ended. */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, unlinkSync } from 'node:fs';
import { basename, join } from 'node:path';
import { installedObject, prepareBpfDirectory, readObject } from '../datapath/bpf-files.ts';
import { attachToCgroup, type CgroupHook, cgroupProgramIds } from '../datapath/ffi/cgroup-programs.ts';
import { BpfMap, BpfObject, BpfProgram, possibleCpus } from '../datapath/ffi/libbpf.ts';
import { parseAddress } from '../wire/address.ts';
import { run } from './host.ts';
import { namespaceName } from './record.ts';
import type { Prefix } from './request.ts';
import type { Restoration } from './restoration.ts';
import { type Finding, quoted, RUN_IT, type Step } from './step.ts';

/** Where the programs of this network namespace are pinned: `DIRIGO_BPF` with an ending of its own. */
export function pinDirectory(name: string): string {
  return join(`${process.env.DIRIGO_BPF || '/sys/fs/bpf/dirigo'}-realserver`, namespaceName(), name);
}

/** Loads the programs of an object and pins them and their maps by their names. */
export class PinnedObjectStep implements Step {
  readonly key: string;
  readonly label: string;
  readonly directory: string;
  readonly #object: string;
  readonly #programs: readonly string[];
  readonly #maps: readonly string[];

  /** @param object its path in the installation */
  constructor(object: string, directory: string, programs: readonly string[], maps: readonly string[]) {
    this.#object = object;
    this.directory = directory;
    this.#programs = programs;
    this.#maps = maps;
    this.key = `programs ${directory}`;
    this.label = `programs of ${object}, pinned in ${directory}`;
  }

  commands(): string[] {
    const directory = quoted(this.directory);
    const object = quoted(installedObject(this.#object));
    return [
      `mkdir -p ${quoted(join(this.directory, '..'))}`,
      `bpftool prog loadall ${object} ${directory} pinmaps ${directory}`,
    ];
  }

  isMade(): boolean {
    // Others see nothing in the directory, which is not the same as nothing being there.
    if (process.geteuid?.() !== 0) throw new Error('looking at BPF programs needs root: run this as root');
    return [...this.#programs, ...this.#maps].every(name => existsSync(join(this.directory, name)));
  }

  inspect(): Finding | undefined {
    if (this.isMade()) return undefined;
    return {
      level: 'missing',
      text: `the programs of ${basename(this.#object)} are not loaded (${this.directory})`,
      remedy: RUN_IT,
    };
  }

  prepare(): Restoration {
    return { kind: 'pins', directory: this.directory };
  }

  make(): void {
    const object = new BpfObject(readObject(installedObject(this.#object)), this.#object);
    try {
      object.load();
      prepareBpfDirectory(this.directory);
      mkdirSync(this.directory, { recursive: true, mode: 0o700 });
      for (const entry of readdirSync(this.directory)) unlinkSync(join(this.directory, entry));
      for (const name of this.#maps) object.map(name).pin(join(this.directory, name));
      for (const name of this.#programs) object.program(name).pin(join(this.directory, name));
    } finally {
      object.close();
    }
  }
}

export interface EntryStepOptions {
  /** Path of the map's pin. */
  map: string;
  key: Uint8Array;
  value: Uint8Array;
  /** What is so with it, in a few words. */
  label: string;
  /** What is missing without it, as a sentence. */
  text: string;
  /** See `Step`. */
  vips?: readonly string[];
}

/** Puts an entry into a pinned map. */
export class EntryStep implements Step {
  readonly key: string;
  readonly label: string;
  readonly vips?: readonly string[];
  readonly #map: string;
  readonly #key: Uint8Array;
  readonly #value: Uint8Array;
  readonly #text: string;

  constructor({ map, key, value, label, text, vips }: EntryStepOptions) {
    this.#map = map;
    this.#key = key;
    this.#value = value;
    this.#text = text;
    if (vips) this.vips = vips;
    this.key = `entry ${map} ${hex(key)}`;
    this.label = label;
  }

  commands(): string[] {
    const bytes = (data: Uint8Array): string =>
      Array.from(data, byte => byte.toString(16).padStart(2, '0')).join(' ');
    return [
      `# ${this.label}`,
      `bpftool map update pinned ${quoted(this.#map)} key hex ${bytes(this.#key)} value hex ${bytes(this.#value)}`,
    ];
  }

  #now(): string | undefined {
    const map = existsSync(this.#map) ? BpfMap.openPinned(this.#map, this.#map) : undefined;
    if (!map) return undefined;
    try {
      const value = new Uint8Array(new ArrayBuffer(map.valueSize));
      return map.lookup(this.#key, value) ? hex(value) : undefined;
    } finally {
      map.close();
    }
  }

  isMade(): boolean {
    return this.#now() === hex(this.#value);
  }

  inspect(): Finding | undefined {
    // Without the map the programs are missing altogether: that is said once.
    if (this.isMade() || !existsSync(this.#map)) return undefined;
    return { level: 'missing', text: this.#text, remedy: RUN_IT };
  }

  prepare(): Restoration {
    const before = this.#now();
    return {
      kind: 'entry',
      map: this.#map,
      key: hex(this.#key),
      after: hex(this.#value),
      ...(before === undefined ? {} : { before }),
    };
  }

  make(): void {
    const map = BpfMap.openPinned(this.#map, this.#map);
    if (!map) throw new Error(`the map ${this.#map} is gone`);
    try {
      map.update(this.#key, this.#value);
    } finally {
      map.close();
    }
  }
}

/** Attaches pinned programs to a cgroup. */
export class CgroupStep implements Step {
  readonly key: string;
  readonly label: string;
  readonly #cgroup: string;
  readonly #directory: string;
  readonly #programs: Readonly<Partial<Record<CgroupHook, string>>>;

  /** @param programs their names by where they are attached */
  constructor(cgroup: string, directory: string, programs: Readonly<Partial<Record<CgroupHook, string>>>) {
    this.#cgroup = cgroup;
    this.#directory = directory;
    this.#programs = programs;
    this.key = `cgroup ${cgroup}`;
    this.label = `programs attached to ${cgroup}`;
  }

  get #attachments(): { hook: CgroupHook; program: string; pin: string }[] {
    return Object.entries(this.#programs).map(([hook, name]) => ({
      hook: hook as CgroupHook,
      program: join(this.#directory, name),
      pin: join(this.#directory, `link_${hook}_${digest(this.#cgroup)}`),
    }));
  }

  commands(): string[] {
    return this.#attachments.map(
      ({ hook, program }) =>
        `bpftool cgroup attach ${quoted(this.#cgroup)} ${hook} pinned ${quoted(program)} multi`,
    );
  }

  #missing(): CgroupHook[] {
    return this.#attachments
      .filter(({ hook, program }) => !isAttached(this.#cgroup, hook, program))
      .map(({ hook }) => hook);
  }

  isMade(): boolean {
    return this.#missing().length === 0;
  }

  inspect(): Finding | undefined {
    const missing = this.#missing();
    if (missing.length === 0) return undefined;
    return {
      level: 'missing',
      text: `programs of ${this.#cgroup} see the director's addresses: nothing is attached to ${missing.join(', ')}`,
      remedy: RUN_IT,
    };
  }

  prepare(): Restoration {
    return { kind: 'links', pins: this.#attachments.map(({ pin }) => pin) };
  }

  make(): void {
    for (const { hook, program: path, pin } of this.#attachments) {
      if (isAttached(this.#cgroup, hook, path)) continue;
      const program = BpfProgram.openPinned(path, path);
      if (!program) throw new Error(`the program ${path} is gone`);
      try {
        const link = attachToCgroup(program, this.#cgroup, hook);
        // Left from a cgroup of the same name that is gone.
        if (existsSync(pin)) unlinkSync(pin);
        link.pin(pin);
        link.close();
      } finally {
        program.close();
      }
    }
  }
}

function isAttached(cgroup: string, hook: CgroupHook, path: string): boolean {
  if (!existsSync(cgroup)) return false;
  const program = existsSync(path) ? BpfProgram.openPinned(path, path) : undefined;
  if (!program) return false;
  program.close();
  return cgroupProgramIds(cgroup, hook).includes(program.id);
}

/** Attaches a pinned program to what an interface receives. */
export class FilterStep implements Step {
  readonly key: string;
  readonly label: string;
  readonly #device: string;
  readonly #program: string;
  readonly #preference: number;

  /** @param preference order among the interface's filters, small first */
  constructor(device: string, program: string, preference: number) {
    this.#device = device;
    this.#program = program;
    this.#preference = preference;
    this.key = `filter ${device} ${program}`;
    this.label = `program attached to what ${device} receives`;
  }

  #words(verb: string): string[] {
    const place = ['filter', verb, 'dev', this.#device, 'ingress', 'pref', String(this.#preference)];
    return [...place, 'handle', '1', 'bpf', 'direct-action', 'object-pinned', this.#program];
  }

  #hasQdisc(): boolean {
    return / clsact /.test(run('tc', 'qdisc', 'show', 'dev', this.#device));
  }

  commands(): string[] {
    const device = quoted(this.#device);
    return [
      `tc qdisc show dev ${device} | grep -q clsact || tc qdisc add dev ${device} clsact`,
      `tc ${this.#words('replace').map(quoted).join(' ')}`,
    ];
  }

  isMade(): boolean {
    const program = existsSync(this.#program) ? BpfProgram.openPinned('', this.#program) : undefined;
    if (!program) return false;
    program.close();
    const filters = run('tc', 'filter', 'show', 'dev', this.#device, 'ingress');
    return new RegExp(`\\bid ${program.id}\\b`).test(filters);
  }

  inspect(): Finding | undefined {
    if (this.isMade()) return undefined;
    return {
      level: 'missing',
      text: `nothing takes packets out of tunnels on ${this.#device}`,
      remedy: RUN_IT,
    };
  }

  prepare(): Restoration {
    return {
      kind: 'filter',
      device: this.#device,
      preference: this.#preference,
      hadQdisc: this.#hasQdisc(),
      program: this.#program,
    };
  }

  make(): void {
    const taken = run('tc', 'filter', 'show', 'dev', this.#device, 'ingress')
      .split('\n')
      .find(line => line.includes(` pref ${this.#preference} `) && / handle /.test(line));
    if (taken && !taken.includes(` name ${basename(this.#program)} `)) {
      throw new Error(
        `${this.#device} has a filter of preference ${this.#preference} already: ${taken.trim()}`,
      );
    }
    if (!this.#hasQdisc()) run('tc', 'qdisc', 'add', 'dev', this.#device, 'clsact');
    run('tc', ...this.#words('replace'));
  }
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

/** Names in a BPF file system have no dots and are short. */
function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 12);
}

const IPV4_MAPPED = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/** An address as the programs' maps have it: 16 bytes, IPv4 as ::ffff:a.b.c.d. */
export function mapAddress(text: string): Uint8Array {
  const bytes = parseAddress(text) ?? new Uint8Array(16);
  return bytes.length === 16 ? bytes : Uint8Array.from([...IPV4_MAPPED, ...bytes]);
}

/** A prefix as the key of a trie: length in bits, then the address. */
export function mapPrefix({ address, length }: Prefix): Uint8Array {
  const bytes = mapAddress(address);
  const key = new Uint8Array(4 + bytes.length);
  new DataView(key.buffer).setUint32(0, address.includes(':') ? length : length + 96, true);
  key.set(bytes, 4);
  return key;
}

/** Counters of a pinned map with a value for each CPU, summed up; zeros if there is none. */
export function readCounts(map: string, names: readonly string[]): Record<string, number> {
  const pinned = existsSync(map) ? BpfMap.openPinned(map, map) : undefined;
  const counts: Record<string, number> = {};
  const values = new BigUint64Array(new ArrayBuffer(8 * possibleCpus()));
  for (const [index, name] of names.entries()) {
    const key = new Uint8Array(new Uint32Array([index]).buffer);
    const found = pinned?.lookup(key, new Uint8Array(values.buffer)) ?? false;
    counts[name] = found ? Number(values.reduce((sum, value) => sum + value, 0n)) : 0;
  }
  pinned?.close();
  return counts;
}
