/**
 * Static bindings as /etc/ethers has them (ethers(5)): a MAC and a host, one binding a line, `#` begins a comment.
 * Here the host is an address. `arp -f` of net-tools reads lines the other way round; both orders are read.
 */
import { formatAddress, formatMac, parseAddress, parseMac } from '../wire/address.ts';

export interface EthersEntry {
  address: string;
  /** Lower-case. */
  mac: string;
}

/**
 * Reads the text of a file.
 * @param resolve the address of a name, undefined if there is none
 * @throws Error that names the first line that is wrong
 */
export function parseEthers(
  text: string,
  resolve: (name: string) => string | undefined = () => undefined,
): EthersEntry[] {
  const entries = new Map<string, EthersEntry>();
  for (const [index, raw] of text.split('\n').entries()) {
    const words = raw.replace(/#.*/, '').trim().split(/\s+/);
    if (words.length === 1 && words[0] === '') continue;
    const [first = '', second = '', ...others] = words;
    const mac = looseMac(first) ?? looseMac(second);
    const host = looseMac(first) ? second : first;
    const bytes = parseAddress(host) ?? parseAddress(resolve(host) ?? '');
    if (!mac || !bytes || others.length > 0) {
      const problem =
        mac && others.length === 0 ? `${host || 'nothing'} is no known host` : 'it is not a MAC and a host';
      throw new Error(`line ${index + 1}: ${problem}: ${JSON.stringify(raw.trim())}`);
    }
    const entry = { address: formatAddress(bytes), mac: formatMac(mac) };
    const known = entries.get(entry.address);
    if (known && known.mac !== entry.mac) {
      throw new Error(`line ${index + 1}: ${entry.address} is at ${known.mac} and at ${entry.mac}`);
    }
    entries.set(entry.address, entry);
  }
  return [...entries.values()];
}

/** ether_aton(3) takes bytes of one digit, too. */
function looseMac(text: string): Uint8Array | undefined {
  if (!/^[0-9a-fA-F]{1,2}(:[0-9a-fA-F]{1,2}){5}$/.test(text)) return undefined;
  return parseMac(text.replace(/\b([0-9a-fA-F])\b/g, '0$1'));
}

/** A line a binding: the MAC, then the address. */
export function formatEthers(entries: readonly EthersEntry[]): string {
  return entries.map(({ address, mac }) => `${mac} ${address}\n`).join('');
}
