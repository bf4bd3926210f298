/**
 * Many bytes over one TCP connection, whole or not. Run in a network namespace:
 *
 *     node test/bulk.ts serve PORT                       until its input ends
 *     node test/bulk.ts up ADDRESS PORT BYTES            sends them; prints {bytes, seconds} of what the server had
 *     node test/bulk.ts down ADDRESS PORT BYTES          asks for them; prints {bytes, seconds} of what came
 *
 * Byte n is n modulo 251; the first that is another ends the count.
 */
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';

const PERIOD = 251;
/** Whole periods, so that every piece is the same. */
const PIECE = Uint8Array.from({ length: PERIOD * 256 }, (_, at) => at % PERIOD);

export interface Transfer {
  bytes: number;
  seconds: number;
}

async function send(socket: Socket, bytes: number): Promise<void> {
  for (let sent = 0; sent < bytes; sent += PIECE.length) {
    if (!socket.write(PIECE.subarray(0, Math.min(PIECE.length, bytes - sent)))) await once(socket, 'drain');
  }
}

/** How many bytes came as they should, up to `most`. */
async function receive(socket: Socket, most: number): Promise<number> {
  let count = 0;
  for await (const part of socket as AsyncIterable<Uint8Array>) {
    for (const byte of part) if (byte !== count++ % PERIOD) return count - 1;
    if (count >= most) return count;
  }
  return count;
}

async function serve(port: number): Promise<void> {
  const server = createServer(socket => {
    socket.on('error', () => {});
    socket.once('data', async first => {
      const [mode, bytes] = String(first).trim().split(' ');
      if (mode === 'down') {
        await send(socket, Number(bytes));
        socket.end();
      } else {
        socket.write('go\n');
        // What is read whole is kept open for the answer.
        let count = 0;
        socket.on('data', part => {
          for (const byte of part) if (byte === count % PERIOD) count++;
          if (count >= Number(bytes)) socket.end(String(count));
        });
      }
    });
  });
  server.listen(port);
  await once(server, 'listening');
  process.stdout.write('ready\n');
  for await (const _ of process.stdin);
  process.exit();
}

async function transfer(mode: string, address: string, port: number, bytes: number): Promise<Transfer> {
  const socket = connect(port, address);
  await once(socket, 'connect');
  const begin = performance.now();
  socket.write(`${mode} ${bytes}\n`);
  let count: number;
  if (mode === 'down') count = await receive(socket, bytes);
  else {
    await once(socket, 'data');
    await send(socket, bytes);
    count = Number(String((await once(socket, 'data'))[0]));
  }
  socket.destroy();
  return { bytes: count, seconds: (performance.now() - begin) / 1000 };
}

if (import.meta.main) {
  const [mode = '', first = '', port, bytes] = process.argv.slice(2);
  if (mode === 'serve') await serve(Number(first));
  else process.stdout.write(`${JSON.stringify(await transfer(mode, first, Number(port), Number(bytes)))}\n`);
}
