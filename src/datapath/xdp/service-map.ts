/** The map `services` of the program, as it is known to be: what says nothing new is not written. */
import { SERVICE_BYTES, ServiceField, ServiceFlag } from './control.ts';
import type { FastPath } from './fast-path.ts';

/** A value of the map with nothing but flags, a sum of `ServiceFlag`. */
export function serviceRecord(flags: number): Uint8Array {
  const record = new Uint8Array(new ArrayBuffer(SERVICE_BYTES));
  new DataView(record.buffer).setUint32(ServiceField.flags, flags, true);
  return record;
}

export const EMPTY_RECORD = serviceRecord(0);
export const FTP_RECORD = serviceRecord(ServiceFlag.ftp);

export class ServiceMap {
  readonly #fastPath: FastPath;
  /** What it holds, by the key's bytes as text. */
  readonly #written = new Map<string, Uint8Array>();
  /** Keys that a predecessor left and nobody has set since. */
  readonly #inherited = new Map<string, Uint8Array>();

  constructor(fastPath: FastPath) {
    this.#fastPath = fastPath;
    for (const key of fastPath.serviceKeys()) this.#inherited.set(textOf(key), key);
  }

  /** @param value undefined: there is to be none */
  set(key: Uint8Array, value: Uint8Array | undefined): void {
    const text = textOf(key);
    const written = this.#written.get(text);
    if (value === undefined) {
      if (!written && !this.#inherited.has(text)) return;
      this.#fastPath.setService(key);
      this.#written.delete(text);
    } else {
      if (written === value || (written && Buffer.compare(written, value) === 0)) return;
      this.#fastPath.setService(key, value);
      this.#written.set(text, value);
    }
    this.#inherited.delete(text);
  }

  /** Takes away what a predecessor left and nobody has set since. */
  dropInherited(): void {
    for (const [text, key] of this.#inherited) {
      this.#fastPath.setService(key);
      this.#inherited.delete(text);
    }
  }
}

function textOf(key: Uint8Array): string {
  return Buffer.from(key.buffer, key.byteOffset, key.length).toString('latin1');
}
