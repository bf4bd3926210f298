/** The order of listings. */
import type { DestinationStatus, ServiceKey, ServiceStatus } from '../../ipvs/specification.ts';
import { parseAddress } from '../../wire/address.ts';

/** What the kernel mixes into its hash, different on every boot; this one is a boot that the recordings saw. */
const BOOT = 0x40;

/**
 * The order in which the kernel hands services out, given newest first: by bucket of its hash tables
 * (ip_vs_svc_hashkey), firewall marks after the others.
 */
export function kernelOrder(services: readonly ServiceStatus[]): ServiceStatus[] {
  return services
    .map(service => ({ service, bucket: bucketOf(service.key) }))
    .sort((a, b) => a.bucket - b.bucket)
    .map(({ service }) => service);
}

function bucketOf(key: ServiceKey): number {
  if ('mark' in key) return 256 + ((key.mark ^ BOOT) & 255);
  const address = addressWords(key.address).reduce((folded, word) => folded ^ word, 0);
  return (PROTOCOL_NUMBERS[key.protocol] ^ address ^ BOOT ^ (key.port >> 8) ^ key.port) & 255;
}

/** Firewall mark, family, protocol, address, port; each by the sign of the difference in 32 bits, wrap-around and all. */
export function compareServices(a: ServiceStatus, b: ServiceStatus): number {
  const [first, second] = [sortKey(a.key), sortKey(b.key)];
  for (const [index, value] of first.entries()) {
    const difference = (value - (second[index] ?? 0)) | 0;
    if (difference !== 0) return difference;
  }
  return 0;
}

const PROTOCOL_NUMBERS = { tcp: 6, udp: 17, sctp: 132 } as const;

function sortKey(key: ServiceKey): number[] {
  if ('mark' in key) return [key.mark, key.family];
  const words = addressWords(key.address);
  return [0, words.length > 1 ? 6 : 4, PROTOCOL_NUMBERS[key.protocol], ...words, key.port];
}

/** Address (as many words as the first one's family has), then port. */
export function compareDestinations(a: DestinationStatus, b: DestinationStatus): number {
  const [first, second] = [addressWords(a.address), addressWords(b.address)];
  for (const [index, word] of first.entries()) {
    const difference = (word - (second[index] ?? 0)) | 0;
    if (difference !== 0) return difference;
  }
  return a.port - b.port;
}

/** One 32-bit number for IPv4, four for IPv6. */
function addressWords(address: string): number[] {
  const bytes = parseAddress(address) ?? new Uint8Array(4);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: bytes.length / 4 }, (_, index) => view.getUint32(4 * index));
}

/**
 * The C library's qsort, a merge sort that splits at half. Wrapped differences are no order (a < b < c < a can be), so
 * what comes out depends on how it is sorted.
 */
export function mergeSort<Item>(items: readonly Item[], compare: (a: Item, b: Item) => number): Item[] {
  if (items.length <= 1) return [...items];
  const half = items.length >> 1;
  const first = mergeSort(items.slice(0, half), compare);
  const second = mergeSort(items.slice(half), compare);
  const sorted: Item[] = [];
  let [i, j] = [0, 0];
  while (i < first.length && j < second.length) {
    const [a, b] = [first[i] as Item, second[j] as Item];
    if (compare(a, b) <= 0) {
      sorted.push(a);
      i++;
    } else {
      sorted.push(b);
      j++;
    }
  }
  return [...sorted, ...first.slice(i), ...second.slice(j)];
}
