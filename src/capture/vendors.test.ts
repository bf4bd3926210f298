import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { parseMac } from '../wire/address.ts';
import { macName, shortVendorName, type VendorList } from './vendors.ts';

const list = createRequire(import.meta.url)('oui-data') as VendorList;
const MANUFACTURERS = '/usr/share/wireshark/manuf';

function named(mac: string): string {
  const bytes = parseMac(mac);
  assert.ok(bytes);
  return macName(bytes, 0, list);
}

test('built-in prefixes go before the list, long ones before short ones', () => {
  assert.equal(named('00:0c:29:2e:aa:48'), 'Vmware_2e:aa:48');
  assert.equal(named('00:00:5e:00:01:33'), 'IETF-VRRP-VRID_33');
  assert.equal(named('33:33:00:00:00:01'), 'IPv6mcast_00:00:00:01');
  assert.equal(named('ff:ff:ff:ff:ff:ff'), 'Broadcast');
});

test("vendors come from the IEEE's list, by blocks of every size", () => {
  assert.equal(named('00:1b:21:01:02:03'), 'IntelCor_01:02:03');
  const medium = Object.keys(list).find(prefix => prefix.length === 7) as string;
  const small = Object.keys(list).find(prefix => prefix.length === 9) as string;
  const mac = (prefix: string): string =>
    prefix
      .padEnd(12, '5')
      .toLowerCase()
      .replace(/..(?=.)/g, '$&:');
  assert.equal(named(mac(medium)), `${shortVendorName(list[medium] as string)}_5:55:55`);
  assert.equal(named(mac(small)), `${shortVendorName(list[small] as string)}_5:55`);
  assert.equal(named('02:00:00:00:00:01'), '02:00:00:00:00:01');
});

test("names are shortened as Wireshark's own list has them", {
  skip: !existsSync(MANUFACTURERS) && `needs ${MANUFACTURERS} (Debian: apt-get install libwireshark-data)`,
}, () => {
  let same = 0;
  let compared = 0;
  const other = new Set<string>();
  for (const line of readFileSync(MANUFACTURERS, 'utf8').split('\n')) {
    const [prefix = '', short = '', long = ''] = line.split('\t').map(word => word.trim());
    const name = list[prefix.replaceAll(':', '')]?.split('\n', 1)[0];
    // The two lists are of different years.
    if (prefix.length !== 8 || name === undefined || name.toLowerCase() !== long.toLowerCase()) continue;
    compared++;
    if (shortVendorName(name).toLowerCase() === short.toLowerCase()) same++;
    else other.add(`${name}: ${shortVendorName(name)}, not ${short}`);
  }
  assert.ok(compared > 10_000, `only ${compared} names`);
  assert.ok(same / compared > 0.99, `${same} of ${compared}: ${[...other].slice(0, 20).join('; ')}`);
});
