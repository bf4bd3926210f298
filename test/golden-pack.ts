/** Packs the recordings of `../shared/oracle/golden` into `test/golden`: `node test/golden-pack.ts`. */
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { brotliCompressSync, constants } from 'node:zlib';
import { encodingOf, PACKED, sharedRecordings } from './golden.ts';

const shared = sharedRecordings();
if (!shared) {
  console.error('golden-pack: there are no recordings beside this clone (../shared/oracle/golden)');
  process.exit(1);
}
for (const folder of readdirSync(shared).filter(name => statSync(join(shared, name)).isDirectory())) {
  const files: Record<string, string> = {};
  // The captures repeat the frames of the JSON beside them: those of one folder are enough to read captures with.
  const wanted = folder === 'rewrite' ? /\.(jsonl?|pcap)$/ : /\.jsonl?$/;
  const names = readdirSync(join(shared, folder)).filter(name => wanted.test(name));
  for (const name of names.sort()) files[name] = readFileSync(join(shared, folder, name), encodingOf(name));
  const text = Buffer.from(JSON.stringify(files));
  const packed = brotliCompressSync(text, {
    params: { [constants.BROTLI_PARAM_LGWIN]: 24, [constants.BROTLI_PARAM_SIZE_HINT]: text.length },
  });
  writeFileSync(join(PACKED, `${folder}.json.br`), packed);
}
