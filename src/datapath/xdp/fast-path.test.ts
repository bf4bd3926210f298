/** The XDP program by BPF_PROG_TEST_RUN: no interface, no traffic, time under the test's control. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { buildBpf } from '../../../bpf/build.ts';
import { goldenExists, goldenJson } from '../../../test/golden.ts';
import { missing } from '../../../test/requirements.ts';
import { ConnectionKey } from '../../ipvs/connection-key.ts';
import { ConnectionFlag, ConnectionTable } from '../../ipvs/connections.ts';
import { DestinationFlag, DestinationTable, Forwarding } from '../../ipvs/destinations.ts';
import { Director } from '../../ipvs/director.ts';
import type { NextHop } from '../../ipvs/network.ts';
import { PROTOCOL_NUMBERS } from '../../ipvs/service-index.ts';
import {
  isTcpStateActive,
  nextTcpState,
  TCP_TABLE,
  TCP_TIMEOUTS,
  TcpDirection,
  TcpState,
} from '../../ipvs/tcp-states.ts';
import { addressBytes, type Family, formatAddress, parseAddress, parseMac } from '../../wire/address.ts';
import { EtherType, writeEthernet } from '../../wire/ethernet.ts';
import { fillIcmpChecksum, IcmpType, writeIcmp } from '../../wire/icmp.ts';
import { Ipv4, Protocol, writeIpv4 } from '../../wire/ipv4.ts';
import { Packet } from '../../wire/packet.ts';
import { fillTcpChecksum, TcpFlag, writeTcp } from '../../wire/tcp.ts';
import { XdpVerdict } from '../ffi/libbpf.ts';
import { SystemError } from '../ffi/libc.ts';
import { AddressFilter, SERVICE_BYTES, serviceKey } from './control.ts';
import { FastPath, removePinned } from './fast-path.ts';

const skip = missing('root', 'clang', 'ip');
const LOOPBACK = 1;

function mac(text: string): Uint8Array {
  const bytes = parseMac(text);
  assert.ok(bytes);
  return bytes;
}

function ip(text: string): Uint8Array {
  const bytes = parseAddress(text);
  assert.ok(bytes);
  return bytes;
}

const DIRECTOR_MAC = mac('02:00:00:00:00:01');
let directories = 0;

/** A fast path in a directory of its own that sees frames for the director's MAC on the loopback interface. */
function openFastPath(options: { capacity?: number; directory?: string } = {}): FastPath {
  const directory = options.directory ?? `/sys/fs/bpf/dirigo-test-${process.pid}-${directories++}`;
  const fastPath = new FastPath({
    capacity: options.capacity ?? 1024,
    destinationCapacity: 64,
    object: buildBpf(),
    directory,
  });
  fastPath.configureInterface(LOOPBACK, DIRECTOR_MAC, 0, 1);
  fastPath.control.setTimeouts(
    TCP_TIMEOUTS.map(seconds => seconds * 1000),
    300_000,
  );
  return fastPath;
}

/** The tables of a fast path, and the tick it is now for the program. */
function tablesOf(fastPath: FastPath): {
  connections: ConnectionTable;
  destinations: DestinationTable;
  tick(): number;
} {
  const destinations = new DestinationTable(fastPath.destinationCapacity, fastPath.destinationMemory);
  const { hz, seed } = fastPath.control;
  const memory = fastPath.connectionMemory;
  const connections = new ConnectionTable({ capacity: fastPath.capacity, destinations, hz, seed, memory });
  const tick = (): number =>
    Number(BigInt.asIntN(32, fastPath.readClock().ticks)) + fastPath.control.clockOffset;
  return { connections, destinations, tick };
}

/** The hosts of the recordings: the director's own addresses, and neighbours that never change. */
class RecordedNetwork {
  readonly sent: string[] = [];
  readonly #interfaces: Record<string, number>;
  readonly #hops = new Map<string, NextHop>();

  constructor(interfaces: Record<string, number>) {
    this.#interfaces = interfaces;
  }

