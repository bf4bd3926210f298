/** Names of ports and hosts, which the caller looks up (getservbyname and the like); a lookup that finds nothing is undefined. */
import type { ProtocolName } from '../ipvs/specification.ts';

export interface NameService {
  servicePort(name: string, protocol: ProtocolName): number | undefined;
  serviceName(port: number, protocol: ProtocolName): string | undefined;
  /** IPv4 address of a host, as text. */
  hostAddress(name: string): string | undefined;
  /** Name of an IPv4 or IPv6 address in canonical text. */
  hostName(address: string): string | undefined;
}
