/**
 * Decoded frames in the shape of `tshark -T json --no-duplicate-keys`: values as text, written as tshark writes each
 * field; what occurs more than once is an array. A subset: the fields that the decoder knows.
 */
import type { DecodedField, DecodedFrame } from './decode.ts';

/** Fields that are written in hex, with their digits. */
const HEX_DIGITS: ReadonlyMap<string, number> = new Map([
  ['eth.type', 4],
  ['vlan.etype', 4],
  ['ieee8021ad.etype', 4],
  ['arp.proto.type', 4],
  ['ip.dsfield', 2],
  ['ip.id', 4],
  ['ip.checksum', 4],
  ['ipv6.tclass', 8],
  ['ipv6.flow', 6],
  ['ipv6.fraghdr.ident', 8],
  ['tcp.flags', 4],
  ['tcp.checksum', 4],
  ['udp.checksum', 4],
  ['icmp.checksum', 4],
  ['icmpv6.checksum', 4],
  ['icmpv6.echo.identifier', 4],
  ['sctp.verification_tag', 8],
  ['sctp.checksum', 8],
  ['vrrp.checksum', 4],
]);

/** How tshark numbers what it found about a checksum. */
const CHECKSUM_STATUS: Readonly<Record<string, string>> = { Bad: '0', Good: '1', Unverified: '2' };

function valueText({ name, value }: DecodedField): string {
  if (typeof value === 'boolean') return value ? '1' : '0';
  if (name.endsWith('checksum.status')) return CHECKSUM_STATUS[String(value)] ?? String(value);
  // Counted in units of 8 bytes in the header, and so by tshark.
  if (name === 'ip.frag_offset') return String(Number(value) / 8);
  if (name === 'data.data') return String(value).replace(/..(?=.)/g, '$&:');
  const digits = HEX_DIGITS.get(name);
  return digits === undefined || typeof value === 'string'
    ? String(value)
    : `0x${value.toString(16).padStart(digits, '0')}`;
}

type Fields = Record<string, string | string[]>;

/** Adds a value under a key; the second of them makes a list. */
function add<Value>(record: Record<string, Value | Value[]>, key: string, value: Value): void {
  const known = record[key];
  if (known === undefined) record[key] = value;
  else if (Array.isArray(known)) known.push(value);
  else record[key] = [known, value];
}

/**
 * @param day the frame's, as `2026-11-28`
 * @returns plain data for `JSON.stringify`
 */
export function tsharkJson(decoded: DecodedFrame, day: string): object {
  const layers: Record<string, Fields | Fields[]> = {};
  for (const layer of decoded.layers) {
    const fields: Fields = {};
    for (const field of layer.fields) add(fields, field.name, valueText(field));
    add(layers, layer.name, fields);
  }
  return { _index: `packets-${day}`, _type: 'doc', _score: null, _source: { layers } };
}