  isLocal(bytes: Uint8Array, at = 0, family: Family = bytes.length === 4 ? 4 : 6): boolean {
    const text = formatAddress(bytes, at, addressBytes(family));
    return ['10.0.0.1', '10.0.0.3', '2001:db8::1', '2001:db8::3', '10.0.1.1'].includes(text);
  }

  isBroadcast(): boolean {
    return false;
  }

  interfaceMtu(): number {
    return 1500;
  }

  nextHop(bytes: Uint8Array, at: number, family: Family): NextHop {
    const text = formatAddress(bytes, at, addressBytes(family));
    const server = /^(10\.0\.([01])\.|2001:db8:(1?):)(:?)([0-9a-f]+)$/.exec(text);
    const second = server?.[2] === '1' || server?.[3] === '1';
    const known = this.#hops.get(text);
    if (known) return known;
    const hop: NextHop = {
      interfaceIndex: this.#interfaces[second ? 'eth1' : 'eth0'] ?? 0,
      sourceMac: mac(second ? '02:00:00:00:01:01' : '02:00:00:00:00:01'),
      destinationMac: mac(server ? `02:00:00:00:02:0${server[5]}` : '02:00:00:00:00:fe'),
      resolved: true,
      mtu: 1500,
      sourceAddress: ip(family === 4 ? '10.0.0.1' : '2001:db8::1'),
    };
    this.#hops.set(text, hop);
    return hop;
  }

  transmit(bytes: Uint8Array, start: number, end: number): void {
    this.sent.push(Buffer.from(bytes.subarray(start, end)).toString('hex'));
  }
}

interface Recording {
  setup: string[];
  steps: { op: string; in: string; in_desc: string; out: { dev: string; hex: string }[] }[];
}

/** Another interface than the loopback one, to be told apart as the way out; nothing is sent there. */
function otherInterface(): number {
  const index = Number(
    readFileSync('/proc/net/dev_mcast', 'utf8')
      .split('\n')
      .map(line => line.trim().split(/\s+/)[0])
      .find(index => index && index !== '1'),
  );
  return index || 2;
}

describe('recorded direct routing', {
  skip: skip || (!goldenExists('rewrite/dr-tcp.json') && 'needs the recordings'),
}, () => {
  for (const name of ['dr-tcp', 'dr-tcp6', 'dr-udp', 'dr-udp6', 'dr-tcp-2arm', 'dr-far']) {
    test(name, () =>
      replay(
        goldenJson<Recording>(`rewrite/${name}.json`),
        3 * Number(name.includes('tcp') && name !== 'dr-far') || 1,
      ),
    );
  }
});

/**
 * Plays a recording: the program first; what it does not forward, the director, on the same tables. Either way the
 * frames for the real server must be the recorded ones.
 * @param fewest packets that the program must have forwarded by itself
 */
function replay(recording: Recording, fewest: number): void {
  const fastPath = openFastPath();
  try {
    const other = otherInterface();
    fastPath.allowDevice(other);
    const network = new RecordedNetwork({ eth0: LOOPBACK, eth1: other });
    const { connections, destinations } = tablesOf(fastPath);
    const director = new Director({ network, host: network, connections, destinations });
    configure(director, fastPath, recording.setup);
    const now = (): number => Number(fastPath.readClock().ticks) * (1000 / fastPath.control.hz);
    const packet = new Packet();
    let forwarded = 0;
    for (const step of recording.steps) {
      if (step.op !== 'packet') continue;
      const frame = Uint8Array.from(Buffer.from(step.in, 'hex'));
      const toServer = step.out.filter(
        ({ hex }) => !hex.startsWith('0200000000fe') || step.in_desc.includes('198.51'),
      );
      const result = fastPath.run({ frame });
      if (result.verdict === XdpVerdict.transmit || result.verdict === XdpVerdict.redirect) {
        forwarded++;
        const expected = step.out[0];
        assert.equal(Buffer.from(result.frame).toString('hex'), expected?.hex, step.in_desc);
        assert.equal(result.verdict === XdpVerdict.transmit, expected?.dev === 'eth0', 'the way out');
        continue;
      }
      network.sent.length = 0;
      packet.load(frame);
      director.process(packet, LOOPBACK, now());
      for (const { hex } of toServer) assert.ok(network.sent.includes(hex), `the director: ${step.in_desc}`);
      // What the program leaves to the host must not be the director's.
      if (result.verdict === XdpVerdict.pass) assert.deepEqual(network.sent, [], step.in_desc);
    }
    assert.ok(forwarded >= fewest, `only ${forwarded} packets were forwarded by the program`);
    const server = [...director.pool.owners.keys()][0] ?? 0;
    assert.equal(fastPath.traffic.of(server).packets, forwarded);
  } finally {
    fastPath.remove();
  }
}

