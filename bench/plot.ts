/**
 * Draws figures as SVG: `node bench/plot.ts FIGURES.json FOLDER`, where the figures are what `npm run bench --
 * xdp=FIGURES.json` wrote. One drawing for each thing that was varied more than once.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Measurement } from './xdp.ts';

interface Point {
  x: number;
  y: number;
}

const WIDTH = 640;
const HEIGHT = 360;
const MARGIN = { left: 60, right: 20, top: 40, bottom: 50 };
const COLOURS = ['#1b6ca8', '#c0392b', '#2e8b57', '#8e44ad', '#b9770e', '#34495e', '#16a085'];

/** A drawing of lines over a logarithmic x axis; y begins at 0. */
export function drawing(title: string, xLabel: string, lines: ReadonlyMap<string, readonly Point[]>): string {
  const points = [...lines.values()].flat();
  const greatest = Math.max(...points.map(({ y }) => y), 1);
  const step = niceStep(greatest);
  const top = Math.ceil(greatest / step) * step;
  const last = Math.max(...points.map(({ x }) => x), 10);
  const across = (x: number): number =>
    MARGIN.left + (Math.log10(x) / Math.log10(last)) * (WIDTH - MARGIN.left - MARGIN.right);
  const down = (y: number): number =>
    HEIGHT - MARGIN.bottom - (y / top) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="12">`,
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="white"/>`,
    text(WIDTH / 2, 20, title, 'middle', 14),
    text(WIDTH / 2, HEIGHT - 10, xLabel, 'middle'),
  ];
  for (let y = 0; y <= top; y += step) {
    parts.push(line(MARGIN.left, down(y), WIDTH - MARGIN.right, down(y), '#ddd'));
    parts.push(text(MARGIN.left - 6, down(y) + 4, `${y} ns`, 'end'));
  }
  for (let x = 1; x <= last; x *= 10) {
    parts.push(line(across(x), MARGIN.top, across(x), HEIGHT - MARGIN.bottom, '#eee'));
    parts.push(text(across(x), HEIGHT - MARGIN.bottom + 16, x.toLocaleString('en'), 'middle'));
  }
  for (const [index, [name, series]] of [...lines].entries()) {
    const colour = COLOURS[index % COLOURS.length] as string;
    const path = series.map(({ x, y }) => `${across(x).toFixed(1)},${down(y).toFixed(1)}`).join(' ');
    parts.push(`<polyline points="${path}" fill="none" stroke="${colour}" stroke-width="2"/>`);
    for (const { x, y } of series) {
      parts.push(`<circle cx="${across(x).toFixed(1)}" cy="${down(y).toFixed(1)}" r="3" fill="${colour}"/>`);
    }
    parts.push(
      `<text x="${MARGIN.left + 10}" y="${MARGIN.top + 14 + 16 * index}" fill="${colour}">${escaped(name)}</text>`,
    );
  }
  return `${parts.join('\n')}\n</svg>\n`;
}

/** Between five and ten lines across the drawing. */
function niceStep(greatest: number): number {
  const rough = greatest / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5].map(factor => factor * power).findLast(step => step <= rough) ?? power;
}

function text(x: number, y: number, content: string, anchor: string, size = 12): string {
  return `<text x="${x}" y="${y.toFixed(1)}" text-anchor="${anchor}" font-size="${size}">${escaped(content)}</text>`;
}

function line(x1: number, y1: number, x2: number, y2: number, colour: string): string {
  return `<line x1="${x1.toFixed(1)}" y1="${y1.toFixed(1)}" x2="${x2.toFixed(1)}" y2="${y2.toFixed(1)}" stroke="${colour}"/>`;
}

function escaped(content: string): string {
  return content.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
}

function main([file, folder]: readonly string[]): void {
  if (file === undefined || folder === undefined) {
    console.error('usage: node bench/plot.ts FIGURES.json FOLDER');
    process.exitCode = 2;
    return;
  }
  const measurements = JSON.parse(readFileSync(file, 'utf8')) as Measurement[];
  for (const by of ['flows', 'connections', 'services', 'servers']) {
    const lines = new Map<string, Point[]>();
    for (const { what, by: varied, count, net } of measurements) {
      if (varied !== by || net === undefined) continue;
      lines.set(what, [...(lines.get(what) ?? []), { x: count, y: net }]);
    }
    for (const [name, series] of lines) if (series.length < 2) lines.delete(name);
    if (lines.size === 0) continue;
    const title = `Nanoseconds a packet by ${by}`;
    writeFileSync(join(folder, `performance-${by}.svg`), drawing(title, by, lines));
  }
}

if (import.meta.main) main(process.argv.slice(2));
