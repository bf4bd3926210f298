/** The command `ipvsadm`, as the program of that name sends it. */
import { type IpvsadmResult, isListing, runIpvsadm } from '../../ipvsadm/run.ts';
import { withNames } from '../names.ts';
import { peerText } from '../peer.ts';
import { list, object, optional, text, wholeNumber } from '../schema.ts';
import { type Route, type RouteEnvironment, route, serverOf } from './route.ts';

/** Letters of what a command reads: a restore of 100,000 lines fits several times. */
const LONGEST_INPUT = 32 * 1024 * 1024;

export function ipvsadmRoutes(environment: RouteEnvironment): Route[] {
  const { configuration, names, log } = environment;
  return [
    route({
      method: 'POST',
      path: '/ipvsadm',
      summary: 'Run an ipvsadm command line',
      description: 'What it changed is on disk before the answer goes out.',
      body: object(
        {
          argv: list(text(), { description: 'The words after the command.', examples: [['-L', '-n']] }),
          stdin: optional(text({ maxLength: LONGEST_INPUT, description: 'What `-R` reads.' })),
        },
        { title: 'Command' },
      ),
      answer: object(
        {
          status: wholeNumber(0, 255, { description: 'Exit status.' }),
          stdout: text(),
          stderr: text(),
        },
        { title: 'CommandResult', description: 'What the command printed and returned.' },
      ),
      handle: async ({ body: { argv, stdin = '' }, peer }) => {
        if (isListing(argv)) return listing(environment, argv);
        const command = ['ipvsadm', ...argv].join(' ');
        const before = configuration.revision;
        const result = await configuration.edit(command, () => {
          names.refresh();
          return withNames(names, () => runIpvsadm(argv, stdin, serverOf(environment), names));
        });
        // Changes are logged as such; this is what changed nothing: refused, or counters zeroed.
        if (configuration.revision === before) {
          log.info('ran', { by: peerText(peer), command, status: result.status });
        }
        return result;
      },
    }),
  ];
}

/** Names of addresses cost time, so a listing is made with those at hand, and again if that left some open. */
async function listing(environment: RouteEnvironment, argv: readonly string[]): Promise<IpvsadmResult> {
  const { names } = environment;
  const run = (): IpvsadmResult => runIpvsadm(argv, '', serverOf(environment), names);
  names.refresh();
  const result = await withNames(names, run);
  return (await names.lookUpWanted()) ? run() : result;
}
