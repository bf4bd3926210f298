/** Each rule of the guard, and the silence where there is nothing to say. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AdvertisementFlag } from '../wire/neighbor-discovery.ts';
import {
  ATTACKER,
  advertisement,
  announcement,
  answer,
  BACKUP,
  CLIENT,
  CLUSTER,
  DIRECTOR,
  GATEWAY,
  ip,
  mac,
  question,
  ROUTER,
  SERVER,
  tagged,
  VIP,
  VIP6,
  VIRTUAL_MAC,
  VIRTUAL_MAC6,
  Watchman,
} from './guard.fixture.ts';
import { questionFrame } from './who-has.ts';

/** A guard that has been running for a while. */
function onDuty(...given: ConstructorParameters<typeof Watchman>): Watchman {
  return new Watchman(...given).hear(question('10.0.0.99', '10.0.0.1', CLIENT)).wait();
}

test('an ordinary question with its answer is nothing', () => {
  const watchman = onDuty();
  watchman.send(question('10.0.0.1', '10.0.0.5', DIRECTOR)).hear(answer('10.0.0.1', CLIENT));
  watchman
    .hear(question(VIP, '10.0.0.1', CLIENT))
    .send(answer(VIP, DIRECTOR, { to: CLIENT, target: '10.0.0.1' }));
  watchman.hear(announcement('10.0.0.1', CLIENT));
  assert.deepEqual(watchman.kinds(), []);
});

test('a VIP that a stranger claims: by reply, request, and gratuitously in both forms', () => {
  for (const [form, frame, word] of [
    ['reply', answer(VIP, ATTACKER), 'answers for'],
    ['request', question('10.0.0.1', VIP, ATTACKER), 'asks in the name of'],
    ['gratuitous request', announcement(VIP, ATTACKER), 'announces'],
    ['gratuitous reply', announcement(VIP, ATTACKER, true), 'announces'],
  ] as const) {
    const watchman = onDuty().hear(frame);
    const event = watchman.events.find(({ kind }) => kind === 'vip-claimed');
    assert.equal(event?.severity, 'alarm', form);
    assert.equal(event?.address, VIP);
    assert.equal(event?.mac, ATTACKER);
    assert.ok(event?.expected?.includes(DIRECTOR) && event.expected.includes(BACKUP));
    assert.equal(event?.text, `${ATTACKER}, no director, ${word} the VIP ${VIP}`);
    assert.deepEqual(watchman.contradictions, [`${VIP} ${ATTACKER}`]);
    assert.equal(watchman.guard.seenAt(VIP), undefined, 'what a stranger claims is not learned');
  }
});

test('a VIP that a real server answers for or announces', () => {
  const watchman = onDuty()
    .hear(question(VIP, '10.0.0.1', CLIENT))
    .hear(answer(VIP, SERVER));
  assert.deepEqual(watchman.kinds(), ['server-answers-for-vip']);
  const other = onDuty().hear(announcement(VIP, SERVER));
  assert.equal(other.events[0]?.text, `the real server 10.0.0.7 (${SERVER}) announces the VIP ${VIP}`);
  // A server whose MAC nobody configured is known by what it said of itself.
  const learned = onDuty({ ...CLUSTER, servers: [{ address: '10.0.0.8', macs: [] }] })
    .hear(announcement('10.0.0.8', CLIENT))
    .hear(announcement(VIP, CLIENT));
  assert.deepEqual(learned.kinds(), ['server-answers-for-vip']);
});

test('a failover is no alarm: by MAC, by virtual MAC, and back', () => {
  const watchman = onDuty().send(announcement(VIP, DIRECTOR));
  for (let round = 0; round < 100; round++) {
    for (let repeat = 0; repeat < 5; repeat++) watchman.hear(announcement(VIP, BACKUP), {}, 0);
    watchman.hear(question(VIP, '10.0.0.1', CLIENT)).hear(answer(VIP, BACKUP));
    for (let repeat = 0; repeat < 5; repeat++) watchman.hear(announcement(VIP, VIRTUAL_MAC, true), {}, 0);
    watchman.hear(advertisement(VIP6, BACKUP, AdvertisementFlag.override));
    watchman.hear(advertisement(VIP6, VIRTUAL_MAC6, AdvertisementFlag.override));
    watchman.send(announcement(VIP, DIRECTOR)).wait(3000);
    // Its own address goes along, as the gateway of servers behind NAT does.
    watchman.hear(announcement('10.0.0.200', BACKUP)).send(announcement('10.0.0.200', DIRECTOR));
  }
  assert.deepEqual([...new Set(watchman.kinds())], ['address-moved']);
});

