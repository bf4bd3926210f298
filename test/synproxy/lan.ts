/**
 * A virtual LAN whose director has a SYN proxy: client and director on one segment, director and servers on another, to
 * whose servers only the director leads.
 */
import { Director } from '../../src/ipvs/director.ts';
import type { Settings } from '../../src/ipvs/settings.ts';
import type { ForwardingMethod, ServiceSpecification } from '../../src/ipvs/specification.ts';
import { Host } from '../../src/lan/host.ts';
import { Segment } from '../../src/lan/segment.ts';
import { Simulation } from '../../src/lan/simulation.ts';
import { type Family, parseAddress } from '../../src/wire/address.ts';
import { Protocol } from '../../src/wire/ipv4.ts';
import { Packet } from '../../src/wire/packet.ts';
import { tcpSum } from '../../src/wire/tcp.ts';

const OUTER = { 4: '10.0.0.', 6: '2001:db8::' } as const;
const INNER = { 4: '172.16.1.', 6: '2001:db8:1::' } as const;
const LENGTH = { 4: 24, 6: 64 } as const;

export interface LabOptions {
  family?: Family;
  method?: Extract<ForwardingMethod, 'masq' | 'fullnat'>;
  seed?: number;
  settings?: Partial<Settings>;
  service?: Partial<ServiceSpecification>;
}

export class SynProxyLan {
  readonly simulation: Simulation;
  readonly outer: Segment;
  readonly inner: Segment;
  readonly client: Host;
  readonly lb: Host;
  readonly servers: readonly Host[];
  readonly director: Director;
  readonly key: { protocol: 'tcp'; address: string; port: number };
  readonly vip: string;
  readonly clientAddress: string;
  readonly family: Family;
  /** TCP segments with a wrong checksum, as text. */
  readonly spoiled: string[] = [];
  /** Every TCP segment, parsed, by the segment that it went over. */
  readonly seen: { on: 'outer' | 'inner'; packet: Packet }[] = [];

  constructor(options: LabOptions = {}) {
    const { family = 4, method = 'masq', seed = 1, settings = {} } = options;
    this.family = family;
    this.simulation = new Simulation({ seed });
    this.outer = new Segment(this.simulation, 'outer');
    this.inner = new Segment(this.simulation, 'inner');
    const outer = (last: number): string => `${OUTER[family]}${last}`;
    const inner = (last: number): string => `${INNER[family]}${last}`;
    this.vip = outer(3);
    this.clientAddress = outer(1);
    this.client = this.#host('client', 1, [[this.outer, outer(1)]]);
    this.lb = this.#host('lb', 5, [
      [this.outer, outer(5)],
      [this.inner, inner(5)],
    ]);
    this.lb.sysctls.write('net/ipv4/ip_forward', '1');
    this.servers = [7, 8].map(last => {
      const host = this.#host(`web${last}`, last, [[this.inner, inner(last)]]);
      host.addRoute(`${OUTER[family]}${family === 4 ? '0/24' : '/64'}`, inner(5));
      return host;
    });
    this.#own('eth0', outer(3));
    this.#own('eth1', inner(50));
    const { lb, simulation } = this;
    this.director = new Director({
      network: lb.network(),
      host: {
        isLocal: bytes => lb.isLocal(bytes),
        isBroadcast: () => false,
        interfaceMtu: name => lb.interfaceNamed(name)?.mtu,
      },
      random: () => simulation.random.uint32(),
      settings,
    });
    lb.attachDirector(this.director);
    this.key = { protocol: 'tcp', address: this.vip, port: 80 };
    const { administration } = this.director;
    administration.addService({
      key: this.key,
      scheduler: 'rr',
      schedulerFlags: 0,
      persistenceTimeout: 0,
      persistenceNetmask: family === 4 ? '255.255.255.255' : '128',
      persistenceEngine: '',
      onePacket: false,
      localAddresses: [inner(50)],
      synProxy: true,
      ...options.service,
    });
    for (const last of [7, 8]) {
      administration.addDestination(this.key, {
        address: inner(last),
        port: 8080,
        method,
        weight: 1,
        upperThreshold: 0,
        lowerThreshold: 0,
        tunnelType: 'ipip',
        tunnelPort: 0,
        tunnelChecksum: 'nocsum',
      });
    }
    this.#tap();
  }

  #host(name: string, last: number, ways: readonly (readonly [Segment, string])[]): Host {
    const host = new Host(this.simulation, name);
    for (const [index, [segment, address]] of ways.entries()) {
      host.addInterface({
        name: `eth${index}`,
        mac: `02:00:00:00:0${index}:0${last}`,
        segment,
        mtu: 1500,
        addresses: [`${address}/${LENGTH[this.family]}`],
      });
    }
    return host;
  }

  #own(name: string, address: string): void {
    const link = this.lb.interfaceNamed(name);
    const bytes = parseAddress(address);
    if (!link || !bytes) throw new Error(`${address} on ${name}`);
    this.lb.addAddress(link, bytes, LENGTH[this.family]);
  }

  #tap(): void {
    for (const [on, segment] of [
      ['outer', this.outer],
      ['inner', this.inner],
    ] as const) {
      segment.tap((_time, frame) => {
        const packet = new Packet(8192);
        if (packet.load(frame) !== 0 || packet.protocol !== Protocol.tcp) return;
        const { view, network, transport, networkEnd } = packet;
        const family = packet.family === 6 ? 6 : 4;
        const sum = tcpSum(view, family, network, transport, networkEnd - transport);
        if (sum !== 0xffff) this.spoiled.push(`${packet.source} to ${packet.destination}`);
        this.seen.push({ on, packet });
      });
    }
  }
}
