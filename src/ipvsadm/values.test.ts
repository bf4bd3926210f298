import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NO_NAMES, namesFromFiles } from './name-files.ts';
import { parseClassicIpv4, parseEndpoint, parseMark, parseNumber, parseSchedulerFlags } from './values.ts';

test('numbers as strtol reads them', () => {
  assert.equal(parseNumber(' +080', 0, 100), 80);
  assert.equal(parseNumber('-0', 0, 1), 0);
  for (const text of ['', ' ', '1 ', '0x10', '1.5', '1e2', '-1', '101', '9'.repeat(30), '٣']) {
    assert.equal(parseNumber(text, 0, 100), undefined, text);
  }
  assert.equal(parseMark('4294967295'), 4294967295);
  assert.equal(parseMark('4294967296'), undefined);
});

// The expectations are what inet_aton of glibc 2.36 said.
test('IPv4 addresses as inet_aton reads them', () => {
  const accepted: [string, string][] = [
    ['10.0.0.3', '10.0.0.3'],
    ['10.0.3', '10.0.0.3'],
    ['10.3', '10.0.0.3'],
    ['167772163', '10.0.0.3'],
    ['0xa.00.0.0X3', '10.0.0.3'],
    ['010.0.0.1', '8.0.0.1'],
    ['10.0.0.3 and more', '10.0.0.3'],
    ['10.0.65535', '10.0.255.255'],
  ];
  for (const [text, address] of accepted) assert.equal(parseClassicIpv4(text), address, text);
  for (const text of [
    '',
    ' 10.0.0.3',
    '10.0.0.',
    '10.0.0.256',
    '08.0.0.1',
    '10.0.0.3/24',
    '1.2.3.4.5',
    '0x',
  ]) {
    assert.equal(parseClassicIpv4(text), undefined, text);
  }
});

test('addresses with ports', () => {
  const names = namesFromFiles(
    'http 80/tcp www # web\nhttp 80/udp\n',
    '::1 self\n10.0.0.9 web Web.example\n',
  );
  const read = (text: string) => {
    const endpoint = parseEndpoint(text, 'tcp', names);
    return endpoint && `${endpoint.address} ${endpoint.port}`;
  };
  assert.equal(read('10.0.0.3:80'), '10.0.0.3 80');
  assert.equal(read('10.0.0.3'), '10.0.0.3 undefined');
  assert.equal(read('web.EXAMPLE:www'), '10.0.0.9 80');
  assert.equal(read('2001:DB8::1'), '2001:db8::1 undefined');
  assert.equal(read('[2001:db8::1]:http'), '2001:db8::1 80');
  assert.equal(read('[10.0.0.3]:80'), '10.0.0.3 undefined');
  for (const text of [
    '',
    '80',
    ':80',
    '[2001:db8::1]',
    '[2001:db8::1',
    '[]:80',
    '10.0.0.3:',
    '10.0.0.3:bogus',
    'self:80',
  ]) {
    assert.equal(read(text), undefined, text);
  }
  assert.equal(parseEndpoint('10.0.0.3:http', undefined, names), undefined);
  assert.equal(parseEndpoint('web:80', 'tcp', NO_NAMES), undefined);
});

test('scheduler flags', () => {
  assert.equal(parseSchedulerFlags('sh-fallback,sh-port', 'sh'), 0x18);
  assert.equal(parseSchedulerFlags(',flag-3,', 'rr'), 0x20);
  assert.equal(parseSchedulerFlags('mh-port', 'sh'), "incompatible scheduler flag `mh-port'");
  assert.equal(parseSchedulerFlags('toString', 'sh'), "invalid scheduler flag `toString'");
  assert.equal(parseSchedulerFlags(',', 'sh'), "invalid scheduler flag `,'");
});