test('a virtual MAC that is not configured may not have the VIP', () => {
  const watchman = onDuty({ ...CLUSTER, virtualRouters: [] }).hear(announcement(VIP, VIRTUAL_MAC));
  assert.deepEqual(watchman.kinds(), ['vip-claimed']);
});

test('two directors that answer the same question: split brain', () => {
  const watchman = onDuty()
    .hear(question(VIP, '10.0.0.1', CLIENT))
    .send(answer(VIP, DIRECTOR, { to: CLIENT }))
    .hear(answer(VIP, BACKUP, { to: CLIENT }));
  const split = watchman.events.find(({ kind }) => kind === 'duplicate-address');
  assert.match(split?.text ?? '', /split brain/);
});

test('the gateway: at another MAC than before, or than configured', () => {
  const learned = onDuty().hear(announcement(GATEWAY, ROUTER)).hear(announcement(GATEWAY, ATTACKER));
  assert.deepEqual(learned.kinds(), ['gateway-claimed']);
  const configured = onDuty({ ...CLUSTER, gateways: [{ address: GATEWAY, macs: [ROUTER] }] });
  configured.hear(announcement(GATEWAY, ATTACKER));
  assert.deepEqual(configured.kinds(), ['gateway-claimed']);
  assert.deepEqual(configured.contradictions, [`${GATEWAY} ${ATTACKER}`]);
  const fromTable = onDuty();
  fromTable.guard.learn(GATEWAY, ROUTER, 0);
  fromTable.hear(announcement(GATEWAY, ATTACKER));
  assert.deepEqual(fromTable.kinds(), ['gateway-claimed'], "known from the kernel's table");
});

test('what is configured or pinned to another MAC', () => {
  const watchman = onDuty()
    .hear(announcement('10.0.0.7', ATTACKER))
    .hear(announcement('10.0.0.61', ATTACKER));
  assert.deepEqual(watchman.kinds(), ['binding-contradicted', 'binding-contradicted']);
  watchman.hear(announcement('10.0.0.7', SERVER));
  assert.deepEqual(watchman.kinds(), ['restored']);
});

test("this host's own address at another MAC", () => {
  const watchman = onDuty().hear(announcement('10.0.0.5', ATTACKER));
  assert.deepEqual(watchman.kinds(), ['duplicate-address']);
});

test('an address that nobody configured: changed, then back and forth', () => {
  const watchman = onDuty().hear(announcement('10.0.0.20', CLIENT)).hear(announcement('10.0.0.20', ATTACKER));
  assert.deepEqual(watchman.kinds(), ['binding-changed']);
  watchman.hear(announcement('10.0.0.20', CLIENT));
  assert.deepEqual(watchman.kinds(), ['binding-flip-flop']);
  // A day later it is only another change.
  watchman.wait(86_400_000).hear(announcement('10.0.0.20', ATTACKER));
  assert.deepEqual(watchman.kinds(), ['binding-changed']);
});

test('two answers to one question', () => {
  const watchman = onDuty()
    .send(question('10.0.0.20', '10.0.0.5', DIRECTOR))
    .hear(answer('10.0.0.20', CLIENT))
    .hear(answer('10.0.0.20', ATTACKER));
  assert.ok(watchman.kinds().includes('duplicate-address'));
  const same = onDuty()
    .send(question('10.0.0.20', '10.0.0.5', DIRECTOR))
    .hear(answer('10.0.0.20', CLIENT))
    .hear(answer('10.0.0.20', CLIENT));
  assert.deepEqual(same.kinds(), [], 'twice the same is one');
});

test('who looks for duplicates and finds one', () => {
  const probe = questionFrame(mac(CLIENT), ip('0.0.0.0'), ip('10.0.0.20'));
  const watchman = onDuty().hear(probe).hear(answer('10.0.0.20', ATTACKER));
  assert.deepEqual(watchman.kinds(), ['duplicate-address']);
  assert.deepEqual(onDuty().hear(probe).kinds(), [], 'a free address');
  const probe6 = questionFrame(mac(CLIENT), ip('::'), ip('2001:db8::20'));
  assert.deepEqual(
    onDuty()
      .hear(probe6)
      .hear(advertisement('2001:db8::20', ATTACKER, AdvertisementFlag.override))
      .kinds(),
    ['duplicate-address'],
  );
  const wantsVip = questionFrame(mac(CLIENT), ip('::'), ip(VIP6));
  assert.deepEqual(onDuty().hear(wantsVip).kinds(), ['duplicate-address'], 'wants the VIP');
  const serverWants = questionFrame(mac(SERVER), ip('::'), ip(VIP6));
  assert.deepEqual(onDuty().hear(serverWants).kinds(), ['server-answers-for-vip']);
});

