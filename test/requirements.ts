/** What a test needs of the machine: the reason to skip it, or false. `test(…, { skip: missing('root', 'nginx') }, …)` */
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';

/** Debian's package for what is not named like its package. */
const packages: Record<string, string> = {
  arp: 'net-tools',
  arpspoof: 'dsniff',
  arping: 'iputils-arping',
  ip: 'iproute2',
  man: 'man-db',
  nft: 'nftables',
  nginx: 'nginx-light',
  ping: 'iputils-ping',
  promtool: 'prometheus',
  sysctl: 'procps',
  journalctl: 'systemd',
  systemctl: 'systemd',
  'systemd-analyze': 'systemd',
  tc: 'iproute2',
};

/**
 * @param needs `root`, or commands that must be in the PATH
 * @returns which of them are missing and what to do about it, or false
 */
export function missing(...needs: string[]): string | false {
  const reasons = needs.flatMap(need => {
    if (need === 'root') return process.geteuid?.() === 0 ? [] : ['needs root'];
    const path = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin'];
    if (path.some(directory => existsSync(join(directory, need)))) return [];
    return [`needs ${need} (Debian: apt-get install ${packages[need] ?? need})`];
  });
  return reasons.length > 0 && reasons.join(', ');
}