/** Runs the two lines of a recording's set-up. */
function configure(director: Director, fastPath: FastPath, setup: readonly string[]): void {
  const [, flag, vip, port] = /-A (-[tu]) \[?([^\]]+?)\]?:(\d+) -s rr$/.exec(setup[0] ?? '') ?? [];
  const [, server] = /-r \[?([^\]]+?)\]?:\d+ -g$/.exec(setup[1] ?? '') ?? [];
  assert.ok(vip && port && server);
  const protocol = flag === '-t' ? 'tcp' : 'udp';
  const key = { protocol, address: vip, port: Number(port) } as const;
  director.administration.addService({
    key,
    scheduler: 'rr',
    schedulerFlags: 0,
    persistenceTimeout: 0,
    persistenceNetmask: vip.includes(':') ? '128' : '255.255.255.255',
    persistenceEngine: '',
    onePacket: false,
  });
  director.administration.addDestination(key, {
    address: server,
    port: Number(port),
    method: 'gate',
    weight: 1,
    upperThreshold: 0,
    lowerThreshold: 0,
    tunnelType: 'ipip',
    tunnelPort: 0,
    tunnelChecksum: 'nocsum',
  });
  const value = new Uint8Array(new ArrayBuffer(SERVICE_BYTES));
  fastPath.setService(serviceKey(PROTOCOL_NUMBERS[protocol], ip(vip), Number(port)), value);
  fastPath.setService(serviceKey(0, ip(vip), 0), value);
  fastPath.control.setVips(new AddressFilter([ip(vip)]));
}

const CLIENT = ip('192.0.2.9');
const VIP = ip('10.0.0.3');

/** A TCP segment from the client to the VIP's port 80. */
function segment(
  flags: number,
  options: { clientPort?: number; payload?: number; ttl?: number; to?: Uint8Array; port?: number } = {},
): Uint8Array {
  const { clientPort = 40000, payload = 0, ttl = 64, to = DIRECTOR_MAC, port = 80 } = options;
  const bytes = new Uint8Array(new ArrayBuffer(54 + payload));
  const view = new DataView(bytes.buffer);
  writeEthernet(bytes, 0, to, mac('02:00:00:00:00:fe'), EtherType.ipv4);
  writeIpv4(view, bytes, 14, {
    source: CLIENT,
    destination: VIP,
    protocol: Protocol.tcp,
    totalLength: 40 + payload,
    ttl,
  });
  writeTcp(view, bytes, 34, {
    sourcePort: clientPort,
    destinationPort: port,
    sequence: 1,
    acknowledgement: 1,
    window: 512,
    flags,
  });
  fillTcpChecksum(view, 4, 14, 34, 20 + payload);
  return bytes;
}

/** A router's error on the client's side about a segment from the VIP's port 80. */
function errorAboutReply(): Uint8Array {
  const bytes = segment(0, { payload: 22 });
  const view = new DataView(bytes.buffer);
  const addresses = { source: ip('192.0.2.1'), destination: VIP };
  writeIpv4(view, bytes, 14, { ...addresses, protocol: Protocol.icmp, totalLength: 56, ttl: 64 });
  writeIcmp(view, 34, IcmpType.unreachable, 1, 0);
  const quoted = { source: VIP, destination: CLIENT, protocol: Protocol.tcp, totalLength: 40, ttl: 60 };
  writeIpv4(view, bytes, 42, quoted);
  view.setUint16(62, 80);
  view.setUint16(64, 40000);
  fillIcmpChecksum(view, 4, 14, 34, 36);
  return bytes;
}

