/** What is installed: the file tree of the package, put together under a folder. */
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  existsSync,
  globSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join, relative } from 'node:path';
import { gzipSync } from 'node:zlib';

export const ROOT = join(import.meta.dirname, '..');

/** Where the program lives. */
const HOME = 'usr/lib/dirigo';
/** Programs and where they are called: ipvsadm where the real one is. */
const COMMANDS: Readonly<Record<string, string>> = {
  dirigo: 'usr/bin',
  ipvsadm: 'usr/sbin',
  'ipvsadm-restore': 'usr/sbin',
  'ipvsadm-save': 'usr/sbin',
};
const COMPLETIONS: Readonly<Record<string, string>> = {
  bash: 'usr/share/bash-completion/completions',
  zsh: 'usr/share/zsh/vendor-completions',
  fish: 'usr/share/fish/vendor_completions.d',
};

/** Puts the tree together. @param build a folder in which `npm run build` has run */
export function installTree(build: string, tree: string): void {
  const home = join(tree, HOME);
  copy(join(build, 'bin'), join(home, 'bin'));
  copy(join(build, 'dist'), join(home, 'dist'), path => !/\.d\.ts$|\/dist\/(man|completions)$/.test(path));
  copy(join(build, 'package.json'), join(home, 'package.json'));
  for (const name of productionPackages()) {
    // Sources and manuals of packages are not needed to run them, nor what is for other C libraries.
    const superfluous =
      /\/(lib\/native|vendor|doc|musl_\w+|CHANGELOG\.md|README\.md|Readme\.md|typings|cnoke\.cjs|trampolines\.cjs|CMakeLists\.txt)$|\.(d\.ts|cc|hh|c|h|inc|asm|S|cpp)$/;
    copy(join(ROOT, name), join(home, name), path => !superfluous.test(path.slice(join(ROOT, name).length)));
  }
  installNode(home);
  for (const [name, folder] of Object.entries(COMMANDS)) {
    link(relative(folder, join(HOME, 'bin', name)), join(tree, folder, name));
  }
  for (const path of globSync('dist/man/*', { cwd: build })) {
    write(join(tree, 'usr/share/man/man8', `${basename(path)}.gz`), compressed(join(build, path)));
  }
  for (const [shell, folder] of Object.entries(COMPLETIONS)) {
    copy(join(build, 'dist/completions', shell), join(tree, folder));
  }
  const documents = join(tree, 'usr/share/doc/dirigo');
  copy(join(build, 'docs'), documents, path => !/\.ts$/.test(path));
  copy(join(build, 'README.md'), join(documents, 'README.md'));
}

/** The pinned Node, without symbols where they can be taken off. */
function installNode(home: string): void {
  const binary = join(home, 'node/bin/node');
  copy(join(ROOT, 'node_modules/node/bin/node'), binary);
  chmodSync(binary, 0o755);
  spawnSync('strip', ['--strip-unneeded', binary]);
  link('../../node/bin/node', join(home, 'node_modules/.bin/node'));
}

/** Folders of the packages that running needs, on this platform. */
function productionPackages(): string[] {
  const { packages } = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { dev?: true; optional?: true }>;
  };
  return Object.entries(packages)
    .filter(([path, { dev }]) => path !== '' && !dev && existsSync(join(ROOT, path)))
    .map(([path]) => path);
}

export function copy(from: string, to: string, wanted: (path: string) => boolean = () => true): void {
  mkdirSync(dirname(to), { recursive: true });
  cpSync(from, to, { recursive: true, filter: path => wanted(path) });
}

export function write(path: string, content: string | Uint8Array, mode = 0o644): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content, { mode });
}

function link(target: string, path: string): void {
  mkdirSync(dirname(path), { recursive: true });
  symlinkSync(target, path);
}

/** Without a time in it, so that the same input gives the same package. */
export function compressed(path: string): Uint8Array {
  return gzipSync(readFileSync(path), { level: 9 });
}

/** Sets the modes that a package has, whatever the umask was: nothing is written to, programs can be executed. */
export function setModes(tree: string): void {
  for (const entry of readdirSync(tree, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (entry.isDirectory()) chmodSync(path, 0o755);
    else if (entry.isFile()) chmodSync(path, isProgram(path) ? 0o755 : 0o644);
  }
}

function isProgram(path: string): boolean {
  return /\/(bin|sbin)\/[^/]+$/.test(path) || /\/DEBIAN\/(postinst|prerm|postrm)$/.test(path);
}

/** Builds in a copy of the sources, so that nobody who works in the project's own folder is disturbed. */
export function buildIn(folder: string): void {
  const names = readdirSync(ROOT).filter(name => !/^(node_modules|dist|build|\.git|test|bench)$/.test(name));
  for (const name of names) {
    cpSync(join(ROOT, name), join(folder, name), {
      recursive: true,
      filter: path => !/\.test\.ts$/.test(path),
    });
  }
  symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
  const built = spawnSync('npm', ['run', 'build'], { cwd: folder, encoding: 'utf8' });
  if (built.status !== 0) {
    rmSync(folder, { recursive: true, force: true });
    throw new Error(`building failed\n${built.stdout}${built.stderr}`);
  }
}
