/** The XDP program with a director behind it does what the director does alone, whatever comes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { buildBpf } from '../../bpf/build.ts';
import { withTestBed } from '../../src/datapath/xdp/test-bed.ts';
import { missing } from '../requirements.ts';
import { type Failure, failureText, playCase } from './case.ts';
import { METHODS } from './configuration.ts';
import { CAPACITY, DESTINATIONS, HZ } from './paths.ts';
import { INTERFACES } from './world.ts';

/** Packets of a case. */
const CASE = 1000;
const PACKETS = Number(process.env.DIRIGO_FUZZ_PACKETS ?? 1_000_000);
const FIRST_SEED = Number(process.env.DIRIGO_FUZZ_SEED ?? 1);
/** Packets from which on the program's share says something. */
const ENOUGH_TO_SAY = 50_000;
/** Failures that are collected before the test gives up. */
const ENOUGH = 1;

test('the program and the director agree', { skip: missing('root', 'clang', 'ip') }, context => {
  const object = buildBpf();
  const failures: Failure[] = [];
  let packets = 0;
  let sent = 0;
  let errorsSent = 0;
  withTestBed(
    { interfaces: INTERFACES, capacity: CAPACITY, destinationCapacity: DESTINATIONS, hz: HZ, object },
    bed => {
      for (let seed = FIRST_SEED; packets < PACKETS && failures.length < ENOUGH; seed++) {
        const result = playCase(bed, seed, Math.min(CASE, PACKETS - packets), METHODS);
        packets += result.packets;
        sent += result.sent;
        errorsSent += result.errorsSent;
        if (result.failure) failures.push(result.failure);
      }
    },
  );
  context.diagnostic(
    `${packets} packets, ${sent} of them handled by the program alone, among them ${errorsSent} ICMP errors`,
  );
  assert.equal(failures.length, 0, `\n${failures.map(failureText).join('\n\n')}`);
  // What the program does not do, it cannot do wrong.
  if (packets < ENOUGH_TO_SAY) return;
  assert.ok(sent > packets / 8, `the program handled only ${sent} of ${packets} packets`);
  assert.ok(errorsSent > packets / 300, `the program handled only ${errorsSent} ICMP errors`);
});
