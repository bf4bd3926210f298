/** Addresses, ports and numbers as the listings print them. */
import type { ProtocolName } from '../../ipvs/specification.ts';
import { familyOf, parseIpv6Address } from '../../wire/address.ts';
import type { NameService } from '../names.ts';

/** Pads with blanks behind (`%-Ns`). */
export function left(value: string | number, width: number): string {
  return String(value).padEnd(width);
}

/** Pads with blanks in front (`%Ns`). */
export function right(value: string | number, width: number): string {
  return String(value).padStart(width);
}

/**
 * Address and port, `[…]` around IPv6; names in place of numbers unless `numeric`.
 * @param protocol whose names of ports are meant; undefined has none (firewall marks)
 */
export function endpointText(
  address: string,
  port: number,
  protocol: ProtocolName | undefined,
  numeric: boolean,
  names: NameService,
): string {
  const host = (numeric ? undefined : names.hostName(address)) ?? addressText(address);
  const service = (numeric || !protocol ? undefined : names.serviceName(port, protocol)) ?? port;
  return (familyOf(address) === 6 ? `[${host}]:${service}` : `${host}:${service}`).slice(0, 59);
}

/** inet_ntop's text: unlike RFC 5952 it writes IPv4-compatible addresses (::/96) with a dotted tail. */
function addressText(address: string): string {
  if (!/^::[0-9a-f]+:[0-9a-f]+$/.test(address)) return address;
  const bytes = parseIpv6Address(address);
  return bytes ? `::${bytes.subarray(12).join('.')}` : address;
}

/** A counter in nine columns, shortened to K, M, G or T unless `exact`, which may need more columns. */
export function counterText(value: number, exact: boolean): string {
  const whole = BigInt(Math.trunc(value));
  if (exact) return right(String(whole), Math.max(9, String(whole).length + 1));
  if (whole < 100_000_000n) return right(String(whole), 9);
  const [unit, letter] =
    whole < 1_000_000_000n
      ? [1000n, 'K']
      : whole < 100_000_000_000n
        ? [1_000_000n, 'M']
        : whole < 100_000_000_000_000n
          ? [1_000_000_000n, 'G']
          : [1_000_000_000_000n, 'T'];
  return `${right(String(whole / (unit as bigint)), 8)}${letter}`;
}