/** Key of the connection that `segment` belongs to. */
function keyOf(clientPort = 40000): ConnectionKey {
  const packet = new Packet();
  packet.load(segment(TcpFlag.ack, { clientPort }));
  const key = new ConnectionKey();
  key.setIpv4(packet.view, packet.sourceAt, packet.destinationAt);
  key.ports = packet.view.getInt32(packet.transport, true);
  key.protocol = Protocol.tcp;
  return key;
}

describe('the program', { skip }, () => {
  let fastPath: FastPath;
  let connections: ConnectionTable;
  let destinations: DestinationTable;
  let tick: () => number;
  let server: number;

  before(() => {
    fastPath = openFastPath();
    ({ connections, destinations, tick } = tablesOf(fastPath));
    server = destinations.allocate();
    const at = server * 64;
    destinations.view.setUint8(at + 26, 4);
    destinations.view.setUint8(at + 27, Forwarding.gate);
    destinations.view.setUint32(at + 28, LOOPBACK, true);
    destinations.bytes.set(ip('10.0.0.7'), at + 32);
    destinations.bytes.set(mac('02:00:00:00:02:07'), at + 48);
    destinations.bytes.set(DIRECTOR_MAC, at + 54);
    destinations.view.setUint16(at + 60, 1500, true);
    destinations.setFlag(server, DestinationFlag.available | DestinationFlag.resolved, true);
    const value = new Uint8Array(new ArrayBuffer(SERVICE_BYTES));
    fastPath.setService(serviceKey(Protocol.tcp, VIP, 80), value);
    fastPath.setService(serviceKey(0, VIP, 0), value);
    fastPath.control.setVips(new AddressFilter([VIP]));
  });

  after(() => fastPath.remove());

  /** Enters a connection in a state, counted as it should be. */
  function enter(state: number, clientPort = 40000, seconds = 60): number {
    const active = isTcpStateActive(state);
    const flags = Forwarding.gate | ConnectionFlag.noOutput | (active ? 0 : ConnectionFlag.inactive);
    const slot = connections.allocate(keyOf(clientPort), flags);
    connections.setState(slot, state);
    connections.setDestination(slot, server, 0x5000);
    connections.setExpires(slot, tick() + seconds * connections.hz);
    assert.ok(connections.publish(slot));
    if (active) destinations.addActive(server, 1);
    else destinations.addInactive(server, 1);
    return slot;
  }

  function leave(slot: number): void {
    if (connections.flags(slot) & ConnectionFlag.inactive) destinations.addInactive(server, -1);
    else destinations.addActive(server, -1);
    connections.remove(slot);
  }

  /** Runs a frame that must go up; nobody listens, so it is dropped and counted. */
  function goesUp(frame: Uint8Array): void {
    const counted = fastPath.reasons()['no director'];
    assert.equal(fastPath.run({ frame }).verdict, XdpVerdict.drop);
    assert.equal(fastPath.reasons()['no director'], counted + 1);
  }

  test('moves TCP states and counts as the director does', () => {
    const timeouts = TCP_TIMEOUTS.map(seconds => seconds * connections.hz);
    for (let state = 0; state < TCP_TIMEOUTS.length; state++) {
      for (const flags of [
        TcpFlag.syn,
        TcpFlag.fin | TcpFlag.ack,
        TcpFlag.fin,
        TcpFlag.ack,
        TcpFlag.rst,
        TcpFlag.rst | TcpFlag.ack,
        TcpFlag.psh,
      ]) {
        const slot = enter(state);
        assert.equal(fastPath.run({ frame: segment(flags) }).verdict, XdpVerdict.transmit);
        const next = nextTcpState(TCP_TABLE, TcpDirection.inOnly, flags, state);
        const label = `state ${state}, flags ${flags}`;
        assert.equal(connections.state(slot), next, label);
        assert.equal(
          (connections.flags(slot) & ConnectionFlag.inactive) === 0,
          isTcpStateActive(next),
          label,
        );
        assert.deepEqual(
          [destinations.active(server), destinations.inactive(server)],
          isTcpStateActive(next) ? [1, 0] : [0, 1],
          label,
        );
        const left = connections.expires(slot) - tick();
        assert.ok(
          left <= (timeouts[next] as number) && left > (timeouts[next] as number) - connections.hz,
          label,
        );
        assert.equal(connections.packets(slot), 1);
        leave(slot);
      }
    }
  });

  test('assures the template of a connection that is established', () => {
    const key = keyOf();
    key.ports &= 0xffff0000;
    key.flags = ConnectionFlag.template;
    const template = connections.allocate(key, Forwarding.gate);
    connections.setExpires(template, tick() + 1000);
    assert.ok(connections.publish(template));
    const slot = enter(TcpState.synReceived);
    connections.setControl(slot, template + 1);
    fastPath.run({ frame: segment(TcpFlag.ack) });
    assert.equal(connections.state(template), 1);
    leave(slot);
    connections.remove(template);
  });

  test('leaves to the director what is not the hot case', () => {
    goesUp(segment(TcpFlag.ack));
    const slot = enter(TcpState.established);
    const good = { frame: segment(TcpFlag.ack) };
    assert.equal(fastPath.run(good).verdict, XdpVerdict.transmit);
    goesUp(segment(TcpFlag.ack, { ttl: 1 }));
    goesUp(segment(TcpFlag.ack, { payload: 1500 }));
    for (const flag of [DestinationFlag.resolved, DestinationFlag.available]) {
      destinations.setFlag(server, flag, false);
      goesUp(segment(TcpFlag.ack));
      destinations.setFlag(server, flag, true);
    }
    connections.raiseFlags(slot, Forwarding.local);
    connections.clearFlags(slot, Forwarding.gate & ~Forwarding.local);
    goesUp(segment(TcpFlag.ack));
    connections.clearFlags(slot, ConnectionFlag.forwarding);
    connections.raiseFlags(slot, Forwarding.gate);
    const spoiled: [string, number, number][] = [
      ['header checksum', 14 + Ipv4.checksum, 1],
      ['fragment', 14 + Ipv4.fragment, 0x20],
      ['header length', 14, 0x06],
      ['data offset', 46, 0xf0],
    ];
    for (const [, at, bits] of spoiled) {
      const frame = segment(TcpFlag.ack);
      frame[at] = (frame[at] as number) ^ bits;
      goesUp(frame);
    }
    goesUp(segment(TcpFlag.ack).subarray(0, 40));
    connections.setExpires(slot, tick() - 1);
    goesUp(segment(TcpFlag.ack));
    leave(slot);
  });

  test('takes an expired connection for none, at the tick', () => {
    const slot = enter(TcpState.established, 40000, 100);
    fastPath.control.clockOffset = 99 * connections.hz;
    // A forwarded packet would restart the timer, so only the far side is tried once.
    fastPath.control.clockOffset = 101 * connections.hz;
    goesUp(segment(TcpFlag.ack));
    fastPath.control.clockOffset = 99 * connections.hz;
    assert.equal(fastPath.run({ frame: segment(TcpFlag.ack) }).verdict, XdpVerdict.transmit);
    fastPath.control.clockOffset = 0;
    leave(slot);
  });

  test('passes on what is not for a service', () => {
    const other = segment(TcpFlag.ack, { to: mac('02:00:00:00:00:99') });
    assert.equal(fastPath.run({ frame: other }).verdict, XdpVerdict.pass);
    assert.equal(fastPath.run({ frame: segment(TcpFlag.ack, { port: 22 }) }).verdict, XdpVerdict.pass);
    assert.equal(fastPath.run({ frame: new Uint8Array(60) }).verdict, XdpVerdict.pass);
    const foreign = segment(TcpFlag.ack);
    foreign.set(ip('10.0.0.4'), 14 + Ipv4.destination);
    assert.equal(fastPath.run({ frame: foreign }).verdict, XdpVerdict.pass);
    const echo = segment(TcpFlag.ack);
    echo[14 + Ipv4.protocol] = Protocol.icmp;
    echo[34] = 8;
    assert.equal(fastPath.run({ frame: echo }).verdict, XdpVerdict.pass);
    // An error that quotes nothing is about nothing; one about a reply of a service may begin a connection.
    echo[34] = 3;
    assert.equal(fastPath.run({ frame: echo }).verdict, XdpVerdict.pass);
    goesUp(errorAboutReply());
  });

  test('tells of counters that were cleared and have reached the same numbers again', () => {
    const slot = enter(TcpState.established);
    const changed = (): number[] => {
      const found: number[] = [];
      fastPath.traffic.changed(server + 1, index => found.push(index));
      return found;
    };
    // Each CPU counts for itself: of several rounds some are on the one that has just been looked at.
    for (let round = 0; round < 16; round++) {
      fastPath.traffic.clear(server);
      assert.equal(fastPath.run({ frame: segment(TcpFlag.ack) }).verdict, XdpVerdict.transmit);
      assert.deepEqual(changed(), [server], `round ${round}`);
      assert.equal(fastPath.traffic.of(server).packets, 1);
      assert.deepEqual(changed(), [], 'nothing came since');
    }
    leave(slot);
  });

  test('finds every connection that TypeScript entered', () => {
    const slots: number[] = [];
    for (let port = 1; port <= 900; port++) slots.push(enter(TcpState.established, port));
    for (let port = 1; port <= 900; port++) {
      const frame = segment(TcpFlag.ack, { clientPort: port });
      assert.equal(fastPath.run({ frame }).verdict, XdpVerdict.transmit, `client port ${port}`);
    }
    goesUp(segment(TcpFlag.ack, { clientPort: 901 }));
    for (const slot of slots) leave(slot);
    goesUp(segment(TcpFlag.ack, { clientPort: 1 }));
  });
});

