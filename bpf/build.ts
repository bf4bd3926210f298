/**
 * Compiles the XDP program: `node bpf/build.ts [directory]`. Does nothing if the object is newer than every source.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { arch } from 'node:process';

const sources = import.meta.dirname;
const architectures: Record<string, string> = { x64: 'x86_64', arm64: 'aarch64', riscv64: 'riscv64' };

/**
 * Brings the object up to date and returns its path.
 * @param directory where it goes, default beside the sources
 * @throws Error with what is missing or the compiler's words
 */
export function buildBpf(directory = sources): string {
  const object = join(directory, 'dirigo.bpf.o');
  const inputs = readdirSync(sources).filter(name => /\.[ch]$|^build\.ts$/.test(name));
  return compileBpf(
    join(sources, 'dirigo.bpf.c'),
    inputs.map(name => join(sources, name)),
    object,
  );
}

/**
 * Compiles a BPF program unless the object is newer than all inputs, and returns the object's path.
 * @throws Error with what is missing or the compiler's words
 */
export function compileBpf(source: string, inputs: readonly string[], object: string): string {
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
      ...(existsSync(multiarch) ? [`-I${multiarch}`] : []),
      ...['-c', source, '-o', draft],
    ],
    { encoding: 'utf8' },
  );
  if (compiled.error) {
    throw new Error(
      'building the XDP program needs clang: install it (Debian: apt-get install clang libbpf-dev)',
    );
  }
  if (compiled.status !== 0) {
    rmSync(draft, { force: true });
    const advice = /bpf_helpers\.h.*not found|linux\/.*not found/.test(compiled.stderr)
      ? "libbpf's headers are missing: install them (Debian: apt-get install libbpf-dev)\n"
      : '';
    throw new Error(`building the XDP program failed\n${advice}${compiled.stderr.trim()}`);
  }
  renameSync(draft, object);
  return object;
}

if (import.meta.main) {
  try {
    buildBpf(process.argv[2]);
  } catch (error) {
    console.error(`dirigo: ${(error as Error).message}`);
    process.exitCode = 1;
  }
}
