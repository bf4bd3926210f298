/** The daemon: one data path, its desired state, and the socket over which it is controlled. */

import { readFileSync } from 'node:fs';
import type { Server } from 'node:http';
import type { Datapath } from '../datapath/datapath.ts';
import { Api } from './api.ts';
import { Configuration } from './configuration.ts';
import { announceSuccessor, endHandover } from './handover.ts';
import { createApiServer } from './http-server.ts';
import { SystemNames } from './names.ts';
import type { ShutdownOptions } from './routes/end.ts';
import { listenPrivately, lockSocket, type SocketLock } from './socket.ts';
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
  /** What begins after this one when it is asked to reload; without it, it cannot be. */
  successor?: Successor;
}

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
  readonly #server: Server;
  readonly #lock: SocketLock;
  readonly #successor: Successor | undefined;
  #stopping: Promise<void> | undefined;
  readonly #stopped = Promise.withResolvers<void>();

  private constructor(
    options: DaemonOptions,
    lock: SocketLock,
    datapath: Datapath,
    configuration: Configuration,
  ) {
    this.socket = options.socket;
    this.datapath = datapath;
    this.#lock = lock;
    this.#configuration = configuration;
    this.#successor = options.successor;
    const api = new Api({
      datapath,
      configuration,
      names: options.names ?? new SystemNames(),
      version: packageVersion(),
      // The answer to the request that asks for it goes out first.
      shutdown: stopOptions => setImmediate(() => void this.stop(stopOptions)),
      reload: async () => {
        await this.#checkSuccessor();
        setImmediate(() => void this.#beginAnew());
      },
    });
    this.#server = createApiServer(api);
  }

  /**
   * Starts a daemon: takes the socket, restores the desired state, brings the data path up, then listens.
   * @throws Error whose message is one line; nothing is left behind then
   */
  static async start(options: DaemonOptions): Promise<Daemon> {
    const lock = await lockSocket(options.socket);
    let datapath: Datapath | undefined;
    try {
      const folder = options.stateFolder === undefined ? undefined : new StateFolder(options.stateFolder);
      datapath = await options.openDatapath();
      const configuration = new Configuration({ datapath, folder });
      configuration.restore();
      await datapath.start();
      const daemon = new Daemon(options, lock, datapath, configuration);
      await listenPrivately(daemon.#server, options.socket);
      endHandover(options.socket);
      return daemon;
    } catch (error) {
      endHandover(options.socket);
      // What a predecessor left goes on forwarding; the next attempt will find it.
      await datapath?.stop({ remove: datapath.status().adopted !== true });
      lock.release();
      throw error;
    }
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

  async #stop(options: ShutdownOptions): Promise<void> {
    if (options.successor) announceSuccessor(this.socket);
    const closed = new Promise(resolve => this.#server.close(resolve));
    this.#server.closeIdleConnections();
    // A client that neither asks nor leaves must not keep the daemon.
    const patience = setTimeout(() => this.#server.closeAllConnections(), 1000);
    await closed;
    clearTimeout(patience);
    try {
      await this.#configuration.close();
      await this.datapath.stop(options);
    } finally {
      this.#lock.release();
    }
  }
}

function packageVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}
