/** The daemon: one data path, its desired state, and the socket over which it is controlled. */

import { readFileSync } from 'node:fs';
import type { Server } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Datapath } from '../datapath/datapath.ts';
import type { Access, TcpAccess } from './access.ts';
import { localAdmission, tokenAdmission } from './admission.ts';
import { Api } from './api.ts';
import { Configuration } from './configuration.ts';
import { Events } from './events.ts';
import { announceSuccessor, endHandover } from './handover.ts';
import { HEALTH_INTERVAL, HealthWatch } from './health-watch.ts';
import { createApiServer } from './http-server.ts';
import { Log } from './log.ts';
import { SystemNames } from './names.ts';
import { type GuardSettings, NeighbourKeeper } from './neighbour-keeper.ts';
import { peerText } from './peer.ts';
import { requester } from './requester.ts';
import type { ShutdownOptions } from './routes/end.ts';
import { listenPrivately, lockSocket, lockStateFolder, type SocketLock } from './socket.ts';
import { StateFolder } from './state-folder.ts';

export interface DaemonOptions {
  /** Path of the control socket. */
  socket: string;
  /** Makes the data path; called once the socket is ours, so that two daemons never touch the same one. */
  openDatapath(): Promise<Datapath>;
  /** Folder of the desired state; without one it lasts as long as the daemon. */
  stateFolder?: string;
  /** Default: the system's, DNS included. */
  names?: SystemNames;
  /** The guard over ARP and neighbour discovery; without it, there is none. */
  guard?: GuardSettings;
  /** What begins after this one when it is asked to reload; without it, it cannot be. */
  successor?: Successor;
  /** Beside the owner's. */
  access?: Access;
  /** Default: errors only, to standard error. */
  log?: Log;
}

/** Milliseconds that clients have to finish when the daemon ends, and to take their answers. */
const PATIENCE = 500;

/** Limits of TCP, where it is not the kernel that says who asks. */
const TCP_LIMITS = { connections: 64, requests: { rate: 200, burst: 400 } };

export interface Successor {
  /** @throws Error that says why it could not begin */
  check(): Promise<void>;
  /** Called when this daemon has given everything up but what its data path left for the next one. */
  begin(): void;
}

export class Daemon {
  readonly socket: string;
  readonly datapath: Datapath;
  /** Called when it is about to begin anew. */
  onReload: () => void = () => {};
  readonly #configuration: Configuration;
  readonly #neighbours: NeighbourKeeper;
  readonly #server: Server;
  readonly #tcpServer: Server | undefined;
  readonly #api: Api;
  readonly #log: Log;
  readonly #watching: NodeJS.Timeout;
  /** Of the socket, and of the state's folder. */
  readonly #locks: readonly (SocketLock | undefined)[];
  readonly #successor: Successor | undefined;
  #stopping: Promise<void> | undefined;
  readonly #stopped = Promise.withResolvers<void>();

