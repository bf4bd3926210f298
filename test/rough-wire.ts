/** TCP over a segment of the virtual LAN that loses, doubles and reorders, for properties. */
import fc from 'fast-check';
import type { Host } from '../src/lan/host.ts';
import type { Impairment } from '../src/lan/segment.ts';
import type { Simulation } from '../src/lan/simulation.ts';
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

/** Client and servers on the two sides of a director. */
export interface Wire {
  simulation: Simulation;
  client: Host;
  servers: readonly Host[];
  vip: string;
}

/**
 * Has servers answer at port 8080, sends them `up` bytes through the director (port 80 of the VIP) and `down` bytes back.
 * @param first which side begins to speak
 * @returns what both sides saw, the addresses that servers saw, and the client's port
 */
export function transfer(
  { simulation, client: host, servers, vip }: Wire,
  up: Uint8Array,
  down: Uint8Array,
  first: 'client' | 'server' = 'server',
) {
  const client: Side = { received: [], closed: undefined };
  const server: Side = { received: [], closed: undefined };
  const remotes: string[] = [];
  for (const each of servers) {
    each.tcp.listen({ port: 8080 }, connection => {
      remotes.push(connection.remoteAddress);
      watch(server, connection);
      if (first === 'server') connection.write(down);
      connection.onEnd = () => {
        if (first === 'client') connection.write(down);
        connection.end();
      };
    });
  }
  const connection = host.tcp.open({ address: vip, port: 80 });
  watch(client, connection);
  connection.write(up);
  connection.end();
  simulation.runUntilIdle();
  return { client, server, remotes, port: connection.localPort };
}
