import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatArpTable, formatArpTableBsd, type TableEntry } from './table.ts';

const ENTRIES: TableEntry[] = [
  { address: '172.16.1.51', mac: '00:0c:29:c7:5d:dd', state: 'STALE', interface: 'eth1' },
  { address: '10.0.0.99', mac: null, state: 'INCOMPLETE', interface: 'eth0' },
  { address: '10.0.0.1', mac: '00:50:56:c0:00:08', state: 'REACHABLE', interface: 'eth0' },
  { address: '10.0.0.254', mac: '00:50:56:e1:eb:34', state: 'PERMANENT', interface: 'eth0' },
];

// Recorded from net-tools 2.10 with these very entries in the kernel's table.
const RECORDED = `\
Address                  HWtype  HWaddress           Flags Mask            Iface
172.16.1.51              ether   00:0c:29:c7:5d:dd   C                     eth1
10.0.0.99                        (incomplete)                              eth0
10.0.0.1                 ether   00:50:56:c0:00:08   C                     eth0
10.0.0.254               ether   00:50:56:e1:eb:34   CM                    eth0
`;

test('arp -n', () => {
  assert.equal(formatArpTable(ENTRIES), RECORDED);
  assert.equal(formatArpTable([]), '');
});

test('arp -an', () => {
  assert.equal(
    formatArpTableBsd(ENTRIES),
    `\
? (172.16.1.51) at 00:0c:29:c7:5d:dd [ether] on eth1
? (10.0.0.99) at <incomplete> on eth0
? (10.0.0.1) at 00:50:56:c0:00:08 [ether] on eth0
? (10.0.0.254) at 00:50:56:e1:eb:34 [ether] PERM on eth0
`,
  );
});
