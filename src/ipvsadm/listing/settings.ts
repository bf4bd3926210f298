/** `ipvsadm -L --timeout` and `-L --daemon`. */
import type { SyncDaemon, Timeouts } from '../../ipvs/specification.ts';

export function listTimeouts(timeouts: Timeouts): string {
  return `Timeout (tcp tcpfin udp): ${timeouts.tcp} ${timeouts.tcpFin} ${timeouts.udp}\n`;
}

/** A line for each running synchronisation daemon, nothing without one. */
export function listDaemons(daemons: readonly SyncDaemon[]): string {
  return daemons
    .map(
      daemon =>
        `${daemon.role} sync daemon (mcast=${daemon.interfaceName}, syncid=${daemon.syncId}, ` +
        `maxlen=${daemon.maximumLength}, group=${daemon.group}, port=${daemon.port}, ttl=${daemon.ttl})\n`,
    )
    .join('');
}
