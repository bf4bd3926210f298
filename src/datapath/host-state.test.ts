/** What iproute2 6.1 printed on a host with two interfaces, read. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatAddress, formatMac } from '../wire/address.ts';
import { parseHostState } from './host-state.ts';

const LINKS =
  '[{"ifindex":1,"ifname":"lo","flags":["LOOPBACK","UP","LOWER_UP"],"mtu":65536,"link_type":"loopback","address":"00:00:00:00:00:00","addr_info":[{"family":"inet","local":"127.0.0.1","prefixlen":8,"scope":"host"}]},' +
  '{"ifindex":2,"link_index":2,"ifname":"va","flags":["BROADCAST","MULTICAST","UP","LOWER_UP"],"mtu":1500,"link_type":"ether","address":"7a:4b:c2:8b:9e:47","addr_info":[{"family":"inet","local":"10.9.0.1","prefixlen":24,"scope":"global","label":"va"},{"family":"inet6","local":"2001:db8:9::1","prefixlen":64,"scope":"global"},{"family":"inet6","local":"fe80::784b:c2ff:fe8b:9e47","prefixlen":64,"scope":"link"}]},' +
  '{"ifindex":3,"ifname":"tun0","flags":["POINTOPOINT"],"mtu":1480,"link_type":"none"}]';
const ROUTES =
  '[{"dst":"default","gateway":"10.9.0.2","dev":"va","flags":[]},' +
  '{"dst":"10.8.0.0/16","gateway":"10.9.0.2","dev":"va","flags":[],"metrics":[{"mtu":1400}]},' +
  '{"dst":"10.8.0.0/16","gateway":"10.9.0.3","dev":"va","metric":50,"flags":[]},' +
  '{"type":"unreachable","dst":"10.7.0.0/16","flags":[]},' +
  '{"dst":"10.6.0.1","flags":[],"nexthops":[{"gateway":"10.9.0.4","dev":"va","weight":1,"flags":["dead","linkdown"]},{"gateway":"10.9.0.5","dev":"va","weight":1,"flags":[]}]},' +
  '{"dst":"10.9.0.0/24","dev":"va","protocol":"kernel","scope":"link","prefsrc":"10.9.0.1","flags":[]}]';
const NEIGHBOURS =
  '[{"dst":"10.9.0.2","dev":"va","lladdr":"da:d3:d4:8a:03:a9","managed":null,"state":["REACHABLE"]},' +
  '{"dst":"10.9.0.77","dev":"va","state":["INCOMPLETE"]},' +
  '{"dst":"10.9.0.78","dev":"va","lladdr":"02:00:00:00:00:01","state":["PERMANENT"]},' +
  '{"dst":"2001:db8:9:0:0::2","dev":"va","lladdr":"02:00:00:00:00:02","state":["STALE"]}]';
const ROUTES6 = '[{"dst":"2001:db8:9::/64","dev":"va","protocol":"kernel","metric":256,"flags":[]}]';

const state = parseHostState(`${LINKS}\n${ROUTES}\n${NEIGHBOURS}\n`, ROUTES6);

test('interfaces and addresses', () => {
  assert.deepEqual(
    state.interfaces.map(({ index, name, mac, mtu, isUp, isLoopback }) => [
      index,
      name,
      formatMac(mac),
      mtu,
      isUp,
      isLoopback,
    ]),
    [
      [1, 'lo', '00:00:00:00:00:00', 65536, true, true],
      [2, 'va', '7a:4b:c2:8b:9e:47', 1500, true, false],
      [3, 'tun0', '00:00:00:00:00:00', 1480, false, false],
    ],
  );
  assert.deepEqual(
    state.addresses.map(({ interfaceIndex, bytes, prefixLength, isGlobal }) => [
      interfaceIndex,
      `${formatAddress(bytes)}/${prefixLength}`,
      isGlobal,
    ]),
    [
      [1, '127.0.0.1/8', false],
      [2, '10.9.0.1/24', true],
      [2, '2001:db8:9::1/64', true],
      [2, 'fe80::784b:c2ff:fe8b:9e47/64', false],
    ],
  );
});

test('routes, the most specific first, then the one with the smaller metric', () => {
  assert.deepEqual(
    state.routes.map(({ bytes, prefixLength, interfaceIndex, gateway, mtu }) => [
      `${formatAddress(bytes)}/${prefixLength}`,
      interfaceIndex,
      gateway && formatAddress(gateway),
      mtu,
    ]),
    [
      ['2001:db8:9::/64', 2, undefined, 0],
      ['10.6.0.1/32', 2, '10.9.0.5', 0],
      ['10.9.0.0/24', 2, undefined, 0],
      ['10.8.0.0/16', 2, '10.9.0.2', 1400],
      ['10.7.0.0/16', 0, undefined, 0],
      ['10.8.0.0/16', 2, '10.9.0.3', 0],
      ['0.0.0.0/0', 2, '10.9.0.2', 0],
    ],
  );
});

test('neighbours', () => {
  assert.deepEqual(
    state.neighbours.map(({ address, mac, isManaged, isPermanent, isReachable }) => [
      address,
      mac && formatMac(mac),
      isManaged,
      isPermanent,
      isReachable,
    ]),
    [
      ['10.9.0.2', 'da:d3:d4:8a:03:a9', true, false, true],
      ['10.9.0.77', undefined, false, false, false],
      ['10.9.0.78', '02:00:00:00:00:01', false, true, true],
      ['2001:db8:9::2', '02:00:00:00:00:02', false, false, false],
    ],
  );
});
