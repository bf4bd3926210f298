#!/usr/bin/python3
"""Random packets of every kind, through random hosts: one or two arms, small MTU, forwarding off, servers that are far,
unreachable or the director itself, firewall marks."""
import random, sys
from record import *
SEED, COUNT, STEPS = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
def scenario(seed):
    r = random.Random(seed); v6 = r.random() < 0.35; two = r.random() < 0.4; net = {}
    if two and r.random() < .6: net['mtu1'] = r.choice([1400, 1300])
    if r.random() < .12: net['fwd'] = 0
    vip = VIP6 if v6 else VIP
    cl = ['2001:db8:77::5', '2001:db8:77::6'] if v6 else ['192.168.77.5', '192.168.77.6']
    rs = (lambda n: '2001:db8:1::%x' % n) if v6 and two else RS6 if v6 else (lambda n: '10.0.1.%d' % n) if two else RS
    far, own, no = ('2001:db8:99::7', '2001:db8::1', '2001:db8:bad::7') if v6 else ('198.51.100.7', '10.0.0.1', '203.0.113.7')
    br = lambda a, p: ('[%s]:%d' if v6 else '%s:%d') % (a, p)
    setup = ['sh ip %sroute add unreachable %s' % ('-6 ' if v6 else '', '2001:db8:bad::/48' if v6 else '203.0.113.0/24')]
    for k, v in (('nat_icmp_send', 1), ('sloppy_tcp', 1), ('pmtu_disc', 0), ('schedule_icmp', 1), ('expire_nodest_conn', 1)):
        if r.random() < .15: setup.append('sysctl ipv4/vs/%s %d' % (k, v))
    mark = r.random() < .2
    if mark: setup.append('nft table %s m {\n chain p {\n type filter hook prerouting priority -150;\n %s daddr %s meta l4proto { tcp, udp } th dport 70-9000 meta mark set 3\n }\n}\n' % (('ip6', 'ip6', vip) if v6 else ('ip', 'ip', vip)))
    servers = {}
    svcs = ['-f 3' + (' -6' if v6 else '')] if mark else ['-t ' + br(vip, 80), '-u ' + br(vip, 80)]
    for s in svcs:
        setup.append('ipvsadm -A %s -s rr%s%s' % (s, r.choice(['', '', ' -p 60']), ' -o' if s[1] == 'u' and r.random() < .2 else ''))
        for a in r.sample([rs(7), rs(8), rs(7), far, own, no], r.choice([1, 1, 2, 3])):
            if (s, a) in servers: continue
            m = servers[(s, a)] = r.choice(['m', 'm', 'g', 'i', 'i --tun-type gre', 'i --tun-type gue --tun-port 6080', 'i --tun-type gre --tun-csum'])
            if a == own and m[0] == 'i': m = 'g'
            p = 8080 if m == 'm' else 80
            setup.append('ipvsadm -a %s -r %s -%s' % (s, a if mark else br(a, p), m))
    sc = Scenario('packets-%d' % seed, setup, interfaces=2 if two else 1, **net)
    kw = lambda: dict(ttl=r.choice([64] * 6 + [1, 2]), tos=r.choice([0, 0, 0, 0x10, 3, 1, 0xb8]), **({} if v6 else dict(df=r.random() < .7, ident=r.randrange(1, 65536))))
    def bad(p):                                     # a wrong L4 checksum now and then
        if r.random() < .06: p = p[:-1] + bytes([p[-1] ^ 0x55])
        return p
    sizes = lambda: r.choice([0, 1, 11, 11, 100, 1200, 1240, 1320, 1340, 1360, 1372, 1380, 1400, 1440, 1440 if v6 else 1452])
    for i in range(STEPS):
        c, sp, x = r.choice(cl), r.choice([1000, 1001]), r.random(); dp = r.choice([80, 80, 80, 80, 81, 9001])
        k = kw()
        if x < .4: sc.client(bad(tcp(c, sp, vip, dp, r.choice(['S', 'S', 'S', 'A', 'PA', 'PA', 'FA', 'R', 'SA', '']), seq=r.randrange(1 << 32), ack=r.randrange(1 << 32), pl=b'q' * sizes() if r.random() < .5 else b'', **k)))
        elif x < .6: sc.client(bad(udp(c, sp, vip, dp, b'd' * sizes(), nocsum=not v6 and r.random() < .3, **k)))
        elif x < .82:
            a = r.choice([7, 8]); p = r.choice([8080, 8080, 80]); d = r.choice([c] * 5 + [vip, own])
            if r.random() < .6: sc.server(a, bad(tcp(rs(a), p, d, sp, r.choice(['SA', 'A', 'PA', 'FA', 'R']), seq=r.randrange(1 << 32), ack=r.randrange(1 << 32), pl=b'a' * min(sizes(), net.get('mtu1', 1500) - 60) if r.random() < .5 else b'', **k)))
            else: sc.server(a, bad(udp(rs(a), p, d, sp, b'r' * min(sizes(), net.get('mtu1', 1500) - 60), nocsum=not v6 and r.random() < .3, **k)))
        elif x < .87: sc.client(icmp(c, vip, *((128, 0) if v6 else (8, 0)), 0x50001 + i, b'ping' * r.choice([1, 10]), **k))
        elif x < .9: sc.client(tcp(c, sp, r.choice([rs(7), far, no]), 80, 'S', **k))
        else:                                       # errors about replies and about what was forwarded
            typ, code, rest = r.choice([(1, 4, 0), (2, 0, 1300), (3, 0, 0)] if v6 else [(3, 3, 0), (3, 4, 1300), (11, 0, 0), (3, 1, 0)])
            f = tcp if r.random() < .6 else udp
            if r.random() < .5:                     # a client's router about a reply
                q = f(vip, 80, c, sp, **(dict(flags='PA', pl=b'answer') if f is tcp else dict(pl=b'answer')))
                sc.client(icmp(r.choice([c, '2001:db8:70::1' if v6 else '192.168.70.1']), vip, typ, code, rest, q[:r.choice([28, 48, 60])] if not v6 else q, **k))
            else:                                   # a server, or a router before it, about a request
                a = r.choice([7, 8]); to = r.choice([(rs(a), 8080), (vip, 80)])
                q = f(c, sp, *to, **(dict(flags='PA', pl=b'question') if f is tcp else dict(pl=b'question')))
                sc.server(a, icmp(r.choice([rs(a), '2001:db8:1::fe' if v6 and two else '2001:db8::fd' if v6 else '10.0.0.253']), c, typ, code, rest, q[:r.choice([28, 48, 60])] if not v6 else q, **k))
    sc.end()
for k in range(COUNT): scenario(SEED + k)
