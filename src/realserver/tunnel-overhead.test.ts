/** Sizes through tunnels, against what the director puts in front of packets. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TunnelFlag, TunnelType } from '../ipvs/destinations.ts';
import { tunnelHeaderLength } from '../ipvs/forwarding/tunnel.ts';
import { TUNNELS } from './request.ts';
import { tunnelMss, tunnelOverhead } from './tunnel-overhead.ts';

test('a tunnel takes as much as the director adds at most', () => {
  for (const tunnel of TUNNELS) {
    const between = tunnelHeaderLength(TunnelType[tunnel], TunnelFlag.checksum);
    assert.equal(tunnelOverhead(tunnel, 4), 20 + between, tunnel);
    assert.equal(tunnelOverhead(tunnel, 6), 40 + between, tunnel);
  }
});

test('segments that fit', () => {
  assert.equal(tunnelMss(1500, ['ipip'], 4, 4), 1440);
  assert.equal(tunnelMss(1500, ['ipip'], 4, 6), 1420);
  assert.equal(tunnelMss(1500, ['ipip', 'gue', 'gre'], 6, 4), 1408);
  assert.equal(tunnelMss(9000, ['gre'], 4, 4), 8932);
});
