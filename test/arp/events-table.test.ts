import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { eventsTable } from './events-table.ts';

test("docs/arp.md shows the guard's events as they are", () => {
  const page = readFileSync(new URL('../../docs/arp.md', import.meta.url), 'utf8');
  assert.ok(page.includes(eventsTable()), 'the table differs: node test/arp/events-table.ts prints it');
});
