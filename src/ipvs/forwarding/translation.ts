/**
 * Address and port translation in place, with the checksums brought along incrementally: what NAT and FULLNAT do to a
 * packet. A wrong checksum stays wrong, as the kernel leaves it.
 */
import { applyDifference, difference16, difference32 } from '../../wire/checksum.ts';
import { Ipv4, Protocol } from '../../wire/ipv4.ts';
import type { Packet } from '../../wire/packet.ts';
import { fillSctpChecksum } from '../../wire/sctp.ts';
import { Tcp } from '../../wire/tcp.ts';
import { fillUdpChecksum, Udp } from '../../wire/udp.ts';

/** Which end of the packet is rewritten. */
export const End = { source: 0, destination: 1 } as const;

/**
 * Rewrites one address and port.
 * @param end `End.source` or `End.destination`
 * @param words where the new address is: 1 (IPv4) or 4 (IPv6) raw words from `at` on
 * @param portRaw the new port, raw
 */
export function translate(packet: Packet, end: number, words: Int32Array, at: number, portRaw: number): void {
  const { view, network, transport } = packet;
  let difference = 0;
  if (packet.family === 4) {
    const field = network + (end === End.source ? Ipv4.source : Ipv4.destination);
    const after = words[at] as number;
    difference = difference32(view.getInt32(field, true), after);
    view.setInt32(field, after, true);
    const checksum = view.getUint16(network + Ipv4.checksum, true);
    view.setUint16(network + Ipv4.checksum, applyDifference(checksum, difference), true);
  } else {
    const field = end === End.source ? packet.sourceAt : packet.destinationAt;
    for (let word = 0; word < 4; word++) {
      const after = words[at + word] as number;
      difference += difference32(view.getInt32(field + 4 * word, true), after);
      view.setInt32(field + 4 * word, after, true);
    }
  }
  const portAt = transport + (end === End.source ? 0 : 2);
  const portBefore = view.getUint16(portAt, true);
  view.setUint16(portAt, portRaw, true);
  difference += difference16(portBefore, portRaw);
  if (packet.protocol === Protocol.tcp) {
    const checksum = view.getUint16(transport + Tcp.checksum, true);
    view.setUint16(transport + Tcp.checksum, applyDifference(checksum, difference), true);
  } else if (packet.protocol === Protocol.udp) updateUdp(packet, difference);
  else if (portBefore !== portRaw) fillSctpChecksum(view, transport, packet.networkEnd - transport);
}

/** A datagram without a checksum leaves with a full one, as the kernel sends it. */
function updateUdp(packet: Packet, difference: number): void {
  const { view, transport } = packet;
  const checksum = view.getUint16(transport + Udp.checksum, true);
  if (checksum === 0) {
    fillUdpChecksum(
      view,
      packet.family === 6 ? 6 : 4,
      packet.network,
      transport,
      packet.networkEnd - transport,
    );
    return;
  }
  view.setUint16(transport + Udp.checksum, applyDifference(checksum, difference) || 0xffff, true);
}
