/** A virtual server that is nothing but its configuration, for tests of the command. */
import { ServiceControls } from '../ipvs/service-controls.ts';
import { type CounterSource, type HostAddresses, ServiceTable } from '../ipvs/service-table.ts';
import type {
  ConnectionStatus,
  ServiceKey,
  ServiceStatus,
  Statistics,
  VirtualServer,
} from '../ipvs/specification.ts';
import { formatAddress } from '../wire/address.ts';

export const NO_STATISTICS: Statistics = {
  connections: 0,
  inPackets: 0,
  outPackets: 0,
  inBytes: 0,
  outBytes: 0,
  connectionRate: 0,
  inPacketRate: 0,
  outPacketRate: 0,
  inByteRate: 0,
  outByteRate: 0,
};

const NOTHING_COUNTED: CounterSource = {
  ofService: () => NO_STATISTICS,
  ofDestination: () => ({
    activeConnections: 0,
    inactiveConnections: 0,
    persistentConnections: 0,
    statistics: NO_STATISTICS,
  }),
};

export const SCHEDULERS: ReadonlySet<string> = new Set(
  'rr wrr lc wlc lblc lblcr dh sh mh sed nq fo ovf twos'.split(' '),
);

/** The host of the recorded sessions: eth0 with 10.0.0.1/24, 10.0.0.3/32 and 2001:db8::1/64. */
export const RECORDED_HOST: HostAddresses = {
  isLocal: address =>
    ['127.0.0.1', '10.0.0.1', '10.0.0.3', '::1', '2001:db8::1'].includes(formatAddress(address)),
  isBroadcast: address => ['10.0.0.255', '127.255.255.255'].includes(formatAddress(address)),
  interfaceMtu: name => ({ lo: 65536, eth0: 1500 })[name],
};

export class TableServer extends ServiceControls implements VirtualServer {
  readonly tableSize = 4096;
  override readonly table = new ServiceTable({ schedulers: SCHEDULERS, host: RECORDED_HOST });
  /** What `connections()` answers. */
  connectionList: ConnectionStatus[] = [];
  counters = NOTHING_COUNTED;

  zero(service?: ServiceKey): void {
    if (service) this.table.require(service);
  }

  services(): ServiceStatus[] {
    return this.table.services().map(service => this.table.status(service, this.counters));
  }

  service(key: ServiceKey): ServiceStatus | undefined {
    const service = this.table.find(key);
    return service && this.table.status(service, this.counters);
  }

  connections(): ConnectionStatus[] {
    return this.connectionList;
  }
}
