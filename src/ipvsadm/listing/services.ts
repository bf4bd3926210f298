/** `ipvsadm -L` and `-S`: services with their servers, as a table or as the commands that make them. */
import type { DestinationStatus, ProtocolName, ServiceStatus } from '../../ipvs/specification.ts';
import { familyOf } from '../../wire/address.ts';
import type { NameService } from '../names.ts';
import type { ListFormat } from '../parse.ts';
import { schedulerFlagNames } from '../values.ts';
import { isWholeMask, type Layout, layoutFor } from './layouts.ts';
import { compareDestinations, compareServices, kernelOrder, mergeSort } from './order.ts';
import { endpointText, left } from './text.ts';

/** All services, under the line with the version that listings of a single one lack. */
export function listAllServices(
  services: readonly ServiceStatus[],
  tableSize: number,
  format: ListFormat,
  names: NameService,
): string {
  const layout = layoutFor(format);
  const rows = ordered(services, format).map(service => serviceRows(service, layout, format, names));
  return `IP Virtual Server version 1.2.1 (size=${tableSize})\n${layout.heading}${rows.join('')}`;
}

export function listOneService(service: ServiceStatus, format: ListFormat, names: NameService): string {
  const layout = layoutFor(format);
  return layout.heading + serviceRows(service, layout, format, names);
}

/** The commands that `-R` reads: a line for each service and each server. */
export function saveServices(
  services: readonly ServiceStatus[],
  format: ListFormat,
  names: NameService,
): string {
  return ordered(services, format)
    .map(service => serviceRules(service, format, names))
    .join('');
}

/** Sorted, or as the kernel has them. */
function ordered(services: readonly ServiceStatus[], format: ListFormat): ServiceStatus[] {
  const kernel = kernelOrder(services);
  return format.sorted ? mergeSort(kernel, compareServices) : kernel;
}

function orderedServers(service: ServiceStatus, format: ListFormat): readonly DestinationStatus[] {
  return format.sorted ? mergeSort(service.destinations, compareDestinations) : service.destinations;
}

/** The protocol by whose names a service's ports go; none for a firewall mark. */
function protocolOf(service: ServiceStatus): ProtocolName | undefined {
  return 'mark' in service.key ? undefined : service.key.protocol;
}

function serviceRows(service: ServiceStatus, layout: Layout, format: ListFormat, names: NameService): string {
  let text = `${layout.service(serviceName(service, format, names), service)}\n`;
  for (const server of orderedServers(service, format)) {
    const name = endpointText(server.address, server.port, protocolOf(service), format.numeric, names);
    const shown = familyOf(server.address) === 4 ? name.slice(0, 28) : name;
    text += `  -> ${left(shown, 28)}${layout.server(server)}\n`;
  }
  return text;
}

/** `TCP  10.0.0.3:80`, `FWM  1 IPv6`. */
function serviceName(service: ServiceStatus, format: ListFormat, names: NameService): string {
  const { key } = service;
  // ipvsadm prints marks as signed numbers.
  if ('mark' in key) return `FWM  ${key.mark | 0}${key.family === 6 ? ' IPv6' : ''}`;
  const endpoint = endpointText(key.address, key.port, key.protocol, format.numeric, names);
  const name = `${left(key.protocol.toUpperCase(), 4)} ${endpoint}`;
  return familyOf(key.address) === 4 ? name.slice(0, 33) : name;
}

const PROTOCOL_OPTIONS = { tcp: '-t', udp: '-u', sctp: '--sctp-service' } as const;

function serviceRules(service: ServiceStatus, format: ListFormat, names: NameService): string {
  const { key } = service;
  const name =
    'mark' in key
      ? `-f ${key.mark | 0}${key.family === 6 ? ' -6' : ''}`
      : `${PROTOCOL_OPTIONS[key.protocol]} ${endpointText(key.address, key.port, key.protocol, format.numeric, names)}`;
  let text = `-A ${name} -s ${service.scheduler}`;
  if (service.persistenceTimeout !== 0) {
    text += ` -p ${service.persistenceTimeout}`;
    if (!isWholeMask(service.persistenceNetmask)) text += ` -M ${service.persistenceNetmask}`;
  }
  if (service.persistenceEngine !== '') text += ` --pe ${service.persistenceEngine}`;
  if (service.onePacket) text += ' -o';
  if (service.schedulerFlags !== 0) {
    text += ` -b ${schedulerFlagNames(service.scheduler, service.schedulerFlags)}`;
  }
  if (service.clientAddress !== undefined) text += ` --client-address ${service.clientAddress}`;
  if (service.synProxy) text += ' -j enable';
  text += `\n${localAddressRules(service, name)}`;
  for (const server of orderedServers(service, format)) {
    const endpoint = endpointText(server.address, server.port, protocolOf(service), format.numeric, names);
    text += `-a ${name} -r ${endpoint} ${METHOD_OPTIONS[server.method]} -w ${server.weight}${tunnelOptions(server)}${thresholdOptions(server, format)}\n`;
  }
  return text;
}

function localAddressRules({ localAddresses = [] }: ServiceStatus, service: string): string {
  return localAddresses
    .map(text => {
      const [address, interfaceName] = text.split('%');
      return `-P ${service} -z ${address}${interfaceName === undefined ? '' : ` -F ${interfaceName}`}\n`;
    })
    .join('');
}

/** ipvsadm 1.31 does not save thresholds; with FULLNAT, which it does not know, there is nothing to be the same as. */
function thresholdOptions(
  { method, upperThreshold, lowerThreshold }: DestinationStatus,
  { complete }: ListFormat,
): string {
  if (upperThreshold === 0 && lowerThreshold === 0) return '';
  return complete || method === 'fullnat' ? ` -x ${upperThreshold} -y ${lowerThreshold}` : '';
}

const METHOD_OPTIONS = { masq: '-m', gate: '-g', tunnel: '-i', fullnat: '-b' } as const;

function tunnelOptions(server: DestinationStatus): string {
  if (server.method !== 'tunnel') return '';
  const type = ` --tun-type ${server.tunnelType}`;
  if (server.tunnelType === 'ipip') return type;
  const port = server.tunnelType === 'gue' ? ` --tun-port ${server.tunnelPort}` : '';
  return `${type}${port} --tun-${server.tunnelChecksum}`;
}
