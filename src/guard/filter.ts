/**
 * The guard's filter in the kernel: drops ARP and neighbour discovery that contradict the bindings, on the interfaces
 * it is put on. Behind the director's XDP program where that runs, as a program of its own elsewhere, and at the
 * ingress of a bridge's ports. It ends with this process, unless it is behind the director's program: from there
 * `close` takes it, or `removeChained` after a crash.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { AddressRole } from '../arp/cluster-knowledge.ts';
import { installedObject, readObject } from '../datapath/bpf-files.ts';
import { BpfLink, BpfMap, BpfObject, type BpfProgram, possibleCpus } from '../datapath/ffi/libbpf.ts';
import { SystemError } from '../datapath/ffi/libc.ts';
import { parseAddress, parseMac } from '../wire/address.ts';
import {
  BINDING_BYTES,
  BINDING_MACS,
  BindingField,
  BindingFlag,
  DROPPED_BYTES,
  DroppedField,
  type FilterVerdict,
  VERDICTS,
} from './filter-layout.ts';

/** Place of the guard's filter in the director's map `programs`. */
const PROGRAM_GUARD = 1;
/** Dropped frames taken out at a time. */
const TAKEN_AT_ONCE = 256;

export interface FilterBinding {
  address: string;
  role: AddressRole;
  macs: readonly string[];
}

export interface DroppedFrame {
  interfaceIndex: number;
  verdict: FilterVerdict;
  /** Its first bytes. */
  bytes: Uint8Array;
  /** Milliseconds on the kernel's monotonic clock. */
  time: number;
}

/** How the filter is on an interface. */
export type FilterPlace = 'behind the director' | 'native XDP' | 'generic XDP' | 'tc ingress';

export interface FilteredInterface {
  index: number;
  name: string;
  /** A port of a bridge: its frames are looked at before the bridge. */
  isBridgePort: boolean;
  /** The kernel's number of the XDP program that it has, if it has one. */
  xdpProgram: number | undefined;
}

export interface GuardFilterOptions {
  /** Where a director's program is pinned, if there is one. */
  directory: string;
  /** The compiled object. Default: the one that belongs to this installation. */
  object?: string;
}

export class GuardFilter {
  readonly #object: BpfObject;
  readonly #bindings: BpfMap;
  readonly #directors: BpfMap;
  readonly #verdicts: BpfMap;
  readonly #drops: BpfMap;
  readonly #enforced: BpfMap;
  readonly #programs: Record<'alone' | 'chained' | 'port', BpfProgram>;
  readonly #directory: string;
  readonly #places = new Map<number, { place: FilterPlace; link: BpfLink | undefined }>();
  readonly #cpus = possibleCpus();
  readonly #record = new Uint8Array(new ArrayBuffer(DROPPED_BYTES));
  readonly #known = new Map<string, string>();

