/**
 * Packs recordings: `node test/recorded/pack.ts NAME FOLDER [SECOND]` writes `NAME.json.br` beside this file from the
 * scenarios in FOLDER. SECOND holds the same from a second boot: words that differ are marked as random (`varies`).
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { brotliCompressSync, constants } from 'node:zlib';

interface Recording {
  steps: { out?: { hex: string; varies?: number[] }[] }[];
}

const [name, folder, second] = process.argv.slice(2);
if (!name || !folder) {
  console.error('pack: node test/recorded/pack.ts NAME FOLDER [SECOND]');
  process.exit(2);
}
const files: Record<string, string> = {};
for (const file of readdirSync(folder)
  .filter(entry => entry.endsWith('.json'))
  .sort()) {
  const recording = read(join(folder, file));
  if (second) markRandomWords(recording, read(join(second, file)));
  files[file] = JSON.stringify(recording);
}
const text = Buffer.from(JSON.stringify(files));
const packed = brotliCompressSync(text, {
  params: { [constants.BROTLI_PARAM_LGWIN]: 24, [constants.BROTLI_PARAM_SIZE_HINT]: text.length },
});
writeFileSync(new URL(`${name}.json.br`, import.meta.url), packed);

function read(path: string): Recording {
  return JSON.parse(readFileSync(path, 'utf8')) as Recording;
}

function markRandomWords(recording: Recording, other: Recording): void {
  for (const [step, { out = [] }] of recording.steps.entries()) {
    for (const [index, frame] of out.entries()) {
      const again = other.steps[step]?.out?.[index]?.hex ?? '';
      const varies: number[] = [];
      for (let at = 0; at < frame.hex.length; at += 4) {
        if (frame.hex.slice(at, at + 4) !== again.slice(at, at + 4)) varies.push(at / 2);
      }
      if (varies.length > 0) frame.varies = varies;
    }
  }
}
