/** The words of the pcap filter language (pcap-filter(7)), cut out of a text, and what its names stand for. */

/** A filter that cannot be compiled: the message says which word is at fault, and where it begins. */
export class FilterError extends Error {
  override name = 'FilterError';
  /** Where the word begins, counted from 1. */
  readonly position: number;

  constructor(message: string, position: number) {
    super(`${message} at position ${position}`);
    this.position = position;
  }
}

export interface Word {
  /** `word` is a name, number or address; `escaped` one after a backslash; `sign` an operator or bracket; then `end`. */
  kind: 'word' | 'escaped' | 'sign' | 'end';
  text: string;
  /** From 1. */
  position: number;
}

const SIGNS = ['&&', '||', '!=', '==', '<=', '>=', '<<', '>>', ...'!()[]&|^+-*/%=<>:'];
/** Names, numbers and dotted or dashed addresses: as long as possible, as libpcap's scanner takes them. */
const PLAIN_WORD = /[A-Za-z0-9](?:[-_.A-Za-z0-9]*[.A-Za-z0-9])?/y;
/** Outside of brackets also addresses with colons. */
const WORD_WITH_COLONS = /(?:[A-Za-z0-9]|::)(?:[-_.:A-Za-z0-9]*[.:A-Za-z0-9])?/y;
const SPACE = /\s+/y;

/** Cuts a filter into words; the last is always of kind `end`. Throws FilterError at a character that begins none. */
export function cutIntoWords(filter: string): Word[] {
  const words: Word[] = [];
  let brackets = 0;
  let at = 0;
  const match = (pattern: RegExp, from: number): string | undefined => {
    pattern.lastIndex = from;
    return pattern.exec(filter)?.[0];
  };
  while (at < filter.length) {
    const space = match(SPACE, at);
    if (space !== undefined) {
      at += space.length;
      continue;
    }
    const position = at + 1;
    const escaped = filter[at] === '\\';
    const text = match(brackets > 0 ? PLAIN_WORD : WORD_WITH_COLONS, escaped ? at + 1 : at);
    if (text !== undefined) {
      words.push({ kind: escaped ? 'escaped' : 'word', text, position });
      at += text.length + (escaped ? 1 : 0);
      continue;
    }
    const sign = SIGNS.find(each => filter.startsWith(each, at));
    if (escaped || sign === undefined)
      throw new FilterError(`unexpected character "${filter[at]}"`, position);
    if (sign === '[') brackets++;
    if (sign === ']') brackets--;
    words.push({ kind: 'sign', text: sign, position });
    at += sign.length;
  }
  words.push({ kind: 'end', text: '', position: filter.length + 1 });
  return words;
}

/** Decimal, `0x` hexadecimal and `0` octal numbers below 2^32; undefined for anything else. */
export function parseNumber(text: string): number | undefined {
  let value: number;
  if (/^0[xX][0-9a-fA-F]+$/.test(text)) value = Number.parseInt(text.slice(2), 16);
  else if (/^0[0-7]*$/.test(text)) value = Number.parseInt(text, 8);
  else if (/^[1-9][0-9]*$/.test(text)) value = Number.parseInt(text, 10);
  else return undefined;
  return value <= 0xffffffff ? value : undefined;
}

/** Named offsets and values of pcap-filter(7). */
export const CONSTANTS: ReadonlyMap<string, number> = new Map([
  ['icmptype', 0],
  ['icmpcode', 1],
  ['icmp-echoreply', 0],
  ['icmp-unreach', 3],
  ['icmp-sourcequench', 4],
  ['icmp-redirect', 5],
  ['icmp-echo', 8],
  ['icmp-routeradvert', 9],
  ['icmp-routersolicit', 10],
  ['icmp-timxceed', 11],
  ['icmp-paramprob', 12],
  ['icmp-tstamp', 13],
  ['icmp-tstampreply', 14],
  ['icmp-ireq', 15],
  ['icmp-ireqreply', 16],
  ['icmp-maskreq', 17],
  ['icmp-maskreply', 18],
  ['icmp6type', 0],
  ['icmp6code', 1],
  ['icmp6-destinationunreach', 1],
  ['icmp6-packettoobig', 2],
  ['icmp6-timeexceeded', 3],
  ['icmp6-parameterproblem', 4],
  ['icmp6-echo', 128],
  ['icmp6-echoreply', 129],
  ['icmp6-multicastlistenerquery', 130],
  ['icmp6-multicastlistenerreportv1', 131],
  ['icmp6-multicastlistenerdone', 132],
  ['icmp6-routersolicit', 133],
  ['icmp6-routeradvert', 134],
  ['icmp6-neighborsolicit', 135],
  ['icmp6-neighboradvert', 136],
  ['icmp6-redirect', 137],
  ['tcpflags', 13],
  ['tcp-fin', 0x01],
  ['tcp-syn', 0x02],
  ['tcp-rst', 0x04],
  ['tcp-push', 0x08],
  ['tcp-ack', 0x10],
  ['tcp-urg', 0x20],
  ['tcp-ece', 0x40],
  ['tcp-cwr', 0x80],
]);

const TCP = [6];
const UDP = [17];
const BOTH = [6, 17];

/** Ports by name with the protocols they are for: the services a cluster is built of, as Debian's /etc/services. */
export const PORTS: ReadonlyMap<string, { port: number; protocols: readonly number[] }> = new Map([
  ['ftp-data', { port: 20, protocols: TCP }],
  ['ftp', { port: 21, protocols: TCP }],
  ['ssh', { port: 22, protocols: TCP }],
  ['telnet', { port: 23, protocols: TCP }],
  ['smtp', { port: 25, protocols: TCP }],
  ['domain', { port: 53, protocols: BOTH }],
  ['bootps', { port: 67, protocols: UDP }],
  ['bootpc', { port: 68, protocols: UDP }],
  ['tftp', { port: 69, protocols: UDP }],
  ['http', { port: 80, protocols: TCP }],
  ['pop3', { port: 110, protocols: TCP }],
  ['ntp', { port: 123, protocols: UDP }],
  ['imap2', { port: 143, protocols: TCP }],
  ['snmp', { port: 161, protocols: BOTH }],
  ['ldap', { port: 389, protocols: BOTH }],
  ['https', { port: 443, protocols: BOTH }],
  ['syslog', { port: 514, protocols: UDP }],
  ['ldaps', { port: 636, protocols: BOTH }],
  ['imaps', { port: 993, protocols: TCP }],
  ['pop3s', { port: 995, protocols: TCP }],
  ['mysql', { port: 3306, protocols: TCP }],
  ['postgresql', { port: 5432, protocols: TCP }],
  ['http-alt', { port: 8080, protocols: TCP }],
]);
