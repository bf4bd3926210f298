/** What `dirigo status` and metrics say of the XDP data path. */
import type { DatapathStatus } from '../datapath.ts';
import { driverName } from '../ffi/libc.ts';
import { type FastPath, hasPrivateMounts } from './fast-path.ts';
import type { PacketSockets } from './packet-sockets.ts';

/** @param running false: nothing is open yet, or any more */
export function fastPathStatus(fastPath: FastPath, running: boolean): DatapathStatus {
  const attached = running ? fastPath.attached() : [];
  const modes = new Set(attached.map(({ mode }) => mode));
  return {
    mode: modes.size === 1 ? ([...modes][0] as string) : [...modes],
    interfaces: attached.map(({ name, mode }) => `${name} ${mode}`),
    program: running ? fastPath.program.id : 0,
    directory: fastPath.directory,
    adopted: fastPath.adopted,
    capacity: fastPath.capacity,
    destinations: fastPath.destinationCapacity,
    tableBytes: running ? fastPath.memory() : 0,
    hz: running ? fastPath.control.hz : 0,
    fastPath: running ? fastPath.reasons() : {},
  };
}

/** The queues between the program and the director: what went through, what waits, what was lost and why. */
export function queueStatus(sockets: PacketSockets | undefined): DatapathStatus {
  const statistics = sockets?.statistics();
  return {
    zeroCopy: sockets?.zeroCopy ?? false,
    received: statistics?.received ?? 0,
    transmitted: statistics?.transmitted ?? 0,
    queues:
      statistics?.queues.map(({ interfaceName, queue, received, waiting, capacity, dropped }) => ({
        interface: interfaceName,
        queue,
        received,
        waiting,
        of: capacity,
        dropped,
      })) ?? [],
    queueDrops: statistics?.drops ?? {},
  };
}

/** What an operator should know of the interfaces. */
export function fastPathWarnings(fastPath: FastPath): string[] {
  const warnings: string[] = [];
  if (hasPrivateMounts()) {
    warnings.push(
      `${fastPath.directory} is seen by this process's mount namespace only, and may end with it`,
    );
  }
  for (const { name, mode } of fastPath.attached()) {
    const isVeth = driverName(name) === 'veth';
    if (mode === 'native' && isVeth) {
      warnings.push(
        `${name} is a veth: its other end needs \`ethtool -K … gro on\`, and \`tx off\`, as that of all interfaces before it: else what is forwarded vanishes or has wrong checksums`,
      );
    }
    if (mode === 'generic') {
      warnings.push(
        `${name} runs the program in the network stack (generic): about half as fast as in a driver`,
      );
    }
  }
  return warnings;
}
