/** The topology of the recordings: a director with one interface, or two, and neighbours that are all known. */
import { parseAddress, parseMac } from '../wire/address.ts';
import { type HostOptions, ReplayHost } from './host.ts';

export interface Topology {
  /** 1: clients and servers on eth0; 2: the servers on eth1. */
  interfaces: 1 | 2;
  /** Bytes: the MTU of eth1. Default 1500. */
  mtu1?: number;
  /** Whether packets for others are routed on. Default true. */
  forwarding?: boolean;
}

/** Addresses on `lo` that clients know services by. */
const VIPS = ['10.0.0.3', '2001:db8::3'];
const GATEWAY_MAC = '02:00:00:00:00:fe';
const FIRST_SERVER = 5;
const LAST_SERVER = 63;

/** The MAC address of real server N (10.0.0.N, 10.0.1.N, 2001:db8::hex(N), 2001:db8:1::hex(N)). */
export function serverMac(number: number): Uint8Array {
  return Uint8Array.of(2, 0, 0, 0, 2, number);
}

export function recordedHost(topology: Topology, options: HostOptions = {}): ReplayHost {
  const host = new ReplayHost(options);
  const eth0 = host.addInterface('eth0', mac('02:00:00:00:00:01'), 1500);
  host.addAddress(eth0.index, ip('10.0.0.1'), 24);
  host.addAddress(eth0.index, ip('2001:db8::1'), 64);
  for (const vip of VIPS) host.addAddress(1, ip(vip), 8 * ip(vip).length);
  for (const gateway of [ip('10.0.0.254'), ip('2001:db8::fe')]) {
    host.addNeighbour(eth0.index, gateway, mac(GATEWAY_MAC));
    const prefix = new Uint8Array(gateway.length);
    host.addRoute({ prefix, length: 0, interfaceIndex: eth0.index, gateway });
  }
  let servers = { index: eth0.index, prefix4: '10.0.0.', prefix6: '2001:db8::' };
  if (topology.interfaces === 2) {
    const eth1 = host.addInterface('eth1', mac('02:00:00:00:01:01'), topology.mtu1 ?? 1500);
    host.addAddress(eth1.index, ip('10.0.1.1'), 24);
    host.addAddress(eth1.index, ip('2001:db8:1::1'), 64);
    servers = { index: eth1.index, prefix4: '10.0.1.', prefix6: '2001:db8:1::' };
  }
  for (let number = FIRST_SERVER; number <= LAST_SERVER; number++) {
    host.addNeighbour(servers.index, ip(`${servers.prefix4}${number}`), serverMac(number));
    host.addNeighbour(servers.index, ip(`${servers.prefix6}${number.toString(16)}`), serverMac(number));
  }
  host.forwarding[4] = host.forwarding[6] = topology.forwarding ?? true;
  return host;
}

function ip(text: string): Uint8Array {
  const bytes = parseAddress(text);
  if (!bytes) throw new RangeError(text);
  return bytes;
}

function mac(text: string): Uint8Array {
  const bytes = parseMac(text);
  if (!bytes) throw new RangeError(text);
  return bytes;
}
