import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ConnectionKey, hashKey } from './connection-key.ts';
import { CONNECTION_BYTES, ConnectionFlag, ConnectionTable, makeConnectionMemory } from './connections.ts';
import { DestinationField, DestinationTable, Forwarding } from './destinations.ts';
import { BUCKET_BYTES, bucketCount } from './slot-index.ts';

/** A table with one real server, 10.0.0.7, as destination 0. */
function makeTable(capacity: number, memory = makeConnectionMemory(capacity)): ConnectionTable {
  const destinations = new DestinationTable(4);
  const server = destinations.allocate();
  destinations.bytes.set([10, 0, 0, 7], server * 64 + DestinationField.address);
  return new ConnectionTable({ capacity, destinations, memory, seed: 0x12345678 });
}

function keyOf(client: number, port: number, flags = 0): ConnectionKey {
  const key = new ConnectionKey();
  key.client0 = client | 0;
  key.virtual0 = 0x0300000a;
  key.ports = (port & 0xffff) | (0x5000 << 16);
  key.protocol = 6;
  key.flags = flags;
  return key;
}

function enter(table: ConnectionTable, key: ConnectionKey, flags = 0, expires = 1000): number {
  const slot = table.allocate(key, flags);
  if (slot < 0) return slot;
  table.setDestination(slot, 0, 0x901f);
  table.setExpires(slot, expires);
  return table.publish(slot) ? slot : -1;
}

test('what was entered is found until it is removed, and nothing else is', () => {
  const operation = fc.record({
    kind: fc.constantFrom('enter', 'remove', 'find'),
    client: fc.integer({ min: 0, max: 40 }),
    port: fc.integer({ min: 0, max: 3 }),
    flags: fc.constantFrom(0, ConnectionFlag.template, ConnectionFlag.ipv6),
  });
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 400 }), operations => {
      const table = makeTable(512);
      const model = new Map<string, number>();
      for (const { kind, client, port, flags } of operations) {
        const name = `${client} ${port} ${flags}`;
        const key = keyOf(client, port, flags);
        const known = model.get(name);
        assert.equal(table.find(key, 0), known ?? -1);
        if (kind === 'enter' && known === undefined) model.set(name, enter(table, key));
        if (kind === 'remove' && known !== undefined) {
          table.remove(known);
          model.delete(name);
        }
        assert.equal(table.size, model.size);
      }
      for (const [name, slot] of model) {
        const [client, port, flags] = name.split(' ').map(Number) as [number, number, number];
        assert.equal(table.find(keyOf(client, port, flags), 0), slot);
      }
    }),
  );
});

test('a table takes as many connections as it promises, and refuses the next', () => {
  for (const capacity of [1, 7, 1000, 65536]) {
    const table = makeTable(capacity);
    for (let count = 0; count < capacity; count++) {
      assert.ok(
        enter(table, keyOf(Math.imul(count, 2654435761), count)) >= 0,
        `connection ${count} of ${capacity}`,
      );
    }
    assert.equal(table.size, capacity);
    assert.equal(table.allocate(keyOf(1, 1), 0), -1);
  }
});

test('entries that share a bucket move to their other one', () => {
  // Of the keys whose first bucket is 0, sixteen times what the bucket holds.
  const capacity = 4096;
  const table = makeTable(capacity);
  const mask = bucketCount(capacity) - 1;
  const slots = new Map<number, number>();
  for (let client = 1; slots.size < 128; client++) {
    const key = keyOf(client, 1);
    if ((hashKey(key, table.seed) & mask) !== 0) continue;
    const slot = enter(table, key);
    if (slot < 0) break;
    slots.set(client, slot);
  }
  assert.ok(slots.size >= 64, `only ${slots.size} fitted`);
  for (const [client, slot] of slots) assert.equal(table.find(keyOf(client, 1), 0), slot);
});

test('a connection whose time has come is not found, before and after the clock wraps', () => {
  for (const now of [5, 0x7ffffff0, 0xfffffff0]) {
    const table = makeTable(16);
    const slot = enter(table, keyOf(1, 1), 0, (now + 100) | 0);
    assert.equal(table.find(keyOf(1, 1), (now + 99) | 0), slot);
    assert.equal(table.find(keyOf(1, 1), (now + 100) | 0), -1);
    assert.equal(table.find(keyOf(1, 1), (now + 0x0fffffff) | 0), -1);
  }
});

test('the longest persistence lies ahead at 250 and 1000 ticks a second', () => {
  for (const hz of [250, 1000]) {
    const table = makeTable(16);
    const expires = (77 + 2_678_400 * hz) | 0;
    const slot = enter(table, keyOf(1, 1), 0, expires);
    assert.equal(table.find(keyOf(1, 1), 77), slot);
  }
});

test('replies of NAT find their connection by the server and its port', () => {
  const table = makeTable(64);
  const slot = enter(table, keyOf(0x0100000a, 0x1234), Forwarding.masq | ConnectionFlag.replies);
  const reply = new ConnectionKey();
  reply.client0 = 0x0100000a;
  reply.virtual0 = 0x0700000a;
  reply.ports = 0x1234 | (0x901f << 16);
  reply.protocol = 6;
  assert.equal(table.findReply(reply, 0), slot);
  reply.ports = 0x1234 | (0x9020 << 16);
  assert.equal(table.findReply(reply, 0), -1);
  table.remove(slot);
  reply.ports = 0x1234 | (0x901f << 16);
  assert.equal(table.findReply(reply, 0), -1);
});

test('a template keeps its connections but not its clients when its ports change', () => {
  const table = makeTable(64);
  const key = keyOf(1, 0, ConnectionFlag.template);
  const slot = enter(table, key);
  assert.ok(table.changePorts(slot, 0xffff << 16));
  assert.equal(table.find(key, 0), -1);
  key.ports = 0xffff << 16;
  assert.equal(table.find(key, 0), slot);
  assert.equal(table.size, 1);
});

test('a successor finds what is in the memory, and reuses its holes', () => {
  const memory = makeConnectionMemory(32);
  const before = makeTable(32, memory);
  const slots = [1, 2, 3, 4].map(client => enter(before, keyOf(client, 1)));
  before.remove(slots[1] as number);
  const after = makeTable(32, memory);
  assert.equal(after.size, 3);
  assert.equal(after.find(keyOf(3, 1), 0), slots[2]);
  assert.equal(after.find(keyOf(2, 1), 0), -1);
  assert.equal(enter(after, keyOf(9, 1)), slots[1]);
});

test('a record is 64 bytes, a bucket 32, and a capacity out of range is refused', () => {
  assert.equal(CONNECTION_BYTES, 64);
  assert.equal(BUCKET_BYTES, 32);
  for (const capacity of [0, -1, 1.5, 0x1000000]) {
    assert.throws(() => makeTable(capacity, makeConnectionMemory(1)), /capacity .* is not in 1\.\.16777214/);
  }
});
