/**
 * How a daemon begins anew: the process executes itself again with the same arguments, so whoever supervises it sees one
 * process, and the version that is installed by then runs.
 */
import { execFile } from 'node:child_process';
import type { Successor } from '../control/daemon.ts';

/** Milliseconds that a check may take. */
const PATIENCE = 30_000;

/** What this process was started with, but for what concerns its beginning only. */
function words(): string[] {
  return [...process.execArgv, ...process.argv.slice(1).filter(word => word !== '--replace')];
}

/** The program that is installed now under the name of the one that runs. */
export const successor: Successor = {
  check: () =>
    new Promise((resolve, reject) => {
      execFile(process.execPath, [...words(), '--check'], { timeout: PATIENCE }, (error, _, stderr) => {
        if (!error) resolve();
        else reject(new Error(stderr.trim().replace(/^dirigo: /, '') || error.message));
      });
    }),
  begin() {
    process.execve?.(process.execPath, [process.execPath, ...words()], process.env);
    throw new Error(`Node ${process.version} cannot execute a program in its own place: restart the daemon`);
  },
};
