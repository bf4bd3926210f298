/** Where compiled BPF objects and the file systems for what is pinned are. */
import { existsSync, mkdirSync, readFileSync, statfsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { mountFileSystem } from './ffi/libc.ts';

const BPF_FILE_SYSTEM = 0xcafe4a11;

/**
 * The path of a compiled object that belongs to this installation: beside the sources in a checkout, under dist/ in a
 * package.
 * @param name its path in that folder, `dirigo.bpf.o` for example
 */
export function installedObject(name: string): string {
  const candidates = ['../../bpf', '../bpf'].map(folder => join(import.meta.dirname, folder, name));
  return candidates.find(existsSync) ?? (candidates[0] as string);
}

/** @throws Error that says how to make the object if it is missing */
export function readObject(path: string): Uint8Array {
  try {
    return readFileSync(path);
  } catch {
    throw new Error(
      `the BPF object ${path} is missing: run \`npm run build:bpf\` (needs clang and libbpf-dev)`,
    );
  }
}

export function isBpfFileSystem(path: string): boolean {
  return existsSync(path) && statfsSync(path).type === BPF_FILE_SYSTEM;
}

/** Makes the directory, mounting a BPF file system where there is none. */
export function prepareBpfDirectory(directory: string): void {
  if (isBpfFileSystem(directory)) return;
  let existing = dirname(directory);
  while (!existsSync(existing)) existing = dirname(existing);
  if (!isBpfFileSystem(existing)) {
    // /sys/fs/bpf is where everybody expects it; elsewhere the directory itself becomes the mount point.
    if (directory.startsWith('/sys/')) mountFileSystem('bpf', '/sys/fs/bpf');
    else {
      mkdirSync(directory, { recursive: true });
      mountFileSystem('bpf', directory);
      return;
    }
  }
  mkdirSync(directory, { recursive: true, mode: 0o700 });
}

/** True if the directory is a mount point of its own. */
export function isMountPoint(directory: string): boolean {
  return isBpfFileSystem(directory) && !isBpfFileSystem(dirname(directory));
}
