/** `ipvsadm -G`: the local addresses of FULLNAT by service, as the ipvsadm of DPVS and Alibaba LVS prints them. */
import type { ServiceStatus } from '../../ipvs/specification.ts';
import type { NameService } from '../names.ts';
import { compareServices, kernelOrder, mergeSort } from './order.ts';
import { endpointText, left } from './text.ts';

const HEADING = row('VIP:VPORT', 'TOTAL', 'SNAT_IP', 'CONFLICTS', 'CONNS');

/**
 * A line for each service, and one for each of its addresses: new connections that found no free port of it, and
 * connections that have one. Nothing without services.
 */
export function listLocalAddresses(services: readonly ServiceStatus[], names: NameService): string {
  if (services.length === 0) return '';
  const sorted = mergeSort(kernelOrder(services), compareServices);
  return HEADING + sorted.map(service => serviceRows(service, names)).join('');
}

function serviceRows(service: ServiceStatus, names: NameService): string {
  const { key, localAddressUse = [] } = service;
  const name =
    'mark' in key
      ? `FWM ${key.mark | 0}${key.family === 6 ? ' IPv6' : ''}`
      : endpointText(key.address, key.port, key.protocol, true, names);
  const rows = localAddressUse.map(({ address, refused, connections }) =>
    row('', '', address, String(refused), String(connections)),
  );
  return `${left(name, 20)} ${left(localAddressUse.length, 8)} \n${rows.join('')}`;
}

function row(
  service: string,
  total: string,
  address: string,
  conflicts: string,
  connections: string,
): string {
  return `${left(service, 20)} ${left(total, 8)} ${left(address, 20)} ${left(conflicts, 10)} ${left(connections, 10)}\n`;
}
