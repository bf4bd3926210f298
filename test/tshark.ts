/** The real tshark over frames of a test. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { CapturedFrame } from '../src/capture/frame.ts';
import { writePcapng } from '../src/capture/pcapng.ts';

/** The lines tshark prints about these frames with these options; throws with its own words if it fails. */
export function tsharkLines(frames: readonly CapturedFrame[], options: readonly string[]): string[] {
  // It reads from regular files only.
  const folder = mkdtempSync(join(tmpdir(), 'dirigo-tshark-'));
  try {
    const file = join(folder, 'frames.pcapng');
    writeFileSync(file, writePcapng(frames));
    const run = spawnSync('tshark', ['-r', file, ...options], { encoding: 'utf8', maxBuffer: 1 << 26 });
    if (run.status !== 0) throw new Error(`tshark ended with ${run.status}: ${run.stderr}`);
    return run.stdout.replace(/\n$/, '').split('\n');
  } finally {
    rmSync(folder, { recursive: true });
  }
}
