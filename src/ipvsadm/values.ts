/** Values on the command line: numbers, addresses with ports, marks, masks and flags, read as the C library reads them. */

import type { ProtocolName } from '../ipvs/specification.ts';
import { SchedulerFlag } from '../ipvs/specification.ts';
import { type Family, formatAddress, parseIpv6Address } from '../wire/address.ts';
import type { NameService } from './names.ts';

/** A decimal number in a range as strtol takes it (blanks before it, a sign, leading zeros); else undefined. */
export function parseNumber(text: string, least: number, greatest: number): number | undefined {
  if (!/^[ \t\n\v\f\r]*[+-]?[0-9]+$/.test(text)) return undefined;
  const value = Number(text);
  return value >= least && value <= greatest ? value + 0 : undefined;
}

/**
 * An IPv4 address as inet_aton takes it: one to four parts, decimal, octal (0…) or hexadecimal (0x…), the last filling
 * the rest; anything may follow a blank.
 */
export function parseClassicIpv4(text: string): string | undefined {
  if (CANONICAL_IPV4.test(text)) return text;
  const match = /^((?:[0-9][0-9a-fA-FxX]*\.){0,3}[0-9][0-9a-fA-FxX]*)(?:[ \t\n\v\f\r].*)?$/s.exec(text);
  if (!match) return undefined;
  const parts = (match[1] as string).split('.').map(parseClassicPart);
  const last = parts.pop();
  if (last === undefined || last >= 256 ** (4 - parts.length)) return undefined;
  let value = last;
  for (const [index, part] of parts.entries()) {
    if (part === undefined || part > 255) return undefined;
    value += part * 256 ** (3 - index);
  }
  return [24, 16, 8, 0].map(shift => Math.floor(value / 2 ** shift) % 256).join('.');
}

/** What is written as almost everybody writes it needs no conversion. */
const CANONICAL_IPV4 = /^(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(?:\.(?=[0-9])|$)){4}$/;

function parseClassicPart(text: string): number | undefined {
  if (/^0[xX][0-9a-fA-F]+$/.test(text)) return Number.parseInt(text.slice(2), 16);
  if (/^0[0-7]*$/.test(text)) return Number.parseInt(text, 8);
  return /^[1-9][0-9]*$/.test(text) ? Number(text) : undefined;
}

export interface Endpoint {
  family: Family;
  /** Canonical text. */
  address: string;
  /** Undefined if the text has none. */
  port: number | undefined;
}

/**
 * `address[:port]`, `[IPv6]:port`, or a bare IPv6 address; host and port may be names. Undefined if it is none.
 * @param protocol whose names of ports are meant; undefined knows none
 */
export function parseEndpoint(
  text: string,
  protocol: ProtocolName | undefined,
  names: NameService,
): Endpoint | undefined {
  if (/^[0-9]*$/.test(text)) return undefined;
  let host = text;
  let portText: string | undefined;
  if (text.startsWith('[')) {
    const end = text.indexOf(']');
    if (end < 0 || text[end + 1] !== ':') return undefined;
    host = text.slice(1, end);
    portText = text.slice(end + 2);
  }
  const ipv6 = parseIpv6Address(host);
  let address = ipv6 && formatAddress(ipv6);
  if (address === undefined) {
    // Brackets around anything else lose the port, as in ipvsadm.
    const colon = host.lastIndexOf(':');
    portText = colon < 0 ? undefined : host.slice(colon + 1);
    if (colon >= 0) host = host.slice(0, colon);
    address = parseClassicIpv4(host) ?? (host === '' ? undefined : names.hostAddress(host));
  }
  if (address === undefined) return undefined;
  const family = ipv6 ? 6 : 4;
  if (portText === undefined) return { family, address, port: undefined };
  const port = parseNumber(portText, 0, 65535) ?? (protocol && names.servicePort(portText, protocol));
  return port === undefined ? undefined : { family, address, port };
}

/** A firewall mark, 1..4294967295. */
export function parseMark(text: string): number | undefined {
  return parseNumber(text, 1, 0xffff_ffff);
}

/** What atoi makes of a text: the number it starts with, else 0. */
export function parseLeadingNumber(text: string): number {
  return Number(/^[ \t\n\v\f\r]*([+-]?[0-9]+)/.exec(text)?.[1] ?? 0);
}

const FLAGS: Readonly<Record<string, { bit: number; scheduler?: string }>> = {
  'flag-1': { bit: SchedulerFlag.flag1 },
  'flag-2': { bit: SchedulerFlag.flag2 },
  'flag-3': { bit: SchedulerFlag.flag3 },
  'sh-fallback': { bit: SchedulerFlag.flag1, scheduler: 'sh' },
  'sh-port': { bit: SchedulerFlag.flag2, scheduler: 'sh' },
  'mh-fallback': { bit: SchedulerFlag.flag1, scheduler: 'mh' },
  'mh-port': { bit: SchedulerFlag.flag2, scheduler: 'mh' },
};

/** A comma-separated list of scheduler flags: their sum, or the message that refuses one. */
export function parseSchedulerFlags(text: string, scheduler: string): number | string {
  let sum = 0;
  const words = text.split(',').filter(word => word !== '');
  // ipvsadm itself crashes on a list of nothing but commas.
  if (words.length === 0) return `invalid scheduler flag \`${text}'`;
  for (const word of words) {
    const flag = Object.hasOwn(FLAGS, word) ? FLAGS[word] : undefined;
    if (!flag) return `invalid scheduler flag \`${word}'`;
    if (flag.scheduler !== undefined && flag.scheduler !== scheduler) {
      return `incompatible scheduler flag \`${word}'`;
    }
    sum |= flag.bit;
  }
  return sum;
}

/** The flags' names as listings show them; the bits that the scheduler has no name for are left out. */
export function schedulerFlagNames(scheduler: string, flags: number): string {
  const own = scheduler === 'sh' || scheduler === 'mh' ? scheduler : undefined;
  return Object.entries(FLAGS)
    .filter(([, flag]) => flag.scheduler === own && flags & flag.bit)
    .map(([name]) => name)
    .join(',');
}
