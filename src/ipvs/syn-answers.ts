/**
 * The answers to SYNs: what the director promises a client in the name of a service, before there is a server that could.
 * The SYN's numbers and what was agreed on come back in the cookie.
 */
import { IPV4_HEADER } from '../wire/ipv4.ts';
import { IPV6_HEADER } from '../wire/ipv6.ts';
import type { Packet } from '../wire/packet.ts';
import { findTcpOption, TCP_HEADER, Tcp, TcpFlag, TcpOption, tcpSum } from '../wire/tcp.ts';
import type { ConnectionTable } from './connections.ts';
import { Drop } from './drops.ts';
import { Timestamp } from './forwarding/tcp-options.ts';
import { toaLength } from './forwarding/toa.ts';
import type { Outcome, Way } from './forwarding/way.ts';
import { OwnSegments } from './own-segments.ts';
import type { Service } from './service-table.ts';
import type { Settings } from './settings.ts';
import {
  DEFAULT_SEGMENT_SIZE,
  NO_SCALE,
  packSynOptions,
  SynCookies,
  SynOptions,
  windowScaleOf,
} from './syn-cookie.ts';
import { optionOf } from './syn-segments.ts';

const GREATEST_WINDOW = 0xffff;
const GREATEST_SCALE = 14;
/** Sizes of segments below this make no sense (net.ipv4.tcp_min_snd_mss). */
const LEAST_SEGMENT_SIZE = 48;

export class SynAnswers {
  readonly #way: Way;
  readonly #settings: Settings;
  readonly #segments = new OwnSegments();
  readonly #secret: () => Int32Array;
  #cookies: SynCookies | undefined;

  /** @param random draws the secret if the table has none yet */
  constructor(way: Way, settings: Settings, connections: ConnectionTable, random: () => number) {
    this.#way = way;
    this.#settings = settings;
    this.#secret = () => connections.cookieSecret(random);
  }

  /** The secret is drawn when it is needed first. */
  #cookiesNow(): SynCookies {
    this.#cookies ??= new SynCookies(this.#secret());
    return this.#cookies;
  }

  /** Answers a client's SYN. */
  answer(service: Service, packet: Packet, now: number): Outcome {
    const { view, network, transport, networkEnd, sourceAt, bytes } = packet;
    const family = packet.family === 6 ? 6 : 4;
    if (tcpSum(view, family, network, transport, networkEnd - transport) !== 0xffff) return Drop.malformed;
    const way = this.#way;
    const hop = way.network.nextHop(bytes, sourceAt, family);
    if (!hop) return Drop.noRouteToClient;
    const segments = this.#segments;
    const settings = this.#settings;
    const options = this.#optionsOf(service, packet);
    const sequence = view.getInt32(transport + Tcp.sequence);
    const cookie = this.#cookiesNow().make(packet, sequence, options, now);
    const segmentSize = this.#ownSegmentSize(service, family, hop.mtu);
    segments.ttl = settings.synproxy_synack_ttl;
    segments.addSegmentSize(segmentSize);
    if (options & SynOptions.sack) segments.addSackPermitted();
    if (options & SynOptions.timestamps) {
      const at = findTcpOption(view, transport, TcpOption.timestamps);
      segments.addTimestamps(now, view.getInt32(at + Timestamp.value));
    }
    if (windowScaleOf(options) !== NO_SCALE) segments.addWindowScale(settings.synproxy_wscale);
    const window = Math.min(
      Math.max(settings.synproxy_ack_skb_store_thresh, 1) * segmentSize,
      GREATEST_WINDOW,
    );
    way.send(segments.like(packet, true, TcpFlag.syn | TcpFlag.ack, cookie, sequence + 1, window), hop);
    return Drop.none;
  }

  /** What the client's SYN asks for and the settings allow. */
  #optionsOf(service: Service, { view, transport }: Packet): number {
    const settings = this.#settings;
    const size = optionOf(view, transport, TcpOption.maximumSegmentSize, 4);
    const scale = settings.synproxy_wscale === 0 ? -1 : optionOf(view, transport, TcpOption.windowScale, 3);
    // Where FULLNAT takes them out of the SYN, the server would send none.
    const mayStamp =
      settings.synproxy_timestamp !== 0 &&
      !(service.hasFullnat && settings.fullnat_timestamp_remove_entry !== 0);
    return packSynOptions(
      size < 0 ? DEFAULT_SEGMENT_SIZE : view.getUint16(size + 2),
      scale < 0 ? NO_SCALE : Math.min(view.getUint8(scale + 2), GREATEST_SCALE),
      mayStamp && optionOf(view, transport, TcpOption.timestamps, 10) >= 0,
      settings.synproxy_sack !== 0 && optionOf(view, transport, TcpOption.sackPermitted, 2) >= 0,
    );
  }

  /** What the client may send at once: as configured, but no more than the way takes with what TOA adds. */
  #ownSegmentSize(service: Service, family: 4 | 6, mtu: number): number {
    const { synproxy_init_mss, fullnat_toa_entry, fullnat_mss_adjust_entry } = this.#settings;
    const passesToa =
      service.hasFullnat &&
      (service.specification.clientAddress ?? 'toa') === 'toa' &&
      fullnat_toa_entry !== 0 &&
      fullnat_mss_adjust_entry !== 0;
    const headers = (family === 4 ? IPV4_HEADER : IPV6_HEADER) + TCP_HEADER;
    const room = mtu - headers - (passesToa ? toaLength(family) : 0);
    return Math.max(Math.min(synproxy_init_mss, room), LEAST_SEGMENT_SIZE);
  }

  /** The `SynOptions` in the cookie that a segment acknowledges; -1 if it is none that holds. */
  readCookie(packet: Packet, now: number): number {
    const { view, transport } = packet;
    const cookie = view.getInt32(transport + Tcp.acknowledgement) - 1;
    return this.#cookiesNow().read(packet, cookie, view.getInt32(transport + Tcp.sequence) - 1, now);
  }
}