test('a reply that nobody asked for', () => {
  const watchman = onDuty().hear(answer('10.0.0.20', CLIENT));
  assert.deepEqual(watchman.kinds(), ['unrequested-reply']);
  watchman
    .wait()
    .send(question('10.0.0.20', '10.0.0.5', DIRECTOR))
    .wait(4000)
    .hear(answer('10.0.0.20', CLIENT));
  assert.deepEqual(watchman.kinds(), [], 'late, but asked for');
  watchman.wait(2000).hear(answer('10.0.0.20', CLIENT)).wait(40_000);
  assert.deepEqual(watchman.kinds(), [], 'the same event is not raised again so soon');
  watchman.hear(answer('10.0.0.20', CLIENT));
  assert.equal(watchman.events[0]?.count, 2, 'but counted');
  assert.deepEqual(onDuty().hear(answer('10.0.0.20', CLIENT), { isToThisHost: false }).kinds(), []);
  const fresh = new Watchman().hear(answer('10.0.0.20', CLIENT)).hear(answer('10.0.0.20', CLIENT));
  assert.deepEqual(fresh.kinds(), [], 'the question may have been before the guard');
  assert.deepEqual(onDuty().hear(answer('2001:db8::20', CLIENT)).kinds(), ['unrequested-reply']);
  const asked = onDuty()
    .send(question('2001:db8::20', 'fe80::5', DIRECTOR))
    .hear(answer('2001:db8::20', CLIENT));
  assert.deepEqual(asked.kinds(), []);
});

test('a sender that is not the source of the frame', () => {
  const watchman = onDuty()
    .send(question('10.0.0.20', '10.0.0.5', DIRECTOR))
    .hear(answer('10.0.0.20', CLIENT, { from: ATTACKER }));
  assert.deepEqual(watchman.kinds(), ['sender-mismatch']);
  // A director answers for its virtual MAC from its card.
  watchman.hear(question(VIP, '10.0.0.1', CLIENT)).hear(answer(VIP, VIRTUAL_MAC, { from: BACKUP }));
  assert.deepEqual(watchman.kinds(), []);
  const six = onDuty()
    .send(question('2001:db8::20', 'fe80::5', DIRECTOR))
    .hear(answer('2001:db8::20', CLIENT, { from: ATTACKER }));
  assert.deepEqual(six.kinds(), ['sender-mismatch']);
});

test('one MAC with very many addresses', () => {
  const watchman = onDuty();
  for (let host = 100; host < 116; host++) watchman.hear(announcement(`10.0.0.${host}`, ATTACKER));
  assert.deepEqual(watchman.kinds(), [], 'sixteen are in order');
  watchman.hear(announcement('10.0.0.116', ATTACKER));
  assert.deepEqual(watchman.kinds(), ['many-addresses']);
  const director = onDuty();
  for (let host = 100; host < 200; host++) director.hear(announcement(`10.0.0.${host}`, BACKUP));
  assert.deepEqual(director.kinds(), [], 'a director has as many as it has services');
  const slow = onDuty();
  for (let host = 100; host < 200; host++) slow.hear(announcement(`10.0.0.${host}`, CLIENT), {}, 10_000);
  assert.deepEqual(slow.kinds(), [], 'one after the other');
});

test('a storm of one station, and of many', () => {
  const watchman = onDuty();
  for (let count = 0; count < 100; count++) watchman.hear(question('10.0.0.99', '10.0.0.1', CLIENT), {}, 1);
  assert.deepEqual(watchman.kinds(), []);
  watchman.hear(question('10.0.0.99', '10.0.0.1', CLIENT), {}, 1);
  assert.deepEqual(watchman.kinds(), ['storm']);
  const many = onDuty();
  for (let count = 0; count < 1001; count++) {
    const station = `02:00:00:00:0${count % 10}:${(count % 90) + 10}`;
    many.hear(question('10.0.0.99', `10.1.${count % 10}.${count % 90}`, station), {}, 0);
  }
  assert.ok(many.events.some(({ kind, mac }) => kind === 'storm' && mac === undefined));
  const takeover = onDuty();
  for (let count = 0; count < 500; count++) takeover.hear(announcement(VIP, BACKUP), {}, 0);
  assert.deepEqual(takeover.kinds(), [], 'a director takes over a hundred VIPs, five times each');
});

