/** The layouts written down in TypeScript against those in the compiled XDP program. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { readBtf, type StructLayout } from '../../../bpf/btf.ts';
import { buildBpf } from '../../../bpf/build.ts';
import { missing } from '../../../test/requirements.ts';
import { CONNECTION_BYTES, ConnectionField, EXTENSION_WORDS, Extension } from '../../ipvs/connections.ts';
import { DESTINATION_BYTES, DestinationField } from '../../ipvs/destinations.ts';
import { TABLE_STATE_BYTES, TableState } from '../../ipvs/free-slots.ts';
import { BUCKET_BYTES } from '../../ipvs/slot-index.ts';
import {
  CONTROL_BYTES,
  ControlField,
  HOP_BYTES,
  HopField,
  INTERFACE_BYTES,
  InterfaceField,
  OWNER_BYTES,
  OwnerField,
  PLAN_BLOCK_BYTES,
  reasonNames,
  SERVICE_BYTES,
  SERVICE_KEY_BYTES,
  ServiceField,
  ServiceKeyField,
  SIZE_BYTES,
  SizeField,
  TUNNEL_BYTES,
  TunnelField,
} from './control.ts';

describe('shared layouts', { skip: missing('clang') }, () => {
  const { structs, enums } = missing('clang')
    ? { structs: new Map<string, StructLayout>(), enums: new Map<string, string[]>() }
    : readBtf(readFileSync(buildBpf()));

  /** Compares size and offsets; a field `clientPort` is the member `client_port`. */
  function compare(struct: string, bytes: number, fields: Record<string, number>): void {
    test(`struct ${struct}`, () => {
      const layout = structs.get(struct);
      assert.ok(layout, `the object has no struct ${struct}`);
      assert.equal(layout.size, bytes, 'size');
      for (const [field, offset] of Object.entries(fields)) {
        const member = field.replace(/[A-Z]/g, letter => `_${letter.toLowerCase()}`);
        assert.equal(layout.members.get(member), offset, `offset of ${member}`);
      }
    });
  }

  compare('connection', CONNECTION_BYTES, ConnectionField);
  compare('destination', DESTINATION_BYTES, DestinationField);
  compare('bucket', BUCKET_BYTES, { entries: 0 });
  compare('control', CONTROL_BYTES, ControlField);
  compare('sizes', SIZE_BYTES, SizeField);
  compare('service_key', SERVICE_KEY_BYTES, ServiceKeyField);
  compare('owner', OWNER_BYTES, OwnerField);
  compare('interface', INTERFACE_BYTES, InterfaceField);
  compare('service', SERVICE_BYTES, ServiceField);
  compare('tunnel', TUNNEL_BYTES, TunnelField);
  compare('hop', HOP_BYTES, HopField);
  compare('plan_block', PLAN_BLOCK_BYTES, { words: 0 });
  const { localAddress, ...words } = Extension;
  compare('extension', EXTENSION_WORDS * 4, {
    local: localAddress * 4,
    ...Object.fromEntries(Object.entries(words).map(([name, word]) => [name, word * 4])),
  });
  compare('table_state', TABLE_STATE_BYTES, {
    size: 0,
    cookieSecret: TableState.cookieSecret * 4,
    regions: TableState.region * 4,
    locks: TableState.locks * 4,
  });

  test('reasons', () => {
    const names = enums
      .get('reason')
      ?.map(name => name.replace('REASON_', '').toLowerCase().replace(/_/g, ' '));
    assert.deepEqual(names?.slice(0, -1), [...reasonNames]);
    assert.equal(names?.at(-1), 'reasons');
  });
});
