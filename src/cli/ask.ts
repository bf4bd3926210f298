/** A question to the daemon whose failure is an Error in plain words. */
import { RequestError, request } from '../control/request.ts';
import { socketPath } from '../control/socket-path.ts';

/** @throws Error that says what is wrong and what to do */
export async function ask(method: 'GET' | 'POST', target: string, body?: unknown): Promise<unknown> {
  const path = socketPath();
  const answer = await request(path, method, target, body).catch((error: unknown) => {
    const code = error instanceof RequestError ? error.code : undefined;
    if (code === 'ENOENT' || code === 'ECONNREFUSED') {
      throw new Error(`no daemon listens on ${path}: start it with \`dirigo up\``);
    }
    if (code === 'EACCES') throw new Error(`${path} belongs to another user: run this as that user`);
    throw error;
  });
  if (answer.status !== 200) throw new Error((answer.body as { error: string }).error);
  return answer.body;
}
