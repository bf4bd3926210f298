/**
 * Compiles the BPF programs: `node bpf/build.ts [directory]`. Leaves an object alone that is newer than its sources.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { arch } from 'node:process';

const sources = import.meta.dirname;
/** The objects that belong to an installation: source and what it is compiled with, by their names. */
const OBJECTS: Record<string, { source: string; defines: readonly string[] }> = {
  'dirigo.bpf.o': { source: 'dirigo.bpf.c', defines: [] },
  'dirigo-tap.bpf.o': { source: 'dirigo.bpf.c', defines: ['TAP'] },
  'guard.bpf.o': { source: 'guard/guard.bpf.c', defines: [] },
  'decapsulate.bpf.o': { source: 'realserver/decapsulate.bpf.c', defines: [] },
  'toa.bpf.o': { source: 'realserver/toa.bpf.c', defines: [] },
};
/** Every object that `npm run build:bpf` makes. */
export const OBJECT_NAMES: readonly string[] = Object.keys(OBJECTS);

const architectures: Record<string, string> = { x64: 'x86_64', arm64: 'aarch64', riscv64: 'riscv64' };

/**
 * Brings an object up to date and returns its path.
 * @param directory where it goes, default beside the sources
 * @param name one of those that belong to an installation
 * @throws Error with what is missing or the compiler's words
 */
export function buildBpf(directory = sources, name = 'dirigo.bpf.o'): string {
  const object = OBJECTS[name];
  if (!object) throw new Error(`there is no BPF object ${name}`);
  const source = join(sources, object.source);
  const beside = readdirSync(dirname(source)).filter(input => /\.h$/.test(input));
  const inputs = [source, join(sources, 'build.ts'), ...beside.map(input => join(dirname(source), input))];
  return compileBpf(source, inputs, join(directory, name), object.defines);
}

/**
 * Compiles a BPF program unless the object is newer than all inputs, and returns the object's path.
 * @throws Error with what is missing or the compiler's words
 */
export function compileBpf(
  source: string,
  inputs: readonly string[],
  object: string,
  defines: readonly string[] = [],
): string {
  const newest = Math.max(...inputs.map(input => statSync(input).mtimeMs));
  if (existsSync(object) && statSync(object).mtimeMs >= newest) return object;

  mkdirSync(dirname(object), { recursive: true });
  // Written aside and renamed, so that whoever builds or reads at the same time finds a whole file.
  const draft = `${object}.${process.pid}`;
  const multiarch = `/usr/include/${architectures[arch] ?? arch}-linux-gnu`;
  const compiled = spawnSync(
    'clang',
    [
      ...['-g', '-O2', '-target', 'bpf', '-mcpu=v3', '-Wall', '-Wextra', '-Werror'],
      '-Wno-unused-parameter',
      ...defines.map(name => `-D${name}`),
      ...(existsSync(multiarch) ? [`-I${multiarch}`] : []),
      ...['-c', source, '-o', draft],
    ],
    { encoding: 'utf8' },
  );
  if (compiled.error) {
    throw new Error(
      'building the BPF programs needs clang: install it (Debian: apt-get install clang libbpf-dev)',
    );
  }
  if (compiled.status !== 0) {
    rmSync(draft, { force: true });
    const advice = /bpf_helpers\.h.*not found|linux\/.*not found/.test(compiled.stderr)
      ? "libbpf's headers are missing: install them (Debian: apt-get install libbpf-dev)\n"
      : '';
    throw new Error(`building ${source} failed\n${advice}${compiled.stderr.trim()}`);
  }
  renameSync(draft, object);
  return object;
}

if (import.meta.main) {
  try {
    for (const name of OBJECT_NAMES) buildBpf(process.argv[2], name);
  } catch (error) {
    console.error(`dirigo: ${(error as Error).message}`);
    process.exitCode = 1;
  }
}
