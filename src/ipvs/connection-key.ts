/** What connections are found by, and its hash. */

/** The bit of a key's flags that says IPv6: `ConnectionFlag.ipv6`. */
const IPV6 = 0x4000;

/** A connection's key as raw words: what a lookup compares. Reused, never allocated per packet. */
export class ConnectionKey {
  /** Client address; IPv4 in the first word, the rest 0. */
  client0 = 0;
  client1 = 0;
  client2 = 0;
  client3 = 0;
  virtual0 = 0;
  virtual1 = 0;
  virtual2 = 0;
  virtual3 = 0;
  /** Client port raw in the low half, virtual port raw in the high half. */
  ports = 0;
  protocol = 0;
  /** `ConnectionFlag.template` and `ConnectionFlag.ipv6`. */
  flags = 0;

  setIpv4(view: DataView, clientAt: number, virtualAt: number): void {
    this.client0 = view.getInt32(clientAt, true);
    this.virtual0 = view.getInt32(virtualAt, true);
    this.client1 = this.client2 = this.client3 = 0;
    this.virtual1 = this.virtual2 = this.virtual3 = 0;
  }

  setIpv6(view: DataView, clientAt: number, virtualAt: number): void {
    this.client0 = view.getInt32(clientAt, true);
    this.client1 = view.getInt32(clientAt + 4, true);
    this.client2 = view.getInt32(clientAt + 8, true);
    this.client3 = view.getInt32(clientAt + 12, true);
    this.virtual0 = view.getInt32(virtualAt, true);
    this.virtual1 = view.getInt32(virtualAt + 4, true);
    this.virtual2 = view.getInt32(virtualAt + 8, true);
    this.virtual3 = view.getInt32(virtualAt + 12, true);
  }
}

/** One step of the finish of MurmurHash3, which is a bijection. */
function stir(hash: number, multiplier: number, shift: number): number {
  const product = Math.imul(hash, multiplier);
  return product ^ (product >>> shift);
}

/**
 * The hash of a key: the mix of MurmurHash3's finish over addresses, ports and protocol, with a secret seed so that
 * nobody can aim at one bucket. Few steps, because each packet takes them. `bpf/hash.h` computes the same.
 */
export function hashKey(key: ConnectionKey, seed: number): number {
  const other = Math.imul(key.virtual0, 0x27d4eb2f) ^ key.ports ^ ((key.protocol << 16) | key.flags);
  let hash = key.client0 ^ seed;
  hash ^= hash >>> 16;
  if (key.flags & IPV6) {
    hash = stir(hash, 0x85ebca6b, 13) ^ key.client1;
    hash = stir(hash, 0xc2b2ae35, 16) ^ key.client2;
    hash = stir(hash, 0x85ebca6b, 13) ^ key.client3;
    hash = stir(hash, 0xc2b2ae35, 16) ^ key.virtual1;
    hash = stir(hash, 0x85ebca6b, 13) ^ key.virtual2;
    hash = stir(hash, 0xc2b2ae35, 16) ^ key.virtual3;
  }
  hash = stir(hash, 0x85ebca6b, 13) ^ other;
  return stir(hash, 0xc2b2ae35, 16);
}
