/** The end of the daemon, and what follows it. */
import type { StopOptions } from '../../datapath/datapath.ts';
import { RequestRefused } from '../refused.ts';
import { boolean, object, optional, text, wholeNumber } from '../schema.ts';
import { type Route, type RouteEnvironment, route } from './route.ts';

export interface ShutdownOptions extends StopOptions {
  /** Another daemon follows: who wants something meanwhile waits for it. */
  successor?: boolean;
}

export interface DaemonEnd {
  /** Stops the daemon once the answer is out. */
  shutdown(options: ShutdownOptions): void;
  /**
   * Makes sure that the daemon can begin anew, and does it once the answer is out.
   * @throws Error that says why it cannot; it goes on as it is then
   */
  reload(): Promise<void>;
}

const PID = wholeNumber(1, 2 ** 31 - 1);

export function endRoutes({ startedAt }: RouteEnvironment, { shutdown, reload }: DaemonEnd): Route[] {
  return [
    route({
      method: 'POST',
      path: '/shutdown',
      summary: 'Stop the daemon',
      body: object({
        remove: optional(
          boolean({
            default: false,
            description:
              'True: the data path goes too; false: what forwards by itself stays for the next daemon.',
          }),
        ),
        successor: optional(
          boolean({
            default: false,
            description: 'Another daemon follows: who asks meanwhile waits for it.',
          }),
        ),
      }),
      bodyMayBeMissing: true,
      answer: object({ pid: PID }, { description: 'The process that is about to end.' }),
      handle: ({ body }) => {
        const { remove = false, successor = false } = body ?? {};
        if (remove && successor) {
          throw new RequestRefused(
            400,
            'remove and successor exclude each other: a successor takes over what is there',
          );
        }
        shutdown({ remove, successor });
        return { pid: process.pid };
      },
    }),
    route({
      method: 'POST',
      path: '/reload',
      summary: 'Have the daemon begin anew, in the version that is installed',
      answer: object({ pid: PID, startedAt: text() }, { description: 'The daemon that is about to end.' }),
      refusals: { 409: 'It could not begin anew, and goes on as it is.' },
      handle: async () => {
        try {
          await reload();
        } catch (error) {
          throw new RequestRefused(
            409,
            `not reloaded, the daemon goes on as it is: ${(error as Error).message}`,
          );
        }
        return { pid: process.pid, startedAt };
      },
    }),
  ];
}
