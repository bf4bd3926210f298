/** TCP over a segment of the virtual LAN that loses, doubles and reorders, for properties. */
import fc from 'fast-check';
import type { Impairment } from '../src/lan/segment.ts';
import type { TcpConnection, TcpError } from '../src/lan/tcp-connection.ts';

/** Bytes of which every part shows where it belongs. */
export function pattern(length: number, salt: number): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => (index * 31 + salt + (index >>> 8)) & 0xff);
}

/** Fates of TCP frames in their order. */
export const fates = fc.array(
  fc.constantFrom<readonly number[]>([0], [0], [0], [0], [0], [], [0, 0], [1], [3], [0, 2]),
  { maxLength: 120 },
);

export function impair(list: readonly (readonly number[])[]): Impairment {
  let index = 0;
  return frame => {
    const etherType = ((frame[12] as number) << 8) | (frame[13] as number);
    const isTcp = etherType === 0x0800 ? frame[23] === 6 : etherType === 0x86dd && frame[20] === 6;
    return isTcp ? (list[index++] ?? [0]) : [0];
  };
}

/** What one end of a connection got. */
export interface Side {
  received: number[];
  closed: TcpError | 'orderly' | undefined;
}

export function watch(side: Side, connection: TcpConnection): void {
  connection.onData = data => side.received.push(...data);
  connection.onClose = error => {
    side.closed = error ?? 'orderly';
  };
}
