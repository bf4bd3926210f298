/**
 * `ipvsadm`: hands its arguments to the daemon and prints what comes back. The grammar is the daemon's; this file
 * loads as little as possible, because scripts call it by the hundred.
 */
import { RequestError, request } from '../control/request.ts';
import { socketPath } from '../control/socket-path.ts';

interface Result {
  status: number;
  stdout: string;
  stderr: string;
}

/** True if the command line is a restore, the only command that reads standard input: its first option says so. */
function readsInput(words: readonly string[]): boolean {
  const first = words.find(word => word.startsWith('-') && word !== '-');
  return first === '--restore' || first?.startsWith('-R') === true;
}

async function readInput(): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

/** What the real one says without its kernel module, or without the right to use it. */
function unreachable(error: unknown): Result {
  const reason = error instanceof Error ? error.message : String(error);
  const code = error instanceof RequestError ? error.code : undefined;
  let stderr = `Can't initialize ipvs: ${reason}\n`;
  if (code === 'EACCES' || code === 'EPERM') {
    stderr =
      "Can't initialize ipvs: Permission denied (you must be root)\n" +
      'Are you sure that IP Virtual Server is built in the kernel or as module?\n';
  } else if (code === 'ENOENT' || code === 'ECONNREFUSED') {
    stderr =
      "Can't initialize ipvs: Protocol not available\n" +
      `No daemon listens on ${socketPath()}: start it with \`dirigo up'\n`;
  }
  return { status: 2, stdout: '', stderr };
}

async function run(words: readonly string[]): Promise<Result> {
  try {
    const stdin = readsInput(words) ? await readInput() : '';
    const { status, body } = await request(socketPath(), 'POST', '/ipvsadm', { argv: words, stdin });
    if (status === 200) return body as Result;
    return { status: 2, stdout: '', stderr: `dirigo: ${(body as { error: string }).error}\n` };
  } catch (error) {
    return unreachable(error);
  }
}

/** Runs `ipvsadm WORDS` and leaves its status for the process to end with. */
export async function ipvsadm(words: readonly string[]): Promise<void> {
  const { status, stdout, stderr } = await run(words);
  process.exitCode = status;
  // `ipvsadm -Ln | head -1` closes the pipe early; that is no error.
  process.stdout.on('error', () => process.exit(status));
  if (stdout !== '') process.stdout.write(stdout);
  if (stderr !== '') process.stderr.write(stderr);
}

if (import.meta.main) await ipvsadm(process.argv.slice(2));
