/**
 * Numbered datagrams, for tests that account for each of them. Run in a network namespace:
 *
 *     node test/datagrams.ts receive PORT                         until its input ends; then prints what came, as JSON
 *     node test/datagrams.ts send ADDRESS PORT FLOWS RATE SECONDS BYTES FIRST
 *                                                                 prints how many it sent of each flow, as JSON
 *
 * A flow has a source port of its own. Each datagram carries the number of its flow and its number in the flow.
 */
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { setSocketOption } from '../src/datapath/ffi/libc.ts';

/** What came of one flow. */
export interface ReceivedFlow {
  /** Datagrams, each counted once. */
  received: number;
  /** Datagrams that came more than once. */
  repeated: number;
}

export interface SentFlows {
  /** Number of the first flow. */
  first: number;
  flows: number;
  /** Datagrams of every flow. */
  each: number;
}

const SOL_SOCKET = 1;
const SO_RCVBUFFORCE = 33;
/** Enough for some 40,000 datagrams: a receiver that waits for its turn on a busy machine loses none. */
const RECEIVE_BUFFER = 32 << 20;
/** Milliseconds between two batches of datagrams. */
const INTERVAL = 5;

/** Node tells nobody; it keeps the descriptor in its socket's state. */
function descriptorOf(socket: Socket): number {
  const symbol = Object.getOwnPropertySymbols(socket).find(
    ({ description }) => description === 'state symbol',
  );
  const state = (socket as unknown as Record<symbol, { handle: { fd: number } }>)[symbol as symbol];
  return (state as { handle: { fd: number } }).handle.fd;
}

async function receive(port: number): Promise<Record<string, ReceivedFlow>> {
  const flows = new Map<number, { seen: Set<number>; repeated: number }>();
  const socket = createSocket('udp4');
  socket.on('message', bytes => {
    const flow = bytes.readUInt16BE(0);
    const number = bytes.readUInt32BE(2);
    let known = flows.get(flow);
    if (!known) {
      known = { seen: new Set(), repeated: 0 };
      flows.set(flow, known);
    }
    if (known.seen.has(number)) known.repeated++;
    known.seen.add(number);
  });
  socket.bind(port);
  await once(socket, 'listening');
  const size = new Uint8Array(new Uint32Array([RECEIVE_BUFFER]).buffer);
  const fd = descriptorOf(socket);
  setSocketOption(fd, SOL_SOCKET, SO_RCVBUFFORCE, size, 'the size of the receive buffer');
  process.stdout.write('ready\n');
  for await (const _ of process.stdin);
  // What is in the buffer still comes.
  await new Promise(resolve => setTimeout(resolve, 200));
  socket.close();
  return Object.fromEntries(
    [...flows].map(([flow, { seen, repeated }]) => [flow, { received: seen.size, repeated }]),
  );
}

async function send(
  address: string,
  port: number,
  flows: number,
  rate: number,
  seconds: number,
  length: number,
  first: number,
): Promise<SentFlows> {
  const sockets: Socket[] = [];
  for (let flow = 0; flow < flows; flow++) {
    const socket = createSocket('udp4');
    // A refusal would be seen as an error; what counts is what arrives.
    socket.on('error', () => {});
    // Ports of their own: a port that comes back would continue an older connection.
    socket.bind(10_000 + first + flow);
    await once(socket, 'listening');
    sockets.push(socket);
  }
  const each = Math.floor((rate * seconds) / flows);
  const begin = performance.now();
  for (let number = 0; number < each; ) {
    const due = Math.min(each, Math.floor((((performance.now() - begin) / 1000) * rate) / flows) + 1);
    for (; number < due; number++) {
      for (const [flow, socket] of sockets.entries()) {
        const bytes = Buffer.alloc(length);
        bytes.writeUInt16BE(first + flow, 0);
        bytes.writeUInt32BE(number, 2);
        socket.send(bytes, port, address);
      }
    }
    await new Promise(resolve => setTimeout(resolve, INTERVAL));
  }
  // Sends are asynchronous.
  await new Promise(resolve => setTimeout(resolve, 100));
  for (const socket of sockets) socket.close();
  return { first, flows, each };
}

if (import.meta.main) {
  const [mode = '', ...words] = process.argv.slice(2);
  const numbers = words.map(Number);
  const result =
    mode === 'receive'
      ? await receive(numbers[0] as number)
      : await send(
          words[0] as string,
          ...(numbers.slice(1) as [number, number, number, number, number, number]),
        );
  process.stdout.write(`${JSON.stringify(result)}\n`);
}
