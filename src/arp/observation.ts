/**
 * What an ARP or neighbour discovery frame says, in one form for both: who asks for which address, who claims to be at
 * which MAC. Read with the eyes of a receiver: what Linux would believe is understood here too (hardware type 6,
 * frames tagged with VLAN 0), what it would throw away is a fault.
 */
import { type Family, formatAddress, formatMac } from '../wire/address.ts';
import { ARP_LENGTH, Arp, ArpOperation } from '../wire/arp.ts';
import { ETHERNET_HEADER, Ethernet, EtherType, VLAN_TAG } from '../wire/ethernet.ts';
import { checkIcmp, ICMP_HEADER, Icmpv6Type } from '../wire/icmp.ts';
import { Protocol } from '../wire/ipv4.ts';
import { Malformed } from '../wire/malformed.ts';
import { AdvertisementFlag, isDiscovery, readLinkLayerOption } from '../wire/neighbor-discovery.ts';
import type { Packet } from '../wire/packet.ts';
import { sameAddress } from './local-addresses.ts';

/** Why a frame that calls itself ARP or neighbour discovery is none that a host would take. */
export type ObservationFault =
  | 'arp-truncated'
  | 'arp-lengths'
  | 'arp-types'
  | 'arp-operation'
  | 'nd-rules'
  | 'nd-checksum'
  | 'nd-fragment'
  | 'group-sender';

export interface Observation {
  family: Family;
  /** The first VLAN number that is not 0; 0: none. */
  vlan: number;
  /** Lower-case, as all MACs here. */
  ethernetSource: string;
  ethernetDestination: string;
  /** A question (request, solicitation) or a statement (reply, advertisement). */
  form: 'question' | 'statement';
  /** The address that the sender says is its own; undefined in a probe for duplicates. */
  claim: string | undefined;
  /** The MAC that it says has the claimed address; undefined if it names none (then nobody's table changes). */
  mac: string | undefined;
  /** The address that a question asks for. */
  asks: string | undefined;
  /** Nobody in particular is told: sender and target are the same, or an advertisement says that nobody asked. */
  isGratuitous: boolean;
  /** An advertisement without it changes no entry that is known. ARP has no such thing: true. */
  overrides: boolean;
  /** Not for this frame's word to be taken. The fields above are those that could be read, '' or undefined otherwise. */
  fault: ObservationFault | undefined;
}

const ARP_HARDWARE_ETHERNET = 1;
/** Linux takes this one for Ethernet as well (net/ipv4/arp.c arp_process). */
const ARP_HARDWARE_IEEE802 = 6;

/**
 * Reads the frame that `packet` was set to; undefined if it is neither ARP nor neighbour discovery.
 * @param malformed what the parser said of it
 * @param outerVlan the tag that the system took off the frame; 0: none
 */
export function observe(packet: Packet, malformed: Malformed, outerVlan = 0): Observation | undefined {
  const { bytes, start } = packet;
  if (packet.length < ETHERNET_HEADER) return undefined;
  const observation: Observation = {
    family: packet.etherType === EtherType.arp ? 4 : 6,
    vlan: vlanOf(packet, outerVlan),
    ethernetSource: formatMac(bytes, start + Ethernet.source),
    ethernetDestination: formatMac(bytes, start + Ethernet.destination),
    form: 'statement',
    claim: undefined,
    mac: undefined,
    asks: undefined,
    isGratuitous: false,
    overrides: true,
    fault: undefined,
  };
  if (packet.etherType === EtherType.arp) readArp(packet, observation);
  else if (packet.etherType !== EtherType.ipv6 || !readDiscovery(packet, malformed, observation)) {
    return undefined;
  }
  if (observation.fault === undefined && observation.mac !== undefined && !isStation(observation.mac)) {
    observation.fault = 'group-sender';
  }
  return observation;
}

/** A tag with number 0 is only a priority: hosts treat the frame as one without. */
function vlanOf(packet: Packet, outerVlan: number): number {
  let vlan = outerVlan & 0xfff;
  for (let tag = 0; vlan === 0 && tag < packet.tags; tag++) {
    const at = packet.start + ETHERNET_HEADER + tag * VLAN_TAG;
    if (at + 2 > packet.end) break;
    vlan = packet.view.getUint16(at) & 0xfff;
  }
  return vlan;
}

