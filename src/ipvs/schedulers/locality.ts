import type { LocalityServer, Plan, Scheduler, SchedulerServer } from '../plan.ts';

/** lblc and lblcr: what they remember survives every change of the servers. */
export function localityScheduler(name: string, replicated: boolean): Scheduler {
  return {
    name,
    compile: (servers, _flags, _change, previous) => {
      const kept =
        previous?.kind === 'locality' && previous.replicated === replicated
          ? previous
          : { servers: [], departed: [], cache: new Map(), lastCheck: -1, checks: 0 };
      const known = new Map([...kept.servers, ...kept.departed].map(server => [server.identity, server]));
      const current = servers.map(server => recognise(server, known));
      const departed = remembered(kept.cache).filter(server => known.has(server.identity));
      for (const server of departed) server.index = -1;
      return {
        kind: 'locality',
        replicated,
        destinations: Int32Array.from(servers, server => server.index),
        servers: current,
        departed,
        cache: kept.cache,
        lastCheck: kept.lastCheck,
        checks: kept.checks,
      };
    },
  };
}

/** The cache's own object of a server, with its present index and weight; taken out of `known`. */
function recognise(server: SchedulerServer, known: Map<string, LocalityServer>): LocalityServer {
  const identity = `${Array.from(server.address, byte => byte.toString(16).padStart(2, '0')).join('')}:${server.port}`;
  const found = known.get(identity) ?? { identity, index: -1, weight: 0 };
  known.delete(identity);
  found.index = server.index;
  found.weight = server.weight;
  return found;
}

/** Every server some entry names. */
function remembered(cache: Extract<Plan, { kind: 'locality' }>['cache']): LocalityServer[] {
  const servers = new Set<LocalityServer>();
  for (const entry of cache.values()) for (const server of entry.servers) servers.add(server);
  return [...servers];
}
