/** Writes docs/settings.md from src/ipvs/settings.ts: `node test/settings-page.ts`. */
import { readFileSync, writeFileSync } from 'node:fs';
import { DEFAULT_SETTINGS, SETTING_RANGES, settingName } from '../src/ipvs/settings.ts';

const PAGE = new URL('../docs/settings.md', import.meta.url);

/** The page, from the defaults, the ranges and the comments of the interface. */
export function settingsPage(): string {
  const source = readFileSync(new URL('../src/ipvs/settings.ts', import.meta.url), 'utf8');
  const start = source.indexOf('export interface Settings {');
  const body = source.slice(start, source.indexOf('\n}', start));
  const meaning = new Map<string, string>();
  let comment = '';
  for (const match of body.matchAll(/\/\*\*([\s\S]*?)\*\/|^ {2}(\w+): number;/gm)) {
    if (match[1] !== undefined)
      comment = match[1]
        .replace(/\n\s*\*/g, ' ')
        .replace(/\s+/g, ' ')
        .trim();
    else if (match[2] !== undefined) meaning.set(match[2], comment.replaceAll('|', '\\|'));
  }
  const rows = Object.entries(DEFAULT_SETTINGS).map(([name, value]) => {
    const [least, most] = SETTING_RANGES[settingName(name)];
    return `| \`${name}\` | ${value} | ${least}..${most} | ${meaning.get(name) ?? ''} |`;
  });
  return `# Settings

The switches of the virtual server, with the names and defaults of the kernel's \`/proc/sys/net/ipv4/vs\` (those of FULLNAT
and the SYN proxy with Alibaba's and DPVS's names). \`dirigo setting\` shows them, \`dirigo setting NAME VALUE\` sets one at once; with
\`--state\` the daemon keeps them. This page is written from \`src/ipvs/settings.ts\` by \`node test/settings-page.ts\`.

| setting | default | values | meaning |
|---|---|---|---|
${rows.join('\n')}
`;
}

if (import.meta.main) writeFileSync(PAGE, settingsPage());
