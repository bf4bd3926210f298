/** Names of ports and hosts from the texts of /etc/services and /etc/hosts, as the C library's "files" source gives them. */
import type { ProtocolName } from '../ipvs/specification.ts';
import { formatAddress, parseAddress } from '../wire/address.ts';
import type { NameService } from './names.ts';

/** Looks up nothing: every name is unknown. */
export const NO_NAMES: NameService = {
  servicePort: () => undefined,
  serviceName: () => undefined,
  hostAddress: () => undefined,
  hostName: () => undefined,
};

/** The first line that fits wins; lines that make no sense are passed over. */
export function namesFromFiles(services: string, hosts: string): NameService {
  const ports = new Map<string, number>();
  const portNames = new Map<string, string>();
  for (const [name, portAndProtocol, ...aliases] of fields(services)) {
    const match = /^([0-9]{1,5})\/([a-z]+)$/.exec(portAndProtocol ?? '');
    if (name === undefined || !match) continue;
    const port = Number(match[1]);
    const protocol = match[2] as string;
    for (const alias of [name, ...aliases]) setFirst(ports, `${alias}/${protocol}`, port);
    setFirst(portNames, `${port}/${protocol}`, name);
  }
  const addresses = new Map<string, string>();
  const hostNames = new Map<string, string>();
  for (const [text, name, ...aliases] of fields(hosts)) {
    const bytes = parseAddress(text ?? '');
    if (!bytes || name === undefined) continue;
    const address = formatAddress(bytes);
    if (bytes.length === 4) {
      for (const alias of [name, ...aliases]) setFirst(addresses, alias.toLowerCase(), address);
    }
    setFirst(hostNames, address, name);
  }
  return {
    servicePort: (name: string, protocol: ProtocolName) => ports.get(`${name}/${protocol}`),
    serviceName: (port: number, protocol: ProtocolName) => portNames.get(`${port}/${protocol}`),
    hostAddress: name => addresses.get(name.toLowerCase()),
    hostName: address => hostNames.get(address),
  };
}

function fields(text: string): string[][] {
  return text.split('\n').map(line =>
    line
      .replace(/#.*/, '')
      .split(/\s+/)
      .filter(field => field !== ''),
  );
}

function setFirst<Value>(map: Map<string, Value>, key: string, value: Value): void {
  if (!map.has(key)) map.set(key, value);
}
