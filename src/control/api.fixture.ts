/** The API of a daemon in this process, for tests. */
import { request as httpRequest } from 'node:http';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { VirtualDatapath } from '../datapath/virtual.ts';
import { temporaryFolder } from './daemon.fixture.ts';
import { Daemon } from './daemon.ts';
import { Log } from './log.ts';
import { SystemNames } from './names.ts';

export interface TestApi {
  socket: string;
  daemon: Daemon;
  datapath: VirtualDatapath;
  /** Lines of its log. */
  log: string[];
  ask(method: string, target: string, body?: unknown, headers?: Record<string, string>): Promise<Told>;
}

export interface Told {
  status: number;
  // biome-ignore lint/suspicious/noExplicitAny: an answer is whatever came back; tests say what they expect.
  body: any;
  headers: Readonly<Record<string, string | string[] | undefined>>;
}

export async function startApi(context: TestContext): Promise<TestApi> {
  const socket = join(temporaryFolder(context), 'd.sock');
  const datapath = new VirtualDatapath();
  const log: string[] = [];
  const daemon = await Daemon.start({
    socket,
    openDatapath: async () => datapath,
    names: new SystemNames({ dns: false }),
    log: new Log({ level: 'debug', format: 'journal', write: line => log.push(line) }),
  });
  context.after(() => daemon.stop({ remove: true }));
  return { socket, daemon, datapath, log, ask: (...question) => ask(socket, ...question) };
}

export function ask(
  socketPath: string,
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<Told> {
  const text = body === undefined ? undefined : JSON.stringify(body);
  return new Promise((resolve, reject) => {
    const question = httpRequest(
      { socketPath, method, path, headers: { ...length(text), ...headers }, agent: false },
      answer => {
        const chunks: Buffer[] = [];
        answer.on('data', chunk => chunks.push(chunk));
        answer.on('error', reject);
        answer.on('end', () => {
          const content = Buffer.concat(chunks).toString();
          const isJson = answer.headers['content-type'] === 'application/json';
          resolve({
            status: answer.statusCode ?? 0,
            body: isJson ? JSON.parse(content) : content,
            headers: answer.headers,
          });
        });
      },
    );
    question.on('error', reject);
    question.end(text);
  });
}

/** Node sends a body with DELETE or GET only if it is told how long it is. */
function length(text: string | undefined): Record<string, string> {
  return text === undefined ? {} : { 'Content-Length': String(Buffer.byteLength(text)) };
}
