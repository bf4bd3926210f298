/** Configurations drawn at random, and edits of them, for property tests. */
import fc from 'fast-check';
import { VirtualDatapath } from '../datapath/virtual.ts';
import type { Director } from '../ipvs/director.ts';
import { NO_NAMES } from '../ipvsadm/name-files.ts';
import { runIpvsadm } from '../ipvsadm/run.ts';
import { Configuration, type ConfigurationOptions } from './configuration.ts';

const SERVICES = [
  '-t 10.0.0.3:80',
  '-t 10.0.0.3:443',
  '-u 10.0.0.3:53',
  '-t [2001:db8::3]:80',
  '-f 1',
  '-f 2 -6',
];
const METHODS = ['-g', '-m', '-b', '-i', '-i --tun-type gue --tun-port 6080', '-i --tun-type gre --tun-csum'];

const service = fc.constantFrom(...SERVICES);

function server(of: string): fc.Arbitrary<string> {
  const isIpv6 = of.includes('[') || of.includes('-6');
  return fc
    .tuple(fc.integer({ min: 1, max: 4 }), fc.constantFrom(8080, 8081))
    .map(([last, port]) => (isIpv6 ? `-r [2001:db8::${last}0]:${port}` : `-r 10.0.0.${last}0:${port}`));
}

/** A line of `ipvsadm`, or of a setting; many are refused for what is or is not there yet. */
const line: fc.Arbitrary<string> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc
      .tuple(
        fc.constantFrom('-A', '-E'),
        service,
        fc.constantFrom('rr', 'wrr', 'wlc', 'sh -b sh-port'),
        fc.constantFrom('', ' -p 60', ' -p 300'),
        fc.constantFrom('', '', ' -j enable', ' -j disable'),
      )
      .map(
        ([command, key, scheduler, persistence, proxy]) =>
          `${command} ${key} -s ${scheduler}${persistence}${proxy}`,
      ),
  },
  { weight: 1, arbitrary: service.map(key => `-D ${key}`) },
  {
    weight: 6,
    arbitrary: service.chain(key =>
      fc
        .tuple(
          fc.constantFrom('-a', '-a', '-e'),
          server(key),
          fc.constantFrom(...METHODS),
          fc.nat(5),
          fc.constantFrom('', ' -x 10 -y 5'),
        )
        .map(
          ([command, rip, method, weight, more]) => `${command} ${key} ${rip} ${method} -w ${weight}${more}`,
        ),
    ),
  },
  // Those with direct routing or a tunnel have the service's port.
  {
    weight: 2,
    arbitrary: service.chain(key =>
      server(key).map(rip => `-d ${key} ${rip.replace(/:80(80|81)$/, portOf(key))}`),
    ),
  },
  { weight: 1, arbitrary: fc.constantFrom('-C', '--set 30 5 60', '--set 900 120 300') },
  {
    weight: 1,
    arbitrary: fc.constantFrom(
      '--start-daemon backup',
      '--stop-daemon backup',
      '--start-daemon master --syncid 3',
    ),
  },
  {
    weight: 1,
    arbitrary: fc.constantFrom(
      'setting conn_reuse_mode 0',
      'setting conn_reuse_mode 1',
      'setting sloppy_tcp 1',
    ),
  },
);

function portOf(key: string): string {
  return /:([0-9]+)$/.exec(key)?.[0] ?? ':8080';
}

/** The lines of one edit. */
export const edit: fc.Arbitrary<string[]> = fc.array(line, { minLength: 1, maxLength: 8 });
export const edits: fc.Arbitrary<string[][]> = fc.array(edit, { minLength: 1, maxLength: 8 });

/** Does lines to a director; those it refuses change nothing. */
export function perform(director: Director, lines: readonly string[]): void {
  for (const each of lines) {
    const words = each.split(' ');
    if (words[0] === 'setting') director.set(words[1] as string, words[2] as string);
    else runIpvsadm(words, '', director.administration, NO_NAMES);
  }
}

/** A configuration of a director without a wire. */
export function configure(options: Omit<ConfigurationOptions, 'datapath'> = {}): {
  director: Director;
  configuration: Configuration;
} {
  const datapath = new VirtualDatapath();
  const configuration = new Configuration({ ...options, datapath });
  configuration.restore();
  return { director: datapath.director, configuration };
}

/** What is thrown by an edit that gives up halfway. */
export class GivenUp extends Error {}