describe('pinned tables', { skip }, () => {
  test('are taken over by the next one, with their sizes', () => {
    const first = openFastPath({ capacity: 512 });
    const { connections, tick } = tablesOf(first);
    const slot = connections.allocate(keyOf(), Forwarding.gate);
    connections.setExpires(slot, tick() + 1_000_000);
    connections.publish(slot);
    first.close();
    const second = openFastPath({ capacity: 4096, directory: first.directory });
    try {
      assert.equal(second.adopted, true);
      assert.equal(second.capacity, 512);
      const adopted = tablesOf(second);
      assert.equal(adopted.connections.size, 1);
      assert.equal(adopted.connections.find(keyOf(), adopted.tick()), slot);
    } finally {
      second.remove();
    }
    assert.equal(existsSync(first.directory), false);
  });

  test('have one user at a time', () => {
    const first = openFastPath();
    try {
      assert.throws(() => openFastPath({ directory: first.directory }), /another daemon is using/);
    } finally {
      first.remove();
    }
  });

  test('of another layout are refused, not misread', () => {
    const first = openFastPath();
    first.control.version = 99;
    first.close();
    assert.throws(() => openFastPath({ directory: first.directory }), /layout 99/);
    assert.equal(existsSync(first.directory), true);
    removePinned(first.directory);
    assert.equal(existsSync(first.directory), false);
  });
});

describe('what is missing', { skip }, () => {
  test('the object', () => {
    const directory = `/sys/fs/bpf/dirigo-test-${process.pid}-none`;
    assert.throws(
      () => new FastPath({ directory, object: '/nowhere/dirigo.bpf.o' }),
      /the BPF object \/nowhere\/dirigo.bpf.o is missing: run `npm run build:bpf`/,
    );
    assert.equal(existsSync(directory), false);
  });

  test('the interface', () => {
    const fastPath = openFastPath();
    assert.throws(() => fastPath.attach('nosuch0'), /there is no interface nosuch0/);
    fastPath.remove();
    assert.equal(existsSync(fastPath.directory), false);
  });

  test('memory for the tables', () => {
    const directory = `/sys/fs/bpf/dirigo-test-${process.pid}-huge`;
    assert.throws(
      () => new FastPath({ directory, object: buildBpf(), capacity: 64, destinationCapacity: 1 << 30 }),
      error =>
        error instanceof Error &&
        !(error instanceof SystemError) &&
        /making map destinations of 68719476736 bytes: .* set a smaller capacity/.test(error.message),
    );
    assert.equal(existsSync(directory), false);
  });
});
