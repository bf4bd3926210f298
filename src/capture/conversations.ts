/** What a reader has to remember of TCP conversations: where sequence numbers began and how windows are scaled. */
import type { Packet } from '../wire/packet.ts';
import { findTcpOption, readTcp, TcpFlag, TcpOption } from '../wire/tcp.ts';

/** A segment's numbers counted from the beginning of its conversation, as tshark shows them. */
export interface RelativeSegment {
  /** 0 for the SYN; 1 for the first segment of a conversation whose SYN was not seen. */
  sequence: number;
  /** Only meaningful with the ACK flag. */
  acknowledgement: number;
  /** Bytes; scaled where the handshake was seen. */
  window: number;
  /** What `acknowledgement` is counted from; SACK edges are, too. */
  acknowledgementBase: number;
}

interface Direction {
  base: number | undefined;
  /** Undefined: no SYN with the option was seen. */
  scale: number | undefined;
}

/** Two directions; which one is `low` depends on the order of the endpoints' texts. */
interface Conversation {
  low: Direction;
  high: Direction;
}

/** More conversations than this and the oldest is forgotten: a long capture must not grow without end. */
const REMEMBERED = 65536;

export class Conversations {
  readonly #known = new Map<string, Conversation>();

  /** Takes a TCP segment, whose whole header is there, into account and gives its relative numbers. */
  see(packet: Packet): RelativeSegment {
    const header = readTcp(packet.view, packet.transport);
    const source = `${packet.source} ${header.sourcePort}`;
    const destination = `${packet.destination} ${header.destinationPort}`;
    const forwardIsLow = source <= destination;
    const conversation = this.#find(forwardIsLow ? `${source} ${destination}` : `${destination} ${source}`);
    let forward = forwardIsLow ? conversation.low : conversation.high;
    let backward = forwardIsLow ? conversation.high : conversation.low;

    const syn = (header.flags & TcpFlag.syn) !== 0;
    const ack = (header.flags & TcpFlag.ack) !== 0;
    // Another SYN than the one that began it: the ports are used again.
    if (syn && !ack && forward.base !== undefined && forward.base !== header.sequence) {
      forward = { base: undefined, scale: undefined };
      backward = { base: undefined, scale: undefined };
      conversation.low = forwardIsLow ? forward : backward;
      conversation.high = forwardIsLow ? backward : forward;
    }
    if (syn) forward.base = header.sequence;
    if (forward.base === undefined) forward.base = (header.sequence - 1) >>> 0;
    if (backward.base === undefined && ack) backward.base = (header.acknowledgement - 1) >>> 0;
    if (syn) {
      forward.scale = windowScale(packet) ?? forward.scale;
      // RFC 7323 section 1.3: scaling takes both sides.
      if (ack && (forward.scale === undefined || backward.scale === undefined)) {
        forward.scale = undefined;
        backward.scale = undefined;
      }
    }
    const acknowledgementBase = backward.base ?? 0;
    return {
      sequence: (header.sequence - forward.base) >>> 0,
      acknowledgement: (header.acknowledgement - acknowledgementBase) >>> 0,
      window: header.window * 2 ** (syn ? 0 : (forward.scale ?? 0)),
      acknowledgementBase,
    };
  }

  #find(key: string): Conversation {
    const known = this.#known.get(key);
    if (known) return known;
    if (this.#known.size >= REMEMBERED) {
      for (const oldest of this.#known.keys()) {
        this.#known.delete(oldest);
        break;
      }
    }
    const conversation: Conversation = {
      low: { base: undefined, scale: undefined },
      high: { base: undefined, scale: undefined },
    };
    this.#known.set(key, conversation);
    return conversation;
  }
}

/** The shift count of the window scale option; RFC 7323 section 2.3 limits it to 14. */
function windowScale(packet: Packet): number | undefined {
  const option = findTcpOption(packet.view, packet.transport, TcpOption.windowScale);
  if (option < 0 || packet.view.getUint8(option + 1) !== 3) return undefined;
  return Math.min(packet.view.getUint8(option + 2), 14);
}
