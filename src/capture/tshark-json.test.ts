/** JSON in tshark's shape, against the real tshark. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sampleFrames } from '../../test/frames.ts';
import { missing } from '../../test/requirements.ts';
import { tsharkLines } from '../../test/tshark.ts';
import { Decoder } from './decode.ts';
import { tsharkJson } from './tshark-json.ts';

/** Where the two differ on purpose. */
const DIFFERENT: Readonly<Record<string, string>> = {
  'ip.checksum.status': 'tshark does not check these sums unless told to',
  'tcp.checksum.status': 'as above',
  'udp.checksum.status': 'as above',
  'sctp.checksum.status': 'as above',
  'data.data': 'tshark looks into payloads',
  'data.len': 'as above',
  'tcp.ack': 'of a segment without ACK; tshark says 0 then',
  'frame.interface_name': 'the frames of the test come from nowhere',
};

/** All values by field, however deep the field lies. */
function flatten(value: unknown, into: Map<string, unknown[]>): Map<string, unknown[]> {
  for (const [key, inner] of Object.entries(value as Record<string, unknown>)) {
    for (const each of Array.isArray(inner) ? inner : [inner]) {
      if (typeof each === 'object' && each !== null) flatten(each, into);
      else into.set(key, [...(into.get(key) ?? []), each]);
    }
  }
  return into;
}

test('the fields of JSON are those of tshark, written as tshark writes them', {
  skip: missing('tshark'),
}, () => {
  const frames = sampleFrames().map(({ frame }, index) => ({
    time: BigInt(index) * 1000n,
    bytes: frame,
    length: frame.length,
  }));
  const lines = tsharkLines(frames, ['-n', '-T', 'json', '--no-duplicate-keys']);
  const theirs = JSON.parse(lines.join('\n')) as object[];
  const decoder = new Decoder({ names: false });
  let compared = 0;
  for (const [index, frame] of frames.entries()) {
    const ours = tsharkJson(decoder.decode(frame, index + 1, frame.time), '1970-01-01');
    const known = flatten(theirs[index], new Map());
    for (const [field, values] of flatten(ours, new Map())) {
      const wanted = known.get(field);
      // What tshark does not have, or names in a way of its own.
      if (!wanted || field in DIFFERENT) continue;
      for (const value of values) {
        assert.ok(wanted.includes(value), `${field} of frame ${index + 1}: ${value}, tshark: ${wanted}`);
        compared++;
      }
    }
  }
  assert.ok(compared > 500, `only ${compared} values`);
});
