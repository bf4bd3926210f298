/** The session's hosts on the virtual LAN, with a director on lb01. Nothing of it needs a privilege or real time. */
import type { CapturedFrame } from '../capture/frame.ts';
import { nanoseconds } from '../capture/frame.ts';
import { Director } from '../ipvs/director.ts';
import type { HostAddresses } from '../ipvs/service-table.ts';
import type { NameService } from '../ipvsadm/names.ts';
import { runIpvsadm } from '../ipvsadm/run.ts';
import { buildCluster, type Cluster } from '../lan/cluster.ts';
import type { Host } from '../lan/host.ts';
import { formatMac } from '../wire/address.ts';
import { runDirigo } from './host-capture.ts';
import type { CommandOutput, Laboratory, Recording, RunningCapture } from './laboratory.ts';

export class VirtualLaboratory implements Laboratory {
  readonly description = 'on a virtual LAN';
  readonly datapath = 'in process';
  readonly clients: readonly string[];
  readonly cluster: Cluster;
  readonly director: Director;

  constructor(seed = 1) {
    this.cluster = buildCluster({ seed });
    this.clients = this.cluster.clients.map(host => host.name);
    const { lb01 } = this.cluster.hosts;
    this.director = new Director({
      network: lb01.network(),
      host: hostAddresses(lb01),
      random: () => this.cluster.simulation.random.uint32(),
    });
    lb01.attachDirector(this.director);
    lb01.commands.set('ipvsadm', (_host, argv, stdin) => {
      this.director.expire(this.cluster.simulation.now);
      return runIpvsadm(argv, stdin, this.director.administration, NUMERIC_NAMES);
    });
    for (const name of HOSTS_WITH_CAPTURE) this.#host(name).commands.set('dirigo', runDirigo);
  }

  run(host: string, commandLine: string): Promise<CommandOutput> {
    return this.cluster.simulation.settle(this.#host(host).run(commandLine));
  }

  async capture(host: string, interfaceName: string, filter: string, count: number): Promise<RunningCapture> {
    const command = `dirigo capture -i ${interfaceName} -f ${filter} -c ${count}`;
    const output = this.#host(host)
      .run(command)
      .then(({ stdout, stderr }) => stdout + stderr);
    return { command, output };
  }

  async record(host: string, interfaceName: string): Promise<Recording> {
    const frames: CapturedFrame[] = [];
    const untap = this.#interface(host, interfaceName).tap((time, _direction, frame) => {
      frames.push({ time: nanoseconds(time), bytes: frame.slice(), length: frame.length });
    });
    return {
      stop: async () => {
        untap();
        return frames;
      },
    };
  }

  mac(host: string, interfaceName: string): string {
    return formatMac(this.#interface(host, interfaceName).mac);
  }

  accessLogPath(): string {
    return '/var/log/nginx/access.log';
  }

  async accessLog(host: string): Promise<string[]> {
    const { stdout } = await this.run(host, `cat ${this.accessLogPath()}`);
    return stdout.trimEnd().split('\n');
  }

  async sleep(seconds: number): Promise<void> {
    const { simulation } = this.cluster;
    simulation.run(simulation.now + seconds * 1000);
  }

  async close(): Promise<void> {}

  #host(name: string): Host {
    const host = this.cluster.host(name);
    if (!host) throw new Error(`there is no host ${name} in the virtual LAN`);
    return host;
  }

  #interface(host: string, name: string) {
    const found = this.#host(host).interfaceNamed(name);
    if (!found) throw new Error(`${host} has no interface ${name}`);
    return found;
  }
}

const HOSTS_WITH_CAPTURE = ['client', 'lb01', 'lb02', 'web01', 'web02', 'db01', 'm01'];

/** The virtual LAN has no name service: numbers only. */
const NUMERIC_NAMES: NameService = {
  servicePort: () => undefined,
  serviceName: () => undefined,
  hostAddress: () => undefined,
  hostName: () => undefined,
};

/** What the checks of `ipvsadm` ask of a host of the virtual LAN. */
function hostAddresses(host: Host): HostAddresses {
  return {
    isLocal: address => host.isLocal(address),
    isBroadcast: address =>
      host.interfaces.some(each => each.addresses.some(own => isBroadcastOf(own, address))),
    interfaceMtu: name => host.interfaceNamed(name)?.mtu,
  };
}

/** True for the last address of the IPv4 network that `own` is in; point-to-point networks have none. */
function isBroadcastOf(own: { address: Uint8Array; prefix: number }, address: Uint8Array): boolean {
  if (address.length !== 4 || own.address.length !== 4 || own.prefix > 30) return false;
  const number = (bytes: Uint8Array): number => new DataView(bytes.buffer, bytes.byteOffset).getUint32(0);
  const hosts = 0xffffffff >>> own.prefix;
  return (number(own.address) | hosts) >>> 0 === number(address);
}