  private constructor(
    options: DaemonOptions,
    locks: readonly (SocketLock | undefined)[],
    datapath: Datapath,
    configuration: Configuration,
    events: Events,
    neighbours: NeighbourKeeper,
    log: Log,
  ) {
    this.socket = options.socket;
    this.datapath = datapath;
    this.#locks = locks;
    this.#configuration = configuration;
    this.#neighbours = neighbours;
    this.#successor = options.successor;
    this.#log = log;
    this.#api = new Api({
      datapath,
      log,
      listen: () => this.listen,
      configuration,
      events,
      neighbours,
      names: options.names ?? new SystemNames(),
      version: packageVersion(),
      // The answer to the request that asks for it goes out first.
      shutdown: stopOptions => setImmediate(() => void this.stop(stopOptions)),
      reload: async () => {
        await this.#checkSuccessor();
        setImmediate(() => void this.#beginAnew());
      },
    });
    const watch = new HealthWatch(datapath.director, this.#api.events, log);
    this.#watching = setInterval(() => watch.look(), HEALTH_INTERVAL).unref();
    const { gid, tcp } = options.access ?? {};
    const api = this.#api;
    this.#server = createApiServer({ api, log, admission: localAdmission(gid) });
    if (tcp) {
      this.#tcpServer = createApiServer({
        api,
        log,
        admission: tokenAdmission(tcp.token),
        limits: TCP_LIMITS,
        ...(tcp.tls && { tls: tcp.tls }),
      });
    }
  }

  /**
   * Starts a daemon: takes the socket, restores the desired state, brings the data path up, then listens.
   * @throws Error whose message is one line; nothing is left behind then
   */
  static async start(options: DaemonOptions): Promise<Daemon> {
    const { stateFolder } = options;
    const lock = await lockSocket(options.socket);
    let stateLock: SocketLock | undefined;
    let datapath: Datapath | undefined;
    let neighbours: NeighbourKeeper | undefined;
    const log = options.log ?? new Log({ level: 'error' });
    try {
      const folder = stateFolder === undefined ? undefined : new StateFolder(stateFolder);
      stateLock = stateFolder === undefined ? undefined : await lockStateFolder(stateFolder);
      datapath = await options.openDatapath();
      const configuration = new Configuration({ datapath, folder, log });
      configuration.restore();
      await datapath.start();
      const events = new Events();
      neighbours = new NeighbourKeeper({ datapath, configuration, events, log, guard: options.guard });
      await neighbours.start();
      const daemon = new Daemon(options, [lock, stateLock], datapath, configuration, events, neighbours, log);
      const { gid, tcp } = options.access ?? {};
      if (tcp && daemon.#tcpServer) await listenOnTcp(daemon.#tcpServer, tcp);
      await listenPrivately(daemon.#server, options.socket, gid).catch((error: unknown) => {
        daemon.#tcpServer?.close();
        throw error;
      });
      endHandover(options.socket);
      daemon.#log.info('started', {
        pid: process.pid,
        datapath: datapath.kind,
        socket: options.socket,
        ...(tcp && { listen: daemon.listen, tls: tcp.tls !== undefined }),
        revision: configuration.revision,
      });
      return daemon;
    } catch (error) {
      endHandover(options.socket);
      await neighbours?.stop({ remove: datapath?.status().adopted !== true });
      // What a predecessor left goes on forwarding; the next attempt will find it.
      await datapath?.stop({ remove: datapath.status().adopted !== true });
      stateLock?.release();
      lock.release();
      throw error;
    }
  }

  /** Address and port of TCP, `127.0.0.1:8080`; undefined without. */
  get listen(): string | undefined {
    const address = this.#tcpServer?.address();
    if (!address || typeof address === 'string') return undefined;
    return `${address.family === 'IPv6' ? `[${address.address}]` : address.address}:${address.port}`;
  }

  /** Settles when the daemon has stopped, whoever stopped it. */
  get stopped(): Promise<void> {
    return this.#stopped.promise;
  }

  /** Stops listening (which removes the socket), lets requests under way finish, then stops the data path. */
  stop(options: ShutdownOptions): Promise<void> {
    this.#stopping ??= this.#stop(options).then(this.#stopped.resolve, this.#stopped.reject);
    return this.stopped;
  }

  /**
   * Ends and lets its successor begin, if that could: otherwise it goes on as it is.
   * @throws Error that says why it could not
   */
  async reload(): Promise<void> {
    await this.#checkSuccessor();
    await this.#beginAnew();
  }

  async #checkSuccessor(): Promise<void> {
    if (!this.#successor) throw new Error('this daemon has nothing that could begin after it');
    if (this.#stopping) throw new Error('the daemon is stopping');
    await this.#successor.check();
  }

  async #beginAnew(): Promise<void> {
    if (this.#stopping) return;
    this.onReload();
    this.#stopping = this.#stop({ remove: false, successor: true }).then(
      () => this.#successor?.begin(),
      this.#stopped.reject,
    );
    await this.#stopping;
  }

  /** Ends a server. Requests under way have a moment to finish, edits as long as they take. */
  async #closed(server: Server): Promise<void> {
    const end = new Promise(resolve => server.close(resolve));
    server.closeIdleConnections();
    const cutting = new AbortController();
    void this.#cutOff(server, cutting.signal);
    await end;
    cutting.abort();
  }

  /**
   * A client that neither asks nor leaves must not keep the daemon. But who is not answered asks the next daemon again, and
   * what was done must not be done twice: first all edits that were taken are through and answered.
   */
  async #cutOff(server: Server, signal: AbortSignal): Promise<void> {
    try {
      await sleep(PATIENCE, undefined, { signal });
      await this.#configuration.settled();
      await sleep(PATIENCE, undefined, { signal });
      server.closeAllConnections();
    } catch {
      // All have left by themselves.
    }
  }

  async #stop(options: ShutdownOptions): Promise<void> {
    if (options.successor) announceSuccessor(this.socket);
    this.#log.info('stopping', {
      by: byWhom(),
      remove: options.remove,
      successor: options.successor === true,
    });
    this.#api.events.publish('daemon', { state: 'stopping', successor: options.successor === true });
    this.#api.events.close();
    clearInterval(this.#watching);
    await Promise.all([this.#server, this.#tcpServer].map(server => server && this.#closed(server)));
    try {
      await this.#configuration.close();
      await this.#neighbours.stop(options);
      await this.datapath.stop(options);
    } finally {
      for (const lock of this.#locks) lock?.release();
      await this.#log.close();
    }
  }
}

function byWhom(): string {
  const peer = requester();
  return peer ? peerText(peer) : 'a signal or the program itself';
}

function listenOnTcp(server: Server, { host, port }: TcpAccess): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) =>
      reject(new Error(`cannot listen on ${host} port ${port}: ${error.message}`)),
    );
    server.listen(port, host, resolve);
  });
}

function packageVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}
