#!/usr/bin/python3
"""Scenarios by chance: every kind of service, server, tunnel and setting, and packets of every kind through them.
chance.py SEED COUNT: the same seed asks the same again."""
import random, sys, os
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from record import *
import record
record.describe = lambda f: '%d bytes' % len(f)          # packets may be cut short

def bracket(a): return '[%s]' % a if ':' in a else a
def data(n, r): return bytes(r.getrandbits(8) for _ in range(n))
def l4(p): return p[20:] if p[0] >> 4 == 4 else p[40:]
def flip(p, at): return p[:at] + bytes([p[at] ^ 0x55]) + p[at + 1:]

TUNNELS = ['', '', '--tun-type gre', '--tun-type gre --tun-csum', '--tun-type gue --tun-port %d',
           '--tun-type gue --tun-port %d --tun-csum', '--tun-type gue --tun-port %d --tun-remcsum']
OPTIONS = [bytes([1, 1, 1, 0]), bytes([148, 4, 0, 0]), bytes([136, 4, 0, 9]), bytes([130, 11]) + bytes(9) + b'\0', b'\1' * 8, bytes([0x86, 6, 0, 0, 0, 1, 0, 0])]
ERRORS4 = [(3, c) for c in (0, 1, 2, 3, 4, 5, 9, 10, 13)] + [(11, 0), (11, 1), (12, 0), (4, 0), (5, 1)]
ERRORS6 = [(1, c) for c in range(7)] + [(2, 0), (3, 0), (3, 1), (4, 0), (4, 1), (4, 2)]

