/** Who stands between clients and servers, each in a host of a lab: Dirigo and what Linux has. */
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { removePinned } from '../src/datapath/xdp/fast-path.ts';
import type { NamespaceLab } from '../test/namespaces.ts';

const ROOT = join(import.meta.dirname, '..');

/** Who stands between clients and servers. */
export interface Balancer {
  name: string;
  start(): Promise<void>;
  stop(): Promise<void>;
}

/** The daemon on XDP in a host of the lab, with services added by `ipvsadm`. */
export class Dirigo implements Balancer {
  readonly name = 'Dirigo, direct routing';
  readonly #lab: NamespaceLab;
  readonly #host: string;
  readonly #interfaces: readonly string[];
  readonly #commands: readonly string[];
  readonly #environment: NodeJS.ProcessEnv;

  /** @param host where it runs */
  constructor(lab: NamespaceLab, host: string, interfaces: readonly string[], commands: readonly string[]) {
    this.#lab = lab;
    this.#host = host;
    this.#interfaces = interfaces;
    this.#commands = commands;
    this.#environment = {
      DIRIGO_BPF: `/sys/fs/bpf/${lab.prefix}`,
      DIRIGO_SOCKET: join(lab.folder, 'socket'),
    };
  }

  async start(): Promise<void> {
    const options = this.#interfaces.flatMap(name => ['--interface', name]);
    const parameters = ['up', '--datapath', 'xdp', ...options, '--no-state'];
    const daemon = this.#lab.start(this.#host, this.#environment, join(ROOT, 'bin/dirigo'), ...parameters);
    let errors = '';
    daemon.stderr?.on('data', text => {
      errors += text;
    });
    const ended = once(daemon, 'exit').then(() => {
      throw new Error(`the daemon ended: ${errors}`);
    });
    ended.catch(() => {});
    await Promise.race([once(daemon.stdout as NodeJS.EventEmitter, 'data'), ended]);
    for (const command of this.#commands) this.#run('ipvsadm', ...command.split(' '));
    // The ways to the servers have to be found.
    await sleep(500);
  }

  #run(tool: string, ...parameters: string[]): string {
    return execFileSync(join(ROOT, 'bin', tool), parameters, {
      env: { ...process.env, ...this.#environment },
      encoding: 'utf8',
    });
  }

  async stop(): Promise<void> {
    this.#run('dirigo', 'down');
    removePinned(this.#environment.DIRIGO_BPF as string);
  }
}

export class Nftables implements Balancer {
  readonly name = 'nftables DNAT';
  readonly #lab: NamespaceLab;
  readonly #host: string;
  readonly #rule: string;

  /** @param rule which packets, and what is done with them */
  constructor(lab: NamespaceLab, host: string, rule: string) {
    this.#lab = lab;
    this.#host = host;
    this.#rule = rule;
  }

  async start(): Promise<void> {
    const file = join(this.#lab.folder, 'rules.nft');
    writeFileSync(
      file,
      `table ip bench {
  chain pre {
    type nat hook prerouting priority -100
    ${this.#rule}
  }
}
`,
    );
    this.#lab.run(this.#host, 'nft', '-f', file);
  }

  async stop(): Promise<void> {
    this.#lab.run(this.#host, 'nft', 'delete', 'table', 'ip', 'bench');
    // What it tracked must not meet the next one.
    this.#lab.try(this.#host, 'conntrack', '-F');
  }
}

export class Haproxy implements Balancer {
  readonly name = 'HAProxy, TCP mode';
  readonly #lab: NamespaceLab;
  readonly #host: string;
  readonly #address: string;
  readonly #servers: readonly string[];
  #stop: (() => Promise<void>) | undefined;

  /** @param address where clients connect, with the port */
  constructor(lab: NamespaceLab, host: string, address: string, servers: readonly string[]) {
    this.#lab = lab;
    this.#host = host;
    this.#address = address;
    this.#servers = servers;
  }

  async start(): Promise<void> {
    const file = join(this.#lab.folder, 'haproxy.cfg');
    const servers = this.#servers.map((server, index) => `  server web${index} ${server}`).join('\n');
    writeFileSync(
      file,
      `global
  maxconn 8000
defaults
  mode tcp
  timeout connect 5s
  timeout client 10s
  timeout server 10s
listen web
  bind ${this.#address}
  balance roundrobin
${servers}
`,
    );
    const child = this.#lab.start(this.#host, {}, 'haproxy', '-db', '-f', file);
    let errors = '';
    child.stderr?.on('data', text => {
      errors += text;
    });
    const ended = once(child, 'exit');
    this.#stop = async () => {
      child.kill('SIGTERM');
      await ended;
    };
    await sleep(500);
    if (child.exitCode !== null) throw new Error(`haproxy ended: ${errors}`);
  }

  async stop(): Promise<void> {
    await this.#stop?.();
  }
}