test('wrong lengths, types and operations', () => {
  const spoiled = (at: number, value: number, cut?: number): Uint8Array => {
    const frame = announcement(VIP, ATTACKER);
    frame[at] = value;
    return frame.slice(0, cut);
  };
  for (const [name, frame] of [
    ['arp-lengths', spoiled(18, 5)],
    ['arp-lengths', spoiled(19, 16)],
    ['arp-types', spoiled(15, 7)],
    ['arp-types', spoiled(16, 9)],
    ['arp-operation', spoiled(21, 3)],
    ['arp-truncated', spoiled(14, 0, 30)],
    ['arp-truncated', spoiled(14, 0, 17)],
  ] as const) {
    const watchman = onDuty().hear(frame);
    assert.deepEqual(
      watchman.events.map(({ kind }) => kind),
      ['malformed'],
      name,
    );
    assert.match(watchman.events[0]?.text ?? '', new RegExp(name));
    assert.deepEqual(watchman.contradictions, [], 'hosts do not take it either');
  }
  const group = announcement(VIP, ATTACKER);
  group.set(mac('01:00:5e:00:00:12'), 22);
  assert.match(onDuty().hear(group).events[0]?.text ?? '', /group-sender/);
  const checksum = advertisement(VIP6, ATTACKER, AdvertisementFlag.override);
  checksum[56] = (checksum[56] as number) ^ 1;
  assert.match(onDuty().hear(checksum).events[0]?.text ?? '', /nd-checksum/);
});

test('hardware type 6, which Linux takes for Ethernet, and VLAN 0, which is none', () => {
  const hardware = announcement(VIP, ATTACKER);
  hardware[15] = 6;
  assert.deepEqual(onDuty().hear(hardware).kinds(), ['vip-claimed']);
  const priority = onDuty().hear(tagged(announcement(VIP, ATTACKER), 0));
  assert.equal(priority.events[0]?.kind, 'vip-claimed');
  assert.equal(priority.events[0]?.vlan, 0);
  const inVlan = onDuty().hear(tagged(announcement(VIP, ATTACKER), 100));
  assert.equal(inVlan.events[0]?.text, `${ATTACKER}, no director, announces the VIP ${VIP} in VLAN 100`);
});

test('IPv6: advertisements with and without override, and solicitations in a false name', () => {
  const override = onDuty().hear(advertisement(VIP6, ATTACKER, AdvertisementFlag.override));
  assert.deepEqual(override.kinds(), ['vip-claimed']);
  const weak = onDuty().hear(advertisement(VIP6, ATTACKER, 0));
  assert.match(weak.events[0]?.text ?? '', /announces the VIP 2001:db8::3 \(without override/);
  const solicited = onDuty().hear(answer(VIP6, ATTACKER));
  assert.deepEqual(solicited.kinds().sort(), ['unrequested-reply', 'vip-claimed']);
  assert.deepEqual(
    onDuty()
      .hear(question('2001:db8::1', VIP6, ATTACKER))
      .kinds(),
    ['vip-claimed'],
  );
  const known = onDuty().hear(advertisement('2001:db8::20', CLIENT, AdvertisementFlag.override));
  assert.deepEqual(known.hear(advertisement('2001:db8::20', ATTACKER, 0)).kinds(), ['duplicate-address']);
  assert.equal(known.guard.seenAt('2001:db8::20'), CLIENT, 'without override nothing changes');
  known.hear(advertisement('2001:db8::20', ATTACKER, AdvertisementFlag.override));
  assert.deepEqual(known.kinds(), ['binding-changed']);
});

test('events are held back when they come too often, but not the grave ones for the light ones', () => {
  const watchman = onDuty();
  for (let count = 0; count < 200; count++) {
    const station = `02:00:00:00:${(count >> 4).toString(16).padStart(2, '0')}:0${count & 7}`;
    watchman.hear(answer(`10.7.0.${count}`, station), {}, 1);
  }
  assert.ok(watchman.events.length <= 20, `${watchman.events.length} events`);
  assert.ok(watchman.guard.heldBack >= 180);
  // Nor for the news of a failover of many addresses.
  for (let count = 0; count < 50; count++) {
    watchman.hear(announcement(VIP, count % 2 ? BACKUP : VIRTUAL_MAC), {}, 0);
  }
  watchman.events.length = 0;
  watchman.hear(announcement(VIP, ATTACKER), {}, 1);
  assert.deepEqual(watchman.kinds(), ['vip-claimed']);
});

test('what the filter dropped is said to be dropped', () => {
  const watchman = onDuty().hear(announcement(VIP, ATTACKER), { dropped: true });
  assert.equal(watchman.events[0]?.dropped, true);
  assert.match(watchman.events[0]?.text ?? '', /; dropped$/);
});
