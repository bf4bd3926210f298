/** Programs attached to a cgroup (version 2): they see the sockets that the processes in it and below it opened. */
import { closeSync, openSync } from 'node:fs';
import { BpfLink, type BpfProgram, checked, libbpf, zeroed } from './libbpf.ts';

/** enum bpf_attach_type in linux/bpf.h */
export const CgroupHook = { sock_ops: 3, getpeername4: 29, getpeername6: 30 } as const;

export type CgroupHook = keyof typeof CgroupHook;

const BPF_F_QUERY_EFFECTIVE = 1;
/** The kernel allows as many for one cgroup (BPF_CGROUP_MAX_PROGS). */
const MAX_PROGRAMS = 64;

function withCgroup<Result>(path: string, work: (fd: number) => Result): Result {
  const fd = openSync(path, 'r');
  try {
    return work(fd);
  } finally {
    closeSync(fd);
  }
}

/**
 * Attaches a program beside those that are there.
 * @param path directory of the cgroup
 * @throws SystemError; EPERM means that somebody attached a program that tolerates no other, or that root is needed
 */
export function attachToCgroup(program: BpfProgram, path: string, hook: CgroupHook): BpfLink {
  return withCgroup(path, fd => {
    const link = libbpf().linkCreate(program.fd, fd, CgroupHook[hook], null) as number;
    return new BpfLink(
      checked(
        link,
        `attaching program ${program.name} to the cgroup ${path} (${hook})`,
        link === -1
          ? 'a program that tolerates no other is attached there or above, or this is not root'
          : '',
      ),
    );
  });
}

/** Numbers of the programs that run for the cgroup's sockets at a hook, those attached further up included. */
export function cgroupProgramIds(path: string, hook: CgroupHook): number[] {
  return withCgroup(path, fd => {
    const ids = zeroed(4 * MAX_PROGRAMS);
    const count = zeroed(4);
    count.view.setUint32(0, MAX_PROGRAMS, true);
    checked(
      libbpf().query(fd, CgroupHook[hook], BPF_F_QUERY_EFFECTIVE, null, ids.bytes, count.bytes),
      `asking for the programs of the cgroup ${path}`,
    );
    return Array.from({ length: count.view.getUint32(0, true) }, (_, at) => ids.view.getUint32(4 * at, true));
  });
}
