/** What tests read of the TCP segments that a director sends. */
import assert from 'node:assert/strict';
import { Protocol } from '../wire/ipv4.ts';
import type { Packet } from '../wire/packet.ts';
import { Tcp, tcpHeaderLength, tcpSum } from '../wire/tcp.ts';
import { parsed } from './director.fixture.ts';

/** A frame that left: it parses, and its checksums are right. */
export function checked(frame: Uint8Array): Packet {
  const packet = parsed(frame);
  const { view, network, transport, networkEnd } = packet;
  assert.equal(packet.end, packet.networkEnd, 'the frame ends with the packet');
  if (packet.protocol === Protocol.tcp) {
    const family = packet.family === 6 ? 6 : 4;
    assert.equal(tcpSum(view, family, network, transport, networkEnd - transport), 0xffff, 'TCP checksum');
  }
  return packet;
}

export function only(packets: readonly Packet[]): Packet {
  assert.equal(packets.length, 1);
  return packets[0] as Packet;
}

export function sequenceOf({ view, transport }: Packet): number {
  return view.getUint32(transport + Tcp.sequence);
}

export function acknowledgementOf({ view, transport }: Packet): number {
  return view.getUint32(transport + Tcp.acknowledgement);
}

export function optionsOf({ view, bytes, transport }: Packet): number[] {
  return [...bytes.subarray(transport + 20, transport + tcpHeaderLength(view, transport))];
}

export function dataOf({ view, bytes, transport, networkEnd }: Packet): number[] {
  return [...bytes.subarray(transport + tcpHeaderLength(view, transport), networkEnd)];
}
