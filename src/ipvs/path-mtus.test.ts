import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MINIMUM_PATH_MTU, PATH_MTU_LIFETIME, PathMtus } from './path-mtus.ts';

test('what is learned first counts from the next packet on, a correction at once', () => {
  const mtus = new PathMtus(4);
  assert.equal(mtus.use(1, 1500), 1500);
  mtus.learn(1, 1400, 1500, 0);
  assert.equal(mtus.inEffect(1, 1500), 1500);
  assert.equal(mtus.use(1, 1500), 1400);
  assert.equal(mtus.inEffect(1, 1500), 1400);
  mtus.learn(1, 1300, 1500, 0);
  assert.equal(mtus.inEffect(1, 1500), 1300);
  assert.equal(mtus.use(0, 1500), 1500);
});

test('nobody can raise it, or lower it beyond reason', () => {
  const mtus = new PathMtus(4);
  mtus.learn(0, 9000, 1500, 0);
  assert.equal(mtus.use(0, 1500), 1500);
  mtus.learn(0, 68, 1500, 0);
  assert.equal(mtus.use(0, 1500), MINIMUM_PATH_MTU);
  mtus.learn(1, 0, 400, 0);
  assert.equal(mtus.use(1, 400), 400);
});

test('it is forgotten in time', () => {
  const mtus = new PathMtus(4);
  mtus.learn(0, 1400, 1500, 1000);
  const forgotten: number[] = [];
  mtus.sweep(1000 + PATH_MTU_LIFETIME - 1, index => forgotten.push(index));
  assert.equal(mtus.use(0, 1500), 1400);
  mtus.sweep(1000 + PATH_MTU_LIFETIME, index => forgotten.push(index));
  assert.equal(mtus.use(0, 1500), 1500);
});
