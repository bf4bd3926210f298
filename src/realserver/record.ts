/**
 * What was changed on this host and what takes it back, in a file that outlives the command. It is written before each
 * change, so that a crash loses nothing.
 */
import {
  closeSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { lockFile, networkNamespaceCookie } from '../datapath/ffi/libc.ts';
import type { Restoration } from './restoration.ts';

const DEFAULT_FOLDER = '/var/lib/dirigo/realserver';
const VERSION = 1;

export interface Entry {
  /** Of the step. */
  key: string;
  label: string;
  /** Who needs it: a mode, or a mode and a VIP: `dr 10.0.0.3`. */
  owners: string[];
  restoration: Restoration;
}

interface RecordFile {
  version: typeof VERSION;
  /** The kernel's number of the boot that this was done in. */
  boot: string;
  /** It comes back after a boot. */
  persistent: boolean;
  entries: Entry[];
}

/** Inode of the network namespace that the kernel started with (NET_NS_INIT_INO of Linux 6.18). */
const FIRST_NAMESPACE = 0xeffffff9;

/** `host`, or a name for the network namespace that no other has had since the machine was started. */
export function namespaceName(): string {
  return isOfFirstProcess() ? 'host' : `net_${networkNamespaceCookie()}`;
}

/** Of this container's first process, or, where that is hidden, of the machine's. */
function isOfFirstProcess(): boolean {
  const own = statSync('/proc/self/ns/net').ino;
  try {
    return statSync('/proc/1/ns/net').ino === own;
  } catch {
    return own === FIRST_NAMESPACE;
  }
}

export class ChangeRecord {
  readonly path: string;
  persistent = false;
  #entries: Entry[] = [];
  readonly #boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  #lock = -1;

  /**
   * Opens the record of this network namespace, alone.
   * @throws Error if another command works on it, or it cannot be read
   */
  constructor(folder = process.env.DIRIGO_REALSERVER_STATE || DEFAULT_FOLDER) {
    mkdirSync(folder, { recursive: true, mode: 0o755 });
    const lock = join(folder, '.lock');
    if (!existsSync(lock)) writeFileSync(lock, '');
    if (!lockFile(lock, fd => (this.#lock = fd))) {
      throw new Error(`another \`dirigo realserver\` is at work (${lock}): wait for it`);
    }
    this.path = join(folder, `${namespaceName()}.json`);
    if (existsSync(this.path)) this.#read();
  }

  #read(): void {
    let file: RecordFile;
    try {
      file = JSON.parse(readFileSync(this.path, 'utf8')) as RecordFile;
    } catch (error) {
      throw new Error(
        `${this.path} is damaged (${(error as Error).message}): what was changed is not known any more`,
      );
    }
    if (file.version !== VERSION) {
      throw new Error(`${this.path} is of version ${file.version}, this program knows version ${VERSION}`);
    }
    // A boot took back everything that was not made to last.
    if (file.boot !== this.#boot && !file.persistent) return;
    this.persistent = file.persistent;
    this.#entries = file.entries;
  }

  get entries(): readonly Entry[] {
    return this.#entries;
  }

  find(key: string): Entry | undefined {
    return this.#entries.find(entry => entry.key === key);
  }

  /** Adds an entry, or puts it in the place of the one with its key. */
  put(entry: Entry): void {
    const at = this.#entries.findIndex(({ key }) => key === entry.key);
    if (at < 0) this.#entries.push(entry);
    else this.#entries[at] = entry;
    this.save();
  }

  remove(key: string): void {
    this.#entries = this.#entries.filter(entry => entry.key !== key);
    this.save();
  }

  save(): void {
    if (this.#entries.length === 0) {
      rmSync(this.path, { force: true });
      return;
    }
    const file: RecordFile = {
      version: VERSION,
      boot: this.#boot,
      persistent: this.persistent,
      entries: this.#entries,
    };
    const draft = `${this.path}.${process.pid}`;
    writeFileSync(draft, `${JSON.stringify(file, undefined, 2)}\n`, { mode: 0o600, flush: true });
    renameSync(draft, this.path);
  }

  close(): void {
    if (this.#lock >= 0) closeSync(this.#lock);
    this.#lock = -1;
  }
}