class Chance:
    def __init__(self, name, r):
        self.r = r; self.v6 = r.random() < 0.4
        self.proto = r.choice(['t', 't', 't', 'u', 'u', 's'])
        self.method = r.choice('gmmi')
        self.two = r.random() < 0.35
        net = {}
        if self.two and r.random() < 0.5: net['mtu1'] = r.choice([1280, 1300, 1400, 1450])
        if r.random() < 0.12: net['fwd'] = 0
        self.vip = VIP6 if self.v6 else VIP
        self.vport = r.choice([80, 443, 53, 5060, 8000, r.randrange(1, 65536)])
        self.rport = self.vport if self.method != 'm' or r.random() < 0.3 else r.choice([8080, r.randrange(1, 65536)])
        self.servers = sorted(r.sample(range(5, 64), r.choice([1, 1, 2])))
        setup = []
        for key, chance, values in (('nat_icmp_send', .2, [1]), ('schedule_icmp', .2, [1]), ('sloppy_tcp', .2, [1]), ('sloppy_sctp', .2, [1]), ('pmtu_disc', .15, [0]),
                                    ('ignore_tunneled', .1, [1]), ('snat_reroute', .1, [0]), ('expire_nodest_conn', .1, [1]), ('conn_reuse_mode', .2, [0, 2])):
            if r.random() < chance: setup.append('sysctl ipv4/vs/%s %d' % (key, r.choice(values)))
        option = {'t': '-t', 'u': '-u', 's': '--sctp-service'}[self.proto]
        self.marked = r.random() < 0.1
        if self.marked:
            mark = r.choice([1, 7, 65535]); setup.append('nft table %s m {\n chain p {\n type filter hook prerouting priority -150;\n %s daddr %s %s dport %d meta mark set %d\n }\n}\n'
                % ('ip6' if self.v6 else 'ip', 'ip6' if self.v6 else 'ip', self.vip, {'t': 'tcp', 'u': 'udp', 's': 'sctp'}[self.proto], self.vport, mark))
            service = '-f %d%s' % (mark, ' -6' if self.v6 else ''); self.rport = self.vport
        else: service = '%s %s:%d' % (option, bracket(self.vip), self.vport)
        flags = r.choice(['', '', '', '', ' -o' if self.proto == 'u' else '', ' -p 60', ' -p'])
        setup.append('ipvsadm -A %s -s rr%s' % (service, flags))
        self.tunnel = ''
        for n in self.servers:
            six = self.v6 if self.method != 'i' or r.random() < 0.6 else not self.v6
            a = ('2001:db8:1::%x' if self.two else '2001:db8::%x') % n if six else ('10.0.1.%d' if self.two else '10.0.0.%d') % n
            if r.random() < 0.06 and six == self.v6: a = r.choice(['2001:db8::1', self.vip] if six else ['10.0.0.1', '127.0.0.1', self.vip])
            if r.random() < 0.05 and not six: a = '198.51.100.7'
            way = '-' + self.method
            if self.method == 'i':
                t = r.choice(TUNNELS); way += ' ' + (t % r.choice([6080, 5555]) if '%d' in t else t)
            server = (bracket(a) + ':0' if ':' in a else a) if self.marked else '%s:%d' % (bracket(a), self.rport)
            setup.append(('ipvsadm -a %s -r %s %s%s' % (service, server, way.strip(), r.choice(['', '', '', ' -w 0' if r.random() < .3 else '']))).strip())
        self.service = service
        self.sc = Scenario(name, setup, interfaces=2 if self.two else 1, **net)
        self.clients = [(CLIENT6 if self.v6 else CLIENT, 40000 + i) for i in range(2)] + [('2001:db8:99::%x' % r.randrange(1, 65536) if self.v6 else '172.16.%d.%d' % (r.randrange(256), r.randrange(1, 255)), r.randrange(1, 65536))]
        self.sent = []; self.forwarded = []; self.replies = []
        self.shown = None
    def header(self):
        r = self.r; k = dict(ttl=r.choice([64, 64, 64, 128, 255, 2, 1]), tos=r.choice([0, 0, 0, 1, 2, 3, 0xb8, 0x10, 0xff]))
        if self.v6: k['flow'] = r.choice([0, 0, r.randrange(1 << 20)])
        else:
            k['ident'] = r.randrange(65536); k['df'] = r.random() < 0.6
            if r.random() < 0.12: k['opts'] = r.choice(OPTIONS)
        return k
    def size(self):
        r = self.r
        return r.choice([0, 0, 1, 5, 100, r.randrange(0, 1300), r.randrange(1200, 1430), 1500 - (40 if self.v6 else 20) - 20])
    def segment(self, src, sport, dst, dport, first=False):
        r = self.r; k = self.header(); n = self.size(); options = k.pop('opts', b''); over = len(options)
        if self.proto == 't':
            fl = 'S' if first else r.choice(['A', 'A', 'PA', 'A', 'FA', 'R', 'RA', 'S', 'SA', 'F', 'SF', 'SR', '', 'PAU', 'SEC'])
            o = r.choice([b'', b'', bytes([2, 4, 5, 0xb4]), bytes([1, 1, 8, 10]) + data(8, r)])
            n = min(n, 1500 - (40 if self.v6 else 20) - 20 - len(o) - over)
            p = tcp(src, sport, dst, dport, flags=fl, seq=r.getrandbits(32), ack=r.getrandbits(32) if 'A' in fl else 0, pl=data(n if not first or r.random() < .1 else 0, r), opts=o, win=r.randrange(65536), **k)
            at = 16
        elif self.proto == 'u':
            n = min(n, 1500 - (40 if self.v6 else 20) - 8 - over)
            p = udp(src, sport, dst, dport, pl=data(n, r), nocsum=r.random() < 0.15, **k); at = 6
        else:
            kind = 1 if first else r.choice([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 14])
            c = chunk(kind, r.choice([0, 3]), data(min(n, 1400) if kind == 0 else r.choice([0, 4, 16, 40]), r))
            if r.random() < .15: c += chunk(r.choice([0, 3, 11, 14]), 0, data(12, r))
            p = sctp(src, sport, dst, dport, c[:1420], vtag=r.getrandbits(32), **k); at = 8
        if r.random() < 0.06: p = flip(p, (40 if self.v6 else 20 + over) + at)
        if over: p = ip(src, dst, p[9], p[20:], opts=options, **k)
        if self.v6 and r.random() < 0.1 and len(p) < 1400:
            last = p[6]
            e, nh = r.choice([(bytes([last, 0, 1, 4, 0, 0, 0, 0]), 0), (bytes([last, 0, 1, 4, 0, 0, 0, 0]), 60), (struct.pack('>BBHI', last, 0, 0, 7), 44), (bytes([last, 1, 1, 12]) + bytes(12), 60), (bytes([last, 0, 4, 0, 0, 0, 0, 0]), 43)])
            p = p[:4] + struct.pack('>HB', len(p) - 40 + len(e), nh) + p[7:40] + e + p[40:]
        return p
    def pieces(self, p):
        """Fragments of a packet without options or extension headers."""
        r = self.r; d = l4(p); cuts = [0] + sorted(set(8 * r.randrange(1, max(2, len(d) // 8)) for _ in range(r.choice([1, 1, 2])))) + [len(d)]
        cuts = [c for c in cuts if c < len(d)] + [len(d)]
        out = []
        for a, b in zip(cuts, cuts[1:]):
            more = b < len(d)
            if self.v6:
                h = struct.pack('>BBHI', p[6], 0, a | more, 0x7700 + len(self.sent)); body = h + d[a:b]
                out.append(p[:4] + struct.pack('>HB', len(body), 44) + p[7:40] + body)
            else: out.append(ip(socket.inet_ntoa(p[12:16]), socket.inet_ntoa(p[16:20]), p[9], d[a:b], ttl=p[8], ident=0x7700 + len(self.sent), frag=a >> 3 | (0x2000 if more else 0), tos=p[1]))
        if r.random() < .3: out.reverse()
        return out
    def push(self, p, n=None):
        if len(p) > 1500: return []
        out = self.sc.server(n, p) if n is not None else self.sc.client(p)
        return [f[14:] for f in out]
    def step(self, i):
        r = self.r; c, sport = r.choice(self.clients) if i else self.clients[0]
        kind = 'in' if i < 1 else r.choice(['in', 'in', 'in', 'reply', 'reply', 'error-client', 'error-server', 'error-server', 'fragments', 'odd'])
        if kind == 'in':
            p = self.segment(c, sport, self.vip, self.vport if r.random() < .93 else self.vport ^ 1, first=(c, sport) not in [x[1] for x in self.sent] and r.random() < .85)
            out = self.push(p); self.sent.append((p, (c, sport))); self.forwarded += out
        elif kind == 'fragments':
            k = dict(ttl=64, tos=r.choice([0, 2, 0xb8])); n = r.choice([40, 300, 1600, 2800])
            if self.proto == 't': p = tcp(c, sport, self.vip, self.vport, flags='A', seq=5, ack=6, pl=data(n, r), **k)
            elif self.proto == 'u': p = udp(c, sport, self.vip, self.vport, pl=data(n, r), nocsum=r.random() < .1 and not self.v6, **k)
            else: p = sctp(c, sport, self.vip, self.vport, chunk(0, 3, data(n, r)), vtag=9, **k)
            if len(p) > 1500 + 1400:
                return
            for f in self.pieces(p):
                if len(f) > 1500: return
            for f in self.pieces(p):
                if len(f) <= 1500: self.forwarded += self.push(f)
        elif kind == 'reply':
            n = r.choice(self.servers)
            src = self.vip if self.method != 'm' else ('2001:db8:1::%x' if self.two else '2001:db8::%x') % n if self.v6 else ('10.0.1.%d' if self.two else '10.0.0.%d') % n
            p = self.segment(src, self.rport, c, sport, first=False)
            if self.method == 'm':
                if self.proto == 'u' and r.random() < .3 and len(l4(p)) > 60 and p[0] in (0x45, 0x60) and p[6] != 0:
                    for f in self.pieces(p): self.replies += self.push(f, n)
                else: self.replies += self.push(p, n)
            else: self.replies.append(p)
        elif kind == 'error-client' and self.replies:
            q = r.choice(self.replies); self.error(q, self.vip, None)
        elif kind == 'error-server' and self.forwarded:
            q = r.choice(self.forwarded); self.error(q, None, r.choice(self.servers))
        elif kind == 'odd':
            what = r.randrange(9); p = self.segment(c, sport, self.vip, self.vport)
            if what == 0: p = icmp(c, self.vip, 128 if self.v6 else 8, 0, 0x12340001, data(r.choice([0, 8, 56, 1000]), r), ttl=r.choice([1, 64]), tos=r.choice([0, 3, 0xb8]))
            elif what == 1: p = ip(c, self.vip, r.choice([47, 50, 51, 4, 41, 103, 253]), data(r.choice([0, 8, 40]), r))
            elif what == 2: p = p[:40 if self.v6 else 20] + l4(p)[:r.choice([0, 3, 7, 8, 12])]; p = p[:4] + struct.pack('>H', len(p) - 40) + p[6:] if self.v6 else ip(c, self.vip, p[9], l4(p))
            elif what == 3: p = p + data(r.choice([1, 6, 18]), r)
            elif what == 4: p = p[:-1]
            elif what == 5: p = self.segment(c, sport, self.sc.record['setup'] and ('2001:db8:99::9' if self.v6 else '172.31.0.9'), self.vport)
            elif what == 6: p = self.segment(c, sport, '2001:db8::1' if self.v6 else '10.0.0.1', self.vport)
            elif what == 7 and not self.v6: p = flip(p, 10)
            elif what == 8: p = icmp(c, self.vip, *(r.choice([(129, 0), (128, 0), (200, 0)]) if self.v6 else r.choice([(0, 0), (13, 0), (17, 0), (42, 0)])), 5, data(12, r))
            self.push(p)
    def error(self, q, dst, n):
        r = self.r; six = q[0] >> 4 == 6
        a = lambda b: socket.inet_ntop(socket.AF_INET6 if six else socket.AF_INET, b)
        to = a(q[8:24] if six else q[12:16])
        if to == self.vip and n is not None and r.random() < .1: return
        cut = r.choice([len(q), len(q), (40 if six else 4 * (q[0] & 15)) + 8, 528, 128, 28, 60])
        quote = q[:cut][:1232 if six else 1400]
        t, code = r.choice(ERRORS6 if six else ERRORS4)
        rest = 0
        if (t, code) == (3, 4) and not six: rest = r.choice([1400, 1300, 1200, 576, 0])
        elif t == 2 and six: rest = r.choice([1400, 1280, 1300])
        elif t == 5 and not six: rest = 0x0a0000fd
        elif t == 12: rest = 0x14000000
        k = dict(ttl=r.choice([64, 64, 1, 250]), tos=r.choice([0, 0xc0, 3]))
        if not six: k.update(ident=r.randrange(65536), df=r.random() < .5)
        if n is None: src = ('2001:db8:77::1' if six else '192.168.77.1') if r.random() < .6 else a(q[24:40] if six else q[16:20])
        else: src = a(q[24:40] if six else q[16:20]) if r.random() < .5 else (('2001:db8:1::fd' if self.two else '2001:db8::fd') if six else ('10.0.1.253' if self.two else '10.0.0.253'))
        p = icmp(src, to, t, code, rest, quote, **k)
        if r.random() < .06: p = flip(p, (40 if six else 20) + 2)
        out = self.push(p, n)
    def play(self):
        r = self.r
        for i in range(r.randrange(7, 13)):
            self.step(i)
        self.sc.end()

if __name__ == '__main__':
    sh('modprobe ip_vs', check=False)
    seed, count = sys.argv[1], int(sys.argv[2])
    for i in range(count):
        name = 'chance-%s-%03d' % (seed, i)
        try: Chance(name, random.Random(name)).play()
        except BaseException as e:
            with open(os.path.join(OUT, 'failed'), 'a') as f: f.write('%s: %r\n' % (name, e))
