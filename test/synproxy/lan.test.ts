/** The SYN proxy on the virtual LAN: TCP stacks on both sides, wires that lose, double and reorder. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { SynProxyCount } from '../../src/ipvs/syn-proxy.ts';
import type { Family } from '../../src/wire/address.ts';
import { fates, impair, pattern, transfer } from '../rough-wire.ts';
import { SynProxyLan } from './lan.ts';

test('whatever is lost, doubled or overtaken: the bytes arrive as they were sent', () => {
  let transfers = 0;
  let repeated = 0;
  fc.assert(
    fc.property(
      fates,
      fates,
      fc.record({
        family: fc.constantFrom<Family>(4, 6),
        method: fc.constantFrom('masq' as const, 'fullnat' as const),
        seed: fc.nat(100_000),
        settings: fc.record({
          synproxy_wscale: fc.constantFrom(0, 0, 2, 9),
          synproxy_defer: fc.constantFrom(0, 0, 1),
          synproxy_timestamp: fc.constantFrom(0, 1),
        }),
        service: fc.record({ clientAddress: fc.constantFrom('none' as const, 'toa' as const) }),
      }),
      fc.constantFrom<'client' | 'server'>('client', 'server'),
      fc.oneof(fc.constantFrom(0, 1, 1452, 1460), fc.nat(30_000)),
      fc.oneof(fc.constant(0), fc.nat(30_000)),
      (outer, inner, options, first, up, down) => {
        const lan = new SynProxyLan(options);
        lan.outer.impairment = impair(outer);
        lan.inner.impairment = impair(inner);
        const [request, answer] = [pattern(up, 1), pattern(down, 2)];
        const { client, server } = transfer(lan, request, answer, first);
        const arrived = Uint8Array.from(server.received);
        assert.deepEqual(arrived, request.subarray(0, arrived.length));
        assert.deepEqual(Uint8Array.from(client.received), answer.subarray(0, client.received.length));
        assert.deepEqual(lan.spoiled, []);
        repeated += lan.director.synProxy.counts[SynProxyCount.repeated] as number;
        assert.equal(lan.director.synProxy.pending, 0);
        if (client.closed !== 'orderly' || server.closed !== 'orderly') return;
        transfers++;
        assert.equal(arrived.length, up);
        assert.equal(client.received.length, down);
      },
    ),
    { numRuns: 300 },
  );
  assert.ok(transfers > 200, `${transfers} transfers completed`);
  assert.ok(repeated > 20, `${repeated} SYNs to servers were sent again`);
});
