/**
 * `npm run package [-- DIRECTORY]`: builds the Debian package, by default under build/. It needs dpkg-deb, and clang for
 * the XDP program; no root.
 */
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { arch } from 'node:process';
import { gzipSync } from 'node:zlib';
import { buildIn, installTree, ROOT, setModes, write } from './tree.ts';

const DEBIAN = join(import.meta.dirname, 'debian');
const MAINTAINER = 'Dirigo maintainers <maintainers@dirigo.example>';
const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64', riscv64: 'riscv64' };

/** Files that an administrator edits: dpkg keeps what was changed. */
const CONFIGURATION = ['etc/default/dirigo'];

/** Builds the package and returns its path. @throws Error with what is missing or what failed */
export function buildDeb(directory: string): string {
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };
  const architecture = ARCHITECTURES[arch] ?? arch;
  const work = mkdtempSync(join(tmpdir(), 'dirigo-package-'));
  try {
    const build = join(work, 'build');
    const tree = join(work, 'tree');
    mkdirSync(build);
    buildIn(build);
    installTree(build, tree);
    installDebianFiles(tree, version);
    write(join(tree, 'DEBIAN/control'), control(version, architecture, installedKilobytes(tree)));
    write(join(tree, 'DEBIAN/conffiles'), CONFIGURATION.map(path => `/${path}\n`).join(''));
    for (const script of ['postinst', 'prerm', 'postrm']) {
      copyFileSync(join(DEBIAN, script), join(tree, 'DEBIAN', script));
    }
    setModes(tree);
    write(join(tree, 'DEBIAN/md5sums'), sums(tree));
    mkdirSync(directory, { recursive: true });
    const path = join(directory, `dirigo_${version}_${architecture}.deb`);
    execFileSync('dpkg-deb', ['--root-owner-group', '-Zxz', '-z0', '--build', tree, path], {
      stdio: 'pipe',
    });
    return path;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

function installDebianFiles(tree: string, version: string): void {
  const take = (name: string, path: string): void =>
    write(join(tree, path), readFileSync(join(DEBIAN, name)));
  take('dirigo.service', 'lib/systemd/system/dirigo.service');
  take('default', 'etc/default/dirigo');
  take('README.Debian', 'usr/share/doc/dirigo/README.Debian');
  take('lintian-overrides', 'usr/share/lintian/overrides/dirigo');
  const license = readFileSync(join(ROOT, 'LICENSE'), 'utf8')
    .replace(/^[\s\S]*?reserved\.?\n|^MIT License\n\n.*\n\n/, '')
    .trimEnd()
    .split('\n')
    .map(line => ` ${line === '' ? '.' : line}`)
    .join('\n');
  const copyright = readFileSync(join(DEBIAN, 'copyright'), 'utf8').replace('MIT_TEXT', license);
  write(join(tree, 'usr/share/doc/dirigo/copyright'), copyright);
  const changes = `dirigo (${version}) unstable; urgency=medium\n\n  * Version ${version}.\n\n -- ${MAINTAINER}  ${changeDate()}\n`;
  write(join(tree, 'usr/share/doc/dirigo/changelog.gz'), gzipSync(changes, { level: 9 }));
}

/** RFC 5322, of `SOURCE_DATE_EPOCH` (seconds) or now. */
function changeDate(): string {
  const { SOURCE_DATE_EPOCH: epoch } = process.env;
  return new Date(epoch ? Number(epoch) * 1000 : Date.now()).toUTCString().replace('GMT', '+0000');
}

function control(version: string, architecture: string, kilobytes: number): string {
  return `Package: dirigo
Version: ${version}
Architecture: ${architecture}
Maintainer: ${MAINTAINER}
Installed-Size: ${kilobytes}
Depends: libc6 (>= 2.28), libgcc-s1, libstdc++6, libbpf1, iproute2
Recommends: libpcap0.8
Suggests: prometheus
Provides: ipvsadm
Conflicts: ipvsadm
Section: net
Priority: optional
Description: Linux Virtual Server as one system, without kernel modules
 Dirigo is a director that balances TCP, UDP and SCTP at layer 4 in NAT, direct
 routing, tunnels and FULLNAT, with a drop-in ipvsadm, an XDP fast path, and a
 virtual LAN in which every packet can be watched. It runs on kernels without
 ip_vs. It brings the version of Node.js that it needs.
`;
}

function files(tree: string): string[] {
  return readdirSync(tree, { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile())
    .map(entry => join(entry.parentPath, entry.name))
    .filter(path => !relative(tree, path).startsWith('DEBIAN/'))
    .sort();
}

function installedKilobytes(tree: string): number {
  return Math.ceil(files(tree).reduce((sum, path) => sum + statSync(path).size, 0) / 1024);
}

function sums(tree: string): string {
  return execFileSync(
    'md5sum',
    files(tree).map(path => relative(tree, path)),
    { cwd: tree, encoding: 'utf8' },
  );
}

if (import.meta.main) {
  try {
    const path = buildDeb(process.argv[2] ?? join(ROOT, 'build'));
    process.stdout.write(
      `dirigo: ${relative(process.cwd(), path)} (${Math.round(statSync(path).size / 2 ** 20)} MB)\n`,
    );
  } catch (error) {
    console.error(`dirigo: ${(error as Error).message}`);
    process.exitCode = 1;
  }
}
