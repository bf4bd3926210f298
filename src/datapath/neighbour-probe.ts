/** Asking a neighbour whether it is still there, by a frame of our own: an ARP request or a neighbour solicitation. */
import { formatAddress, formatMac } from '../wire/address.ts';
import { ARP_LENGTH, ArpOperation, writeArp } from '../wire/arp.ts';
import { ETHERNET_HEADER, EtherType, writeEthernet } from '../wire/ethernet.ts';
import { Icmpv6Type } from '../wire/icmp.ts';
import { groupMac, neighborFrame, solicitedNode } from '../wire/neighbor-discovery.ts';

const BROADCAST = Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0xff, 0xff);

/**
 * The question for `target` (4 or 16 bytes) as a whole frame. The answer goes to the kernel, which takes it for its own.
 * @param mac of the interface that asks
 * @param source an address of this host on the link
 * @param known the neighbour's MAC, if only the station that had it is to be asked (RFC 1122 section 2.3.2.1); undefined:
 *   all are
 */
export function probeFrame(
  mac: Uint8Array,
  source: Uint8Array,
  target: Uint8Array,
  known: Uint8Array | undefined,
): Uint8Array {
  if (target.length === 16) {
    const group = solicitedNode(target);
    return neighborFrame(known ?? groupMac(group), mac, source, known ? target : group, {
      type: Icmpv6Type.neighborSolicitation,
      flags: 0,
      target,
      mac,
    });
  }
  const frame = new Uint8Array(ETHERNET_HEADER + ARP_LENGTH);
  const at = writeEthernet(frame, 0, known ?? BROADCAST, mac, EtherType.arp);
  writeArp(frame, at, {
    operation: ArpOperation.request,
    senderMac: formatMac(mac),
    senderAddress: formatAddress(source),
    targetMac: '00:00:00:00:00:00',
    targetAddress: formatAddress(target),
  });
  return frame;
}
