/** The ARP table as net-tools' `arp -n` prints it, and as data. */
import { formatAddress, formatMac } from '../wire/address.ts';
import { isValid, type Neighbour } from './neighbours.ts';

export interface TableEntry {
  address: string;
  /** Lower-case MAC; null while nobody has answered. */
  mac: string | null;
  /** As `ip neigh` names it, or PUBLISHED for an address that the host answers for in others' place (proxy ARP). */
  state: string;
  interface: string;
  /** The kind of hardware as net-tools names it; Ethernet if missing. */
  hardware?: string;
}

/**
 * The entries as data.
 * @param interfaceName the name behind an interface index
 */
export function tableEntries(
  neighbours: Iterable<Neighbour>,
  interfaceName: (index: number) => string,
): TableEntry[] {
  const entries: TableEntry[] = [];
  for (const neighbour of neighbours) {
    if (neighbour.state === 'NOARP' || neighbour.state === 'NONE') continue;
    entries.push({
      address: formatAddress(neighbour.address),
      mac: isValid(neighbour) ? formatMac(neighbour.mac) : null,
      state: neighbour.state,
      interface: interfaceName(neighbour.interfaceIndex),
    });
  }
  return entries;
}

/**
 * What `arp -n` prints (net-tools 2.10): a heading and a line an entry, or nothing at all for an empty table. net-tools
 * has no IPv6; for its longer addresses the first column is as wide as they need.
 */
export function formatArpTable(entries: readonly TableEntry[]): string {
  if (entries.length === 0) return '';
  const width = Math.max(23, ...entries.map(({ address }) => address.length));
  let text = `${'Address'.padEnd(width)}  HWtype  HWaddress           Flags Mask            Iface\n`;
  for (const entry of entries) {
    const isPublished = entry.state === 'PUBLISHED';
    const type = isPublished ? '*' : entry.mac ? (entry.hardware ?? 'ether') : '';
    const hardware = isPublished ? '<from_interface>' : (entry.mac ?? '(incomplete)');
    const isPinned = entry.state === 'PERMANENT' || isPublished;
    const flags = `${entry.mac ? 'C' : ''}${isPinned ? 'M' : ''}${isPublished ? 'P' : ''}`;
    text += `${entry.address.padEnd(width)}  ${type.padEnd(8)}${hardware.padEnd(20)}${flags.padEnd(22)}${entry.interface}\n`;
  }
  return text;
}

/** What `arp -an` prints. */
export function formatArpTableBsd(entries: readonly TableEntry[]): string {
  return entries
    .map(entry => {
      const hardware = entry.mac ? `${entry.mac} [ether]` : '<incomplete>';
      const pinned = entry.state === 'PERMANENT' ? ' PERM' : '';
      return `? (${entry.address}) at ${hardware}${pinned} on ${entry.interface}\n`;
    })
    .join('');
}
