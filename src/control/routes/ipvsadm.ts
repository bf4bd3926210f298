/** The command `ipvsadm`, as the program of that name sends it. */
import { type IpvsadmResult, isListing, runIpvsadm } from '../../ipvsadm/run.ts';
import { withNames } from '../names.ts';
import { list, object, optional, text, wholeNumber } from '../schema.ts';
import { type Route, type RouteEnvironment, route, serverOf } from './route.ts';

/** Letters of what a command reads: a restore of 100,000 lines fits several times. */
const LONGEST_INPUT = 32 * 1024 * 1024;

export function ipvsadmRoutes(environment: RouteEnvironment): Route[] {
  const { configuration, names } = environment;
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
      handle: ({ body: { argv, stdin = '' } }) => {
        if (isListing(argv)) return listing(environment, argv);
        return configuration.edit(['ipvsadm', ...argv].join(' '), () => {
          names.refresh();
          return withNames(names, () => runIpvsadm(argv, stdin, serverOf(environment), names));
        });
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
