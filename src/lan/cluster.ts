/**
 * The hosts of the first session: clients, a gateway, two directors, two web servers, a database and a management host
 * on two segments. Addresses for the VIP and kernel parameters are not set here; the session does that with commands.
 */
import { Host } from './host.ts';
import { HttpServer } from './http-server.ts';
import { Segment } from './segment.ts';
import { Simulation, type SimulationOptions } from './simulation.ts';

/** The virtual address of the cluster's web service. */
export const CLUSTER_VIP = '10.0.0.3';
/** The name it is known by. */
export const CLUSTER_NAME = 'blog.example.com';
const GATEWAY = '10.0.0.254';

/** A host of the cluster: the real LAN of the demonstration has the same ones. */
export interface HostPlan {
  name: string;
  /** Last octet of its addresses. */
  octet: number;
  eth0: string;
  /** MAC of eth1 in 172.16.1.0/24, for those that have one. */
  eth1?: string;
}

const PLANS: readonly HostPlan[] = [
  { name: 'client', octet: 1, eth0: '00:50:56:c0:00:08' },
  { name: 'gateway', octet: 254, eth0: '00:50:56:e1:eb:34' },
  { name: 'lb01', octet: 5, eth0: '00:0c:29:1a:05:51', eth1: '00:0c:29:1a:05:5b' },
  { name: 'lb02', octet: 6, eth0: '00:0c:29:1a:06:62', eth1: '00:0c:29:1a:06:6c' },
  { name: 'web01', octet: 7, eth0: '00:0c:29:3b:07:73', eth1: '00:0c:29:3b:07:7d' },
  { name: 'web02', octet: 8, eth0: '00:0c:29:3b:08:84', eth1: '00:0c:29:3b:08:8e' },
  { name: 'db01', octet: 51, eth0: '00:0c:29:c7:5d:d3', eth1: '00:0c:29:c7:5d:dd' },
  { name: 'm01', octet: 61, eth0: '00:0c:29:2e:aa:3e', eth1: '00:0c:29:2e:aa:48' },
];

/** Further clients: 10.0.0.101 to .110, named client101 and so on. */
const MORE_CLIENTS: readonly HostPlan[] = Array.from({ length: 10 }, (_, index) => ({
  name: `client${101 + index}`,
  octet: 101 + index,
  eth0: `00:50:56:c0:01:${(101 + index).toString(16)}`,
}));

/** Every host of the cluster. */
export const CLUSTER_PLAN: readonly HostPlan[] = [...PLANS, ...MORE_CLIENTS];

export type ClusterHostName = 'client' | 'gateway' | 'lb01' | 'lb02' | 'web01' | 'web02' | 'db01' | 'm01';

export interface Cluster {
  simulation: Simulation;
  /** 10.0.0.0/24. */
  lan: Segment;
  /** 172.16.1.0/24. */
  inner: Segment;
  hosts: Readonly<Record<ClusterHostName, Host>>;
  /** `client` and client101 to client110. */
  clients: readonly Host[];
  /** The web servers on web01 and web02. */
  servers: Readonly<Record<'web01' | 'web02', HttpServer>>;
  /** A host by its name, client105 for example. */
  host(name: string): Host | undefined;
}

/** Builds the cluster; the web servers serve `<h1>Nginx server 10.0.0.7 web01</h1>` and its like. */
export function buildCluster(options: SimulationOptions = {}): Cluster {
  const simulation = new Simulation(options);
  const lan = new Segment(simulation, 'lan');
  const inner = new Segment(simulation, 'inner');
  const byName = new Map<string, Host>();
  const build = (plan: HostPlan): Host => {
    const host = new Host(simulation, plan.name);
    host.addInterface({ name: 'eth0', mac: plan.eth0, segment: lan, addresses: [`10.0.0.${plan.octet}/24`] });
    if (plan.eth1) {
      const addresses = [`172.16.1.${plan.octet}/24`];
      host.addInterface({ name: 'eth1', mac: plan.eth1, segment: inner, addresses });
    }
    if (plan.name !== 'gateway') host.addRoute('default', GATEWAY);
    byName.set(plan.name, host);
    return host;
  };
  for (const plan of CLUSTER_PLAN) build(plan);
  for (const host of byName.values()) {
    for (const plan of CLUSTER_PLAN) host.names.set(plan.name, `10.0.0.${plan.octet}`);
    host.names.set(CLUSTER_NAME, CLUSTER_VIP);
  }
  const host = (name: ClusterHostName): Host => byName.get(name) as Host;
  host('gateway').sysctls.write('net/ipv4/ip_forward', '1');
  const serve = (name: 'web01' | 'web02', address: string): HttpServer => {
    const page = `<h1>Nginx server ${address} ${name}</h1>\n`;
    const server = new HttpServer(host(name), {
      virtualHosts: [{ serverName: CLUSTER_NAME, pages: { '/': page, '/index.html': page } }],
    });
    host(name).files.set('/var/log/nginx/access.log', () =>
      server.accessLog.map(line => `${line}\n`).join(''),
    );
    return server;
  };
  const hosts = {
    client: host('client'),
    gateway: host('gateway'),
    lb01: host('lb01'),
    lb02: host('lb02'),
    web01: host('web01'),
    web02: host('web02'),
    db01: host('db01'),
    m01: host('m01'),
  };
  return {
    simulation,
    lan,
    inner,
    hosts,
    clients: [hosts.client, ...MORE_CLIENTS.map(plan => byName.get(plan.name) as Host)],
    servers: { web01: serve('web01', '10.0.0.7'), web02: serve('web02', '10.0.0.8') },
    host: name => byName.get(name),
  };
}