  /** Loads the programs; nothing is attached yet. @throws Error that says what is missing */
  constructor(options: GuardFilterOptions) {
    const bytes = readObject(options.object ?? installedObject('guard.bpf.o'));
    this.#directory = options.directory;
    this.#object = new BpfObject(bytes, 'guard.bpf.o');
    this.#object.load();
    this.#bindings = this.#object.map('bindings');
    this.#directors = this.#object.map('directors');
    this.#verdicts = this.#object.map('verdicts');
    this.#drops = this.#object.map('drops');
    this.#enforced = this.#object.map('enforced');
    this.#programs = {
      alone: this.#object.program('guard_alone'),
      chained: this.#object.program('guard_chained'),
      port: this.#object.program('guard_port'),
    };
  }

  /** The program as it is attached alone, for tests that run it on a frame. */
  get program(): BpfProgram {
    return this.#programs.alone;
  }

  /** What may be where, from now on. Directors: MACs at which every VIP and every address of this host may be. */
  setBindings(bindings: readonly FilterBinding[], directors: readonly string[]): void {
    const wanted = new Map<string, { map: BpfMap; key: Uint8Array; value: Uint8Array }>();
    for (const mac of directors) {
      wanted.set(`director ${mac}`, { map: this.#directors, key: macWord(mac), value: word(1) });
    }
    const known = new Set(directors);
    for (const { address, role, macs } of bindings) {
      const isDirectors = (role === 'vip' || role === 'own') && macs.some(mac => known.has(mac));
      const others = isDirectors ? macs.filter(mac => !known.has(mac)) : macs;
      const record = bindingRecord(others, isDirectors);
      if (record) wanted.set(address, { map: this.#bindings, key: addressKey(address), value: record });
    }
    // What is new first, so that no address is without its binding in between.
    for (const [name, { map, key, value }] of wanted) {
      const text = value.join();
      if (this.#known.get(name) === text) continue;
      map.update(key, value);
      this.#known.set(name, text);
    }
    for (const name of [...this.#known.keys()]) {
      if (wanted.has(name)) continue;
      if (name.startsWith('director ')) this.#directors.delete(macWord(name.slice(9)));
      else this.#bindings.delete(addressKey(name));
      this.#known.delete(name);
    }
  }

  /**
   * Puts the filter on an interface, where it is not yet.
   * @throws Error if the interface has an XDP program of somebody else
   */
  attach(target: FilteredInterface): FilterPlace {
    const known = this.#places.get(target.index);
    if (known) return known.place;
    const attached = target.isBridgePort
      ? { place: 'tc ingress' as const, link: this.#attachPort(target) }
      : isDirectorOn(this.#directory, target)
        ? { place: 'behind the director' as const, link: this.#chain(target.index) }
        : this.#attachAlone(target);
    this.#places.set(target.index, attached);
    return attached.place;
  }

  #attachPort({ index, name }: FilteredInterface): BpfLink {
    try {
      return BpfLink.attachIngress(this.#programs.port, index, name);
    } catch (error) {
      if (error instanceof SystemError && error.code === 'EINVAL') {
        throw new Error(`${error.message}; filtering a bridge's ports needs Linux 6.6 (tcx)`);
      }
      throw error;
    }
  }

  #chain(index: number): undefined {
    this.#enforced.update(word(index), word(1));
    const programs = BpfMap.openPinned('programs', join(this.#directory, 'programs'));
    if (!programs) throw new Error(`the director's map of programs is missing under ${this.#directory}`);
    try {
      programs.update(word(PROGRAM_GUARD), word(this.#programs.chained.fd));
    } finally {
      programs.close();
    }
    return undefined;
  }

  #attachAlone({ index, name }: FilteredInterface): { place: FilterPlace; link: BpfLink } {
    try {
      return { place: 'native XDP', link: BpfLink.attachXdp(this.#programs.alone, index, name, 'native') };
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      if (error.code === 'EBUSY' || error.code === 'EEXIST') {
        throw new Error(
          `${error.message}; ${name} has an XDP program that is not Dirigo's: guard it without enforcing, or take that off`,
        );
      }
    }
    return { place: 'generic XDP', link: BpfLink.attachXdp(this.#programs.alone, index, name, 'generic') };
  }

  /** Takes the filter off an interface. */
  detach(index: number): void {
    const attached = this.#places.get(index);
    if (!attached) return;
    this.#places.delete(index);
    this.#enforced.delete(word(index));
    attached.link?.detach();
    attached.link?.close();
  }

  places(): { index: number; place: FilterPlace }[] {
    return [...this.#places].map(([index, { place }]) => ({ index, place }));
  }

  /** Frames dropped, by why. */
  counts(): Record<FilterVerdict, number> {
    const counts = {} as Record<FilterVerdict, number>;
    const values = new BigUint64Array(new ArrayBuffer(8 * this.#cpus));
    for (const [number, name] of VERDICTS.entries()) {
      this.#verdicts.lookup(word(number), new Uint8Array(values.buffer));
      counts[name] = values.reduce((sum, value) => sum + Number(value), 0);
    }
    return counts;
  }

  /** Takes out frames that were dropped; of very many only the newest are kept, and not all at once. */
  takeDropped(callback: (frame: DroppedFrame) => void): void {
    const view = new DataView(this.#record.buffer);
    for (let taken = 0; taken < TAKEN_AT_ONCE && this.#drops.pop(this.#record); taken++) {
      const length = view.getUint16(DroppedField.length, true);
      callback({
        interfaceIndex: view.getUint32(DroppedField.interfaceIndex, true),
        verdict: VERDICTS[view.getUint16(DroppedField.verdict, true)] ?? 'passed',
        bytes: this.#record.slice(DroppedField.frame, DroppedField.frame + length),
        time: Number(view.getBigUint64(DroppedField.time, true)) / 1e6,
      });
    }
  }

  /** Takes it off everywhere. */
  close(): void {
    const wasChained = [...this.#places.values()].some(({ place }) => place === 'behind the director');
    for (const index of [...this.#places.keys()]) this.detach(index);
    if (wasChained) removeChained(this.#directory);
    this.#object.close();
  }
}

/** True if the XDP program of the interface is the director's. An index alone says little: each namespace has its own. */
function isDirectorOn(directory: string, { index, xdpProgram }: FilteredInterface): boolean {
  return ['native', 'generic'].some(mode => {
    const link = BpfLink.openPinned(join(directory, `link_${index}_${mode}`));
    const isOn = link !== undefined && link.programId === xdpProgram;
    link?.close();
    return isOn;
  });
}

/** Takes a filter off the director's program that a process left behind which did not end in order. */
export function removeChained(directory: string): void {
  const path = join(directory, 'programs');
  if (!existsSync(path)) return;
  const programs = BpfMap.openPinned('programs', path);
  programs?.delete(word(PROGRAM_GUARD));
  programs?.close();
}

function addressKey(text: string): Uint8Array {
  const bytes = parseAddress(text);
  const key = new Uint8Array(new ArrayBuffer(16));
  if (bytes?.length === 16) key.set(bytes);
  else if (bytes) {
    key.set([0xff, 0xff], 10);
    key.set(bytes, 12);
  }
  return key;
}

function macWord(text: string): Uint8Array {
  const key = new Uint8Array(new ArrayBuffer(8));
  key.set(parseMac(text) ?? []);
  return key;
}

/** Undefined if nobody may be refused for it: more MACs than a record has room for. */
function bindingRecord(macs: readonly string[], isDirectors: boolean): Uint8Array | undefined {
  if (macs.length > BINDING_MACS) return undefined;
  const record = new Uint8Array(new ArrayBuffer(BINDING_BYTES));
  const view = new DataView(record.buffer);
  view.setUint32(BindingField.flags, isDirectors ? BindingFlag.directors : 0, true);
  view.setUint32(BindingField.count, macs.length, true);
  for (const [index, mac] of macs.entries()) record.set(macWord(mac), BindingField.macs + 8 * index);
  return record;
}

function word(value: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(4));
  view.setUint32(0, value, true);
  return new Uint8Array(view.buffer);
}
