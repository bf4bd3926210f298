/**
 * A host's own addresses as the kernel's ARP code looks at them, and the questions it asks about them
 * (net/ipv4/devinet.c). Addresses are IPv4, 4 bytes, unless a function says otherwise.
 */

/** Scopes with the kernel's numbers (rtnetlink(7)): the larger, the narrower. */
export const Scope = { global: 0, link: 253, host: 254 } as const;

export interface LocalAddress {
  /** 4 or 16 bytes. */
  address: Uint8Array;
  /** Prefix length, 0..32 or 0..128. */
  prefix: number;
  scope: number;
  /** True for an address added to an interface that already had one in the same subnet. */
  secondary: boolean;
}

/** An interface's addresses, in the order in which they were added. */
export interface AddressedInterface {
  addresses: readonly LocalAddress[];
}

/** True if the two addresses of one family are the same. */
export function sameAddress(left: Uint8Array, right: Uint8Array): boolean {
  return left.length === right.length && commonPrefix(left, right) === left.length * 8;
}

/** Number of leading bits two addresses of one family share. */
export function commonPrefix(left: Uint8Array, right: Uint8Array): number {
  for (let index = 0; index < left.length; index++) {
    const difference = (left[index] as number) ^ (right[index] as number);
    if (difference !== 0) return index * 8 + Math.clz32(difference) - 24;
  }
  return left.length * 8;
}

/** True if `address` lies in the subnet of `local` (inet_ifa_match). */
export function inSubnet(address: Uint8Array, local: LocalAddress): boolean {
  return address.length === local.address.length && commonPrefix(address, local.address) >= local.prefix;
}

function isVersion4(local: LocalAddress): boolean {
  return local.address.length === 4;
}

/**
 * The source address for talking to `target` through `interface` (inet_select_addr): the primary address in the
 * target's subnet, else the first primary one, else one of another interface. Addresses of a scope narrower than
 * `scope` do not count, so 127.0.0.1 is never chosen for `Scope.link`.
 */
export function selectSource(
  own: AddressedInterface,
  all: readonly AddressedInterface[],
  target: Uint8Array,
  scope: number,
): Uint8Array | undefined {
  let first: Uint8Array | undefined;
  for (const local of own.addresses) {
    if (!isVersion4(local) || local.secondary || local.scope > scope) continue;
    if (inSubnet(target, local)) return local.address;
    first ??= local.address;
  }
  if (first) return first;
  for (const other of all) {
    for (const local of other.addresses) {
      if (!isVersion4(local) || local.secondary || local.scope > scope || local.scope === Scope.link)
        continue;
      return local.address;
    }
  }
  return undefined;
}

/** True if one primary address of the interface has both in its subnet (inet_addr_onlink). */
export function isOnLink(own: AddressedInterface, target: Uint8Array, source: Uint8Array): boolean {
  return own.addresses.some(
    local => isVersion4(local) && !local.secondary && inSubnet(target, local) && inSubnet(source, local),
  );
}

/**
 * True if `address` is one of the interface's, of at most this scope, and, with a `peer`, one of the interface's
 * subnets holds both (inet_confirm_addr).
 */
export function confirmAddress(
  own: AddressedInterface,
  address: Uint8Array,
  peer: Uint8Array | undefined,
  scope: number,
): boolean {
  let found = false;
  let sameSubnet = false;
  for (const local of own.addresses) {
    if (!isVersion4(local)) continue;
    if (local.scope <= scope && sameAddress(local.address, address)) found = true;
    if (inSubnet(address, local) && (!peer || inSubnet(peer, local))) sameSubnet = true;
    if (found && sameSubnet) return true;
  }
  return false;
}
