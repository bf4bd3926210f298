/**
 * Traffic whose every packet can be missed: `node numbered-traffic.ts echo ADDRESS PORT`, and
 * `node numbered-traffic.ts client ADDRESS:PORT…`, which opens TCP connections and UDP flows to each service, sends a
 * numbered message on each every few milliseconds until its input ends, and prints what came back as JSON.
 */
import { createSocket } from 'node:dgram';
import { connect, createServer, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

export interface TrafficResult {
  /** Messages sent and answers that came back, by flow. */
  flows: { name: string; sent: number; received: number; missing: number[]; broken: string }[];
  /** Longest time that a flow went without an answer, milliseconds. */
  longestPause: number;
}

const FLOWS = 4;
/** Milliseconds between two messages of a flow, and for the last answers to come. */
const INTERVAL = 5;
const SETTLE = 1500;
const BUFFER = 4 * 1024 * 1024;

class Flow {
  readonly name: string;
  readonly #send: (text: string) => void;
  readonly #open = new Set<number>();
  #sent = 0;
  #received = 0;
  #last = performance.now();
  longestPause = 0;
  broken = '';

  constructor(name: string, send: (text: string) => void) {
    this.name = name;
    this.#send = send;
  }

  send(): void {
    this.#open.add(++this.#sent);
    this.#send(`${this.#sent} ${'.'.repeat(100)}\n`);
  }

  take(line: string): void {
    const now = performance.now();
    this.longestPause = Math.max(this.longestPause, now - this.#last);
    this.#last = now;
    if (this.#open.delete(Number(line.split(' ')[0]))) this.#received++;
  }

  get isAnswered(): boolean {
    return this.#open.size === 0;
  }

  get result(): TrafficResult['flows'][number] {
    const { name, broken } = this;
    return { name, sent: this.#sent, received: this.#received, missing: [...this.#open], broken };
  }
}

function echo(address: string, port: number): void {
  createServer(socket => socket.on('error', () => {}).pipe(socket)).listen(port, address);
  const udp = createSocket({ type: 'udp4', recvBufferSize: BUFFER });
  udp.on('message', (message, from) => udp.send(message, from.port, from.address));
  udp.bind(port, address, () => process.stdout.write('ready\n'));
}

async function tcpFlow(address: string, port: number, number: number): Promise<Flow> {
  const socket: Socket = connect(port, address).setNoDelay(true).setEncoding('utf8');
  const flow = new Flow(`tcp ${address}:${port} ${number}`, text => socket.write(text));
  await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject));
  socket.on('error', error => (flow.broken = error.message));
  socket.on('close', () => (flow.broken ||= 'closed'));
  let rest = '';
  socket.on('data', (text: string) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) flow.take(line);
  });
  return flow;
}

async function udpFlow(address: string, port: number, number: number): Promise<Flow> {
  const socket = createSocket({ type: 'udp4', recvBufferSize: BUFFER });
  const flow = new Flow(`udp ${address}:${port} ${number}`, text => socket.send(text, port, address));
  socket.on('error', error => (flow.broken = error.message));
  socket.on('message', message => flow.take(message.toString()));
  await new Promise<void>(resolve => socket.bind(0, resolve));
  return flow;
}

async function client(services: readonly string[]): Promise<void> {
  const flows: Flow[] = [];
  for (const service of services) {
    const [address = '', port = ''] = service.split(':');
    for (let number = 0; number < FLOWS; number++) {
      flows.push(await tcpFlow(address, Number(port), number), await udpFlow(address, Number(port), number));
    }
  }
  let at = 0;
  const sending = setInterval(
    () => {
      for (let count = 0; count < 2; count++) flows[at++ % flows.length]?.send();
    },
    INTERVAL / (flows.length / 2),
  );
  process.stdout.write('ready\n');
  for await (const _ of process.stdin);
  clearInterval(sending);
  for (const end = performance.now() + SETTLE; performance.now() < end; await sleep(20)) {
    if (flows.every(({ isAnswered }) => isAnswered)) break;
  }
  const longestPause = Math.max(...flows.map(flow => flow.longestPause));
  process.stdout.write(
    `${JSON.stringify({ flows: flows.map(({ result }) => result), longestPause })}\n`,
    () => process.exit(0),
  );
}

if (import.meta.main) {
  const [role, ...words] = process.argv.slice(2);
  if (role === 'echo') echo(words[0] as string, Number(words[1]));
  else await client(words);
}
