/** `ipvsadm -Lc`: the connections. */
import type { ConnectionStatus, ProtocolName } from '../../ipvs/specification.ts';
import type { NameService } from '../names.ts';
import type { ListFormat } from '../parse.ts';
import { endpointText, left } from './text.ts';

/** Names of IP protocols as the kernel's connection table has them. */
const PROTOCOLS: ReadonlyMap<number, { text: string; ports?: ProtocolName }> = new Map([
  [0, { text: 'IP' }],
  [1, { text: 'ICMP' }],
  [6, { text: 'TCP', ports: 'tcp' }],
  [17, { text: 'UDP', ports: 'udp' }],
  [58, { text: 'ICMPv6' }],
  [132, { text: 'SCTP', ports: 'sctp' }],
] as const);

/** With `--persistent-conn`, persistence engine and its data follow where a connection has them. */
export function listConnections(
  connections: readonly ConnectionStatus[],
  format: ListFormat,
  names: NameService,
): string {
  const columns = `pro expire ${left('state', 11)} ${left('source', 18)} ${left('virtual', 18)}`;
  const last = format.persistentConnections
    ? `${left('destination', 18)} ${left('pe name', 16)} pe_data`
    : 'destination';
  const rows = connections.map(connection => connectionRow(connection, format, names));
  return `IPVS connection entries\n${columns} ${last}\n${rows.join('')}`;
}

function connectionRow(connection: ConnectionStatus, format: ListFormat, names: NameService): string {
  const protocol = PROTOCOLS.get(connection.protocol) ?? { text: `IP_${connection.protocol}` };
  const endpoint = (address: string, port: number): string =>
    endpointText(address, port, protocol.ports, format.numeric, names);
  const minutes = Math.floor(connection.expiresIn / 60);
  const seconds = connection.expiresIn % 60;
  const expires = [minutes, seconds].map(part => String(part).padStart(2, '0')).join(':');
  const destination = endpoint(connection.destination, connection.destinationPort);
  const hasEngine = connection.engine !== '' && connection.engineData !== '';
  return [
    left(protocol.text, 3),
    left(expires, 6),
    left(connection.state, 11),
    left(endpoint(connection.client, connection.clientPort), 18),
    left(endpoint(connection.virtual, connection.virtualPort), 18),
    format.persistentConnections && hasEngine
      ? `${left(destination, 16)} ${left(connection.engine, 18)} ${connection.engineData}\n`
      : `${destination}\n`,
  ].join(' ');
}
