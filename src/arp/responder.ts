/** Who answers an ARP request: `arp_ignore` (net/ipv4/arp.c arp_ignore, Documentation/networking/ip-sysctl.rst). */
import { ARP_LENGTH, Arp, ArpOperation } from '../wire/arp.ts';
import { ETHERNET_HEADER, EtherType, writeEthernet } from '../wire/ethernet.ts';
import { type AddressedInterface, confirmAddress, Scope } from './local-addresses.ts';

/**
 * True if a host keeps silent about `target`, an address of its own, asked for by `sender` on `receiving`.
 *
 * @param mode the effective value: the larger of `all` and the *receiving* interface. What is set on `lo` alone
 *   therefore has no effect on requests that come in on eth0.
 *   0 answers for every local address; 1 only for those of the receiving interface; 2 as 1, and the sender must be in
 *   the same subnet; 3 for addresses of a wider scope than host, on any interface; 8 never; other values answer as 0.
 */
export function ignoresRequest(
  mode: number,
  receiving: AddressedInterface,
  all: readonly AddressedInterface[],
  sender: Uint8Array,
  target: Uint8Array,
): boolean {
  switch (mode) {
    case 1:
      return !confirmAddress(receiving, target, undefined, Scope.host);
    case 2: {
      // A probe for a duplicate (RFC 5227) comes from no address and so from no other subnet.
      const peer = sender.every(byte => byte === 0) ? undefined : sender;
      return !confirmAddress(receiving, target, peer, Scope.host);
    }
    case 3:
      return !all.some(each => confirmAddress(each, target, undefined, Scope.link));
    case 8:
      return true;
    default:
      return false;
  }
}

/** The 42-byte frame that answers the request at `request.bytes[at]` with `mac`. */
export function replyFrame(request: Uint8Array, at: number, mac: Uint8Array): Uint8Array {
  const requester = request.subarray(at + Arp.senderMac, at + Arp.senderMac + 6);
  return arpFrame(
    ArpOperation.reply,
    requester,
    mac,
    request.subarray(at + Arp.targetAddress, at + Arp.targetAddress + 4),
    requester,
    request.subarray(at + Arp.senderAddress, at + Arp.senderAddress + 4),
  );
}

/**
 * An ARP frame, 42 bytes: MAC addresses of 6 bytes, IPv4 addresses of 4.
 * @param destination Ethernet destination
 * @param senderMac also the Ethernet source
 */
export function arpFrame(
  operation: number,
  destination: Uint8Array,
  senderMac: Uint8Array,
  senderAddress: Uint8Array,
  targetMac: Uint8Array,
  targetAddress: Uint8Array,
): Uint8Array {
  const frame = new Uint8Array(ETHERNET_HEADER + ARP_LENGTH);
  const at = writeEthernet(frame, 0, destination, senderMac, EtherType.arp);
  frame.set([0, 1, 8, 0, 6, 4, 0, operation], at);
  frame.set(senderMac, at + Arp.senderMac);
  frame.set(senderAddress, at + Arp.senderAddress);
  frame.set(targetMac, at + Arp.targetMac);
  frame.set(targetAddress, at + Arp.targetAddress);
  return frame;
}
