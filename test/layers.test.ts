import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('..', import.meta.url));

/** What each folder under `src` may import of the others; docs/architecture.md gives the reasons. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  wire: [],
  ipvs: ['wire'],
  arp: ['wire'],
  capture: ['wire'],
  ipvsadm: ['wire', 'ipvs'],
  lan: ['wire', 'ipvs', 'arp'],
  replay: ['wire', 'ipvs', 'ipvsadm', 'capture'],
  datapath: ['wire', 'ipvs', 'ipvsadm', 'capture'],
  guard: ['wire', 'arp', 'datapath'],
  control: ['wire', 'ipvs', 'ipvsadm', 'arp', 'capture', 'datapath', 'guard'],
  realserver: ['wire', 'datapath'],
  session: ['wire', 'ipvs', 'ipvsadm', 'capture', 'lan'],
  cli: [
    'wire',
    'ipvs',
    'arp',
    'ipvsadm',
    'capture',
    'lan',
    'replay',
    'datapath',
    'guard',
    'control',
    'realserver',
    'session',
  ],
};

/** Folders whose code runs in a browser too: nothing of Node, no packages. */
const PURE = new Set(['wire', 'ipvs', 'arp', 'capture', 'ipvsadm', 'lan', 'replay']);

/** Files of folders that may use Node in one place only. */
const NODE_ALLOWED: Readonly<Record<string, readonly string[]>> = {
  session: ['src/session/namespace-laboratory.ts'],
};

interface Import {
  file: string;
  target: string;
}

function importsOf(file: string): Import[] {
  const text = readFileSync(join(ROOT, file), 'utf8');
  const pattern = /^(?:import|(?:import|export|\}) (?:.* )?from) '([^']+)';$|\bimport\(\s*'([^']+)'/gm;
  return [...text.matchAll(pattern)].map(match => ({ file, target: (match[1] ?? match[2]) as string }));
}

const sources = globSync('src/**/*.ts', { cwd: ROOT }).filter(
  file => !file.endsWith('.test.ts') && !file.endsWith('.fixture.ts'),
);
const folderOf = (file: string): string => file.split('/')[1] as string;

test('every folder under src has a place in the layers', () => {
  for (const file of sources)
    assert.ok(folderOf(file) in MAY_IMPORT, `${file}: name its folder in this test`);
});

test('imports point down only', () => {
  const wrong: string[] = [];
  let checked = 0;
  for (const { file, target } of sources.flatMap(importsOf)) {
    if (!target.startsWith('.')) continue;
    checked++;
    const imported = relative(ROOT, join(ROOT, dirname(file), target));
    const from = folderOf(file);
    const to = folderOf(imported);
    if (to !== from && !MAY_IMPORT[from]?.includes(to)) wrong.push(`${file} imports ${imported}`);
  }
  assert.ok(checked > 100, `only ${checked} imports were found: the pattern is wrong`);
  assert.deepEqual(wrong, []);
});

test('what is pure imports neither Node nor packages', () => {
  const wrong: string[] = [];
  for (const { file, target } of sources.flatMap(importsOf)) {
    if (target.startsWith('.')) continue;
    const folder = folderOf(file);
    const restricted = PURE.has(folder) || (NODE_ALLOWED[folder] && !NODE_ALLOWED[folder].includes(file));
    if (restricted) wrong.push(`${file} imports ${target}`);
  }
  assert.deepEqual(wrong, []);
});

test('what is pure reads no clock and no chance of its own', () => {
  const wrong: string[] = [];
  for (const file of sources) {
    if (!PURE.has(folderOf(file))) continue;
    const text = readFileSync(join(ROOT, file), 'utf8').replace(/\/\*[\s\S]*?\*\/|\/\/[^\n]*/g, '');
    const found =
      /\b(Date\.now|new Date\(\)|performance\.now|process\.\w+|setTimeout|setInterval|Math\.random)\b/.exec(
        text,
      );
    if (found) wrong.push(`${file}: ${found[0]}`);
  }
  assert.deepEqual(wrong, []);
});