/** True for the address of one station: neither broadcast, nor a group, nor zero. */
function isStation(mac: string): boolean {
  return (Number.parseInt(mac.slice(0, 2), 16) & 1) === 0 && mac !== '00:00:00:00:00:00';
}

function readArp({ bytes, view, network: at, end }: Packet, observation: Observation): void {
  if (end - at < 8) {
    observation.fault = 'arp-truncated';
    return;
  }
  const hardware = view.getUint16(at + Arp.hardwareType);
  const operation = view.getUint16(at + Arp.operation);
  if (view.getUint8(at + Arp.hardwareLength) !== 6 || view.getUint8(at + Arp.protocolLength) !== 4) {
    observation.fault = 'arp-lengths';
    return;
  }
  if (end - at < ARP_LENGTH) {
    observation.fault = 'arp-truncated';
    return;
  }
  const sender = bytes.subarray(at + Arp.senderAddress, at + Arp.senderAddress + 4);
  const target = bytes.subarray(at + Arp.targetAddress, at + Arp.targetAddress + 4);
  observation.form = operation === ArpOperation.request ? 'question' : 'statement';
  observation.mac = formatMac(bytes, at + Arp.senderMac);
  observation.claim = isUnspecified(sender) ? undefined : formatAddress(sender);
  observation.isGratuitous = sameAddress(sender, target);
  if (operation === ArpOperation.request) observation.asks = formatAddress(target);
  const isEthernet = hardware === ARP_HARDWARE_ETHERNET || hardware === ARP_HARDWARE_IEEE802;
  if (!isEthernet || view.getUint16(at + Arp.protocolType) !== EtherType.ipv4)
    observation.fault = 'arp-types';
  else if (operation !== ArpOperation.request && operation !== ArpOperation.reply) {
    observation.fault = 'arp-operation';
  }
}

/** False if it is no neighbour discovery. */
function readDiscovery(packet: Packet, malformed: Malformed, observation: Observation): boolean {
  const { bytes, view, transport } = packet;
  if (packet.family !== 6 || packet.protocol !== Protocol.icmpv6 || packet.fragmentOffset > 0) return false;
  if (malformed !== Malformed.none || transport >= packet.networkEnd) return false;
  const type = view.getUint8(transport);
  if (!isDiscovery(type)) return false;
  // RFC 6980: neighbour discovery in fragments is not to be believed.
  if (packet.fragmentHeader >= 0) {
    observation.fault = 'nd-fragment';
    return true;
  }
  const length = packet.networkEnd - transport;
  if (checkIcmp(view, 6, packet.network, transport, length, true) !== Malformed.none) {
    observation.fault = 'nd-checksum';
    return true;
  }
  const mac = readLinkLayerOption(packet);
  const source = bytes.subarray(packet.sourceAt, packet.sourceAt + 16);
  const hasTarget = type >= Icmpv6Type.neighborSolicitation;
  const target = hasTarget
    ? bytes.subarray(transport + ICMP_HEADER, transport + ICMP_HEADER + 16)
    : undefined;
  if (mac === false || target?.[0] === 0xff) {
    observation.fault = 'nd-rules';
    return true;
  }
  observation.mac = mac && formatMac(mac);
  // An advertisement and a redirect speak for the address they are about, the others for the one they come from.
  if (target && type !== Icmpv6Type.neighborSolicitation) {
    observation.claim = formatAddress(target);
    observation.isGratuitous = true;
  } else observation.claim = isUnspecified(source) ? undefined : formatAddress(source);
  if (type === Icmpv6Type.neighborAdvertisement) {
    const flags = view.getUint32(transport + 4);
    observation.isGratuitous = (flags & AdvertisementFlag.solicited) === 0;
    observation.overrides = (flags & AdvertisementFlag.override) !== 0;
  } else if (type === Icmpv6Type.neighborSolicitation && target) {
    observation.form = 'question';
    observation.asks = formatAddress(target);
  } else observation.isGratuitous = true;
  return true;
}

function isUnspecified(address: Uint8Array): boolean {
  return address.every(byte => byte === 0);
}
