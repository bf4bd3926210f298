#!/usr/bin/python3
"""Draws scenarios of scheduling and of connections at random and records what the kernel does with them:
`boot.sh cases/drawn.py OUT SEED COUNT` writes COUNT of each kind, the same ones for the same SEED."""
import sys
from record import *

class Dice:
    """xorshift64: the guest's Python need not have everything that `random` wants."""
    def __init__(self, seed): self.s = (seed * 0x9e3779b97f4a7c15 + 1) & (1 << 64) - 1 or 1
    def below(self, n):
        s = self.s; s ^= s << 13 & (1 << 64) - 1; s ^= s >> 7; s ^= s << 17 & (1 << 64) - 1; self.s = s
        return (s >> 11) % n
    def between(self, a, b): return a + self.below(b - a + 1)
    def of(self, things): return things[self.below(len(things))]
    def chance(self, percent): return self.below(100) < percent
    def address(self, v6):
        if v6: return '2001:db8:%x::%x' % (self.between(0x70, 0x7f), self.between(1, 65535))
        return '%d.%d.%d.%d' % (self.of([11, 23, 77, 100, 150, 172, 198, 203]), self.between(64, 250), self.below(256), self.between(1, 254))

SCHEDULERS = ['rr', 'wrr', 'lc', 'wlc', 'sed', 'nq', 'fo', 'ovf', 'dh', 'sh', 'mh', 'lblc', 'lblcr']
FLAGS = {'sh': ['sh-fallback', 'sh-port', 'sh-fallback,sh-port'], 'mh': ['mh-fallback', 'mh-port', 'mh-fallback,mh-port']}
SLEEPS = [1, 3, 8, 15, 30, 45, 55, 70, 90, 130, 200, 290, 330, 500, 840, 960, 1000]
CPORTS = [1024, 1999, 40000, 50505, 65535]

def weight(d): return d.of([0, 1, 1, 1, 2, 3, 4, 5, 7, 10, 100]) if d.chance(90) else d.between(0, 70000)
def thresholds(d):
    if not d.chance(25): return ''
    x = d.between(1, 8)
    return ' -x %d' % x + (' -y %d' % d.between(0, x) if d.chance(60) else '')
def service_options(d, persistence):
    s = d.of(SCHEDULERS); o = ' -s ' + s
    flags = d.of(FLAGS[s]) if s in FLAGS and d.chance(60) else ''
    if flags: o += ' -b ' + flags
    return s, flags, o + persistence

# scheduling ---------------------------------------------------------------------------------------------------------

def scheduling(d, name):
    w, = mknet()
    v6 = d.chance(25); udp_ = not d.chance(75); mark = not v6 and not udp_ and d.chance(25)
    port = d.of([80, 80, 443, 53, 8080, 65535])
    vip = VIP6 if v6 else VIP
    service = '-f 1' if mark else '-%s %s:%d' % ('u' if udp_ else 't', '[%s]' % vip if v6 else vip, port)
    if mark:
        port = 80
        with open('/tmp/nft', 'w') as f: f.write('table ip m {\n chain p {\n type filter hook prerouting priority -150;\n ip daddr 172.16.0.0/12 tcp dport 80 meta mark set 1\n }\n}\n')
        sh('nft -f /tmp/nft; ip rule add fwmark 1 lookup 100; ip route add local 0.0.0.0/0 dev lo table 100')
    rip = lambda n: (RS6 if v6 else RS)(n)
    real = lambda n: rip(n) if mark else '%s:%d' % ('[%s]' % rip(n) if v6 else rip(n), port)
    s, flags, o = service_options(d, ' -p %d' % d.of([10, 60, 300]) if d.chance(12) else '')
    there = [d.between(5, 30)]
    while len(there) < d.between(1, 7):
        n = d.between(5, 60)
        if n not in there: there.append(n)
    add = lambda n: 'ipvsadm -a %s -r %s -g -w %d%s' % (service, real(n), weight(d), thresholds(d))
    setup = ['ipvsadm -A %s%s' % (service, o)] + [add(n) for n in there]
    for line in setup: ipvs(line.split()[1:])
    pool = list(there) + [61, 62]; there = set(there)
    record = {'name': name, 'scheduler': s, 'flags': flags, 'proto': 'udp' if udp_ else 'tcp', 'service': service, 'setup': [l.split() for l in setup], 'chosen': [], 'steps': []}
    clients, dsts = [], ['172.%d.%d.%d' % (d.between(16, 31), d.below(256), d.between(1, 254)) for _ in range(d.between(1, 12))]
    def send(flags, client, dst):
        if udp_: w.send(udp(client[0], client[1], dst, port))
        else: w.send(tcp(client[0], client[1], dst, port, flags=flags, seq=1000 if flags == 'S' else 1001))
        return w.recv(0.004)
    for _ in range(d.between(15, 60)):
        r = d.below(100); step = {}
        if r < 62 or not clients:
            c = d.of(clients)[0] if clients and d.chance(12) else (d.address(v6), d.between(1024, 65535))
            if clients and d.chance(25): c = (d.of(clients)[0][0], d.between(1024, 65535))
            dst = d.of(dsts) if mark else vip
            step = {'op': 'new', 'client': list(c)}
            if mark: step['dst'] = dst
            chosen, reply = None, []
            for f in send('S', c, dst):
                b = f[14:]
                if f[:5] == bytes([2, 0, 0, 0, 2]): chosen = rip(f[5])
                elif (b[6] if b[0] >> 4 == 6 else b[9]) in (1, 58):
                    at = 40 if b[0] >> 4 == 6 else 20
                    reply.append({'ethertype': f[12:14].hex(), 'proto': b[6] if at == 40 else b[9], 'type': b[at], 'code': b[at + 1]})
            step['chosen'] = chosen; record['chosen'].append(chosen)
            if chosen is None: step['reply'] = reply
            elif not udp_ and d.chance(60): step['established'] = True; send('A', c, dst)
            clients.append((c, dst))
        elif r < 80 and not udp_:
            c, dst = d.of(clients); op = d.of(['fin', 'fin', 'rst'])
            step = {'op': op, 'client': list(c)}
            if mark: step['dst'] = dst
            send('FA' if op == 'fin' else 'R', c, dst)
        elif r < 94:
            k = d.below(100); n = d.of(pool)
            if k < 45 and there: n = d.of(sorted(there)); line = 'ipvsadm -e' + add(n)[10:]
            elif k < 60 and len(there) > 1: n = d.of(sorted(there)); line = 'ipvsadm -d %s -r %s' % (service, real(n)); there.discard(n)
            elif k < 80:
                line = add(n)
                if n in there: line = 'ipvsadm -e' + line[10:]
                there.add(n)
            elif k < 92: line = 'ipvsadm -E %s%s' % (service, service_options(d, '')[2])
            else: line = d.of(['ipvsadm -Z', 'ipvsadm --set %d %d %d' % (d.of([0, 20, 700]), d.of([0, 15, 40]), d.of([0, 25, 100]))])
            run(line.split()); step = {'op': 'ipvsadm', 'argv': line.split()}
        else:
            n = d.of(SLEEPS); time.sleep(n); step = {'op': 'sleep', 'seconds': n}
        step['counts'] = counts(); record['steps'].append(step)
    outjson(name + '.json', record); w.s.close()

# connections --------------------------------------------------------------------------------------------------------

LISTINGS = ['-Ln', '-Lnc', '-Ln --thresholds', '-Ln --persistent-conn', '-Lnc --persistent-conn', '-Ln --stats --exact', '-Ln --rate']
SYSCTLS = {'conn_reuse_mode': [0, 1, 2], 'expire_nodest_conn': [0, 1], 'expire_quiescent_template': [0, 1], 'sloppy_tcp': [0, 1], 'sloppy_sctp': [0, 1],
           'nat_icmp_send': [0, 1], 'cache_bypass': [0, 1]}

class Service:
    def __init__(self, d, sc):
        self.d, self.sc = d, sc
        self.v6 = d.chance(25); self.proto = d.of(['tcp', 'tcp', 'tcp', 'udp', 'udp', 'sctp']); self.port = d.of([80, 80, 53, 443, 5060, 8080])
        self.mark = sc.marked and not self.v6 and d.chance(60)
        if self.mark: self.port = d.of([80, 443, 8080]); self.proto = d.of(['tcp', 'udp'])
        self.any_port = not self.mark and d.chance(8)
        self.vip = VIP6 if self.v6 else VIP
        self.text = '-f 3' if self.mark else '-%s %s:%d' % ({'tcp': 't', 'udp': 'u', 'sctp': '-sctp-service'}[self.proto], '[%s]' % self.vip if self.v6 else self.vip, 0 if self.any_port else self.port)
        self.there = {}; self.forward = d.of(['-g', '-m', '-m', '-m', '-i'])
    def options(self):
        d = self.d; p = ''
        if self.any_port or d.chance(40):
            p = ' -p %d' % d.of([5, 20, 50, 100, 360])
            if d.chance(40): p += ' -M %s' % (d.of(['64', '128', '112', '48']) if self.v6 else d.of(['255.255.255.0', '255.255.0.0', '255.255.255.255', '0.0.0.0']))
        if not self.any_port and d.chance(8): p += ' -o'
        return service_options(d, p)[2]
    def server(self, n, word='-a'):
        d = self.d; f = self.forward if d.chance(90) else d.of(['-g', '-m', '-i'])
        rip = (RS6 if self.v6 else RS)(n)
        p = self.there.get(n, d.of([self.port, self.port, 8080, 9999]) if not self.any_port else 0)
        if word == '-a': self.there[n] = p
        self.real = rip if self.mark or p == 0 else '%s:%d' % ('[%s]' % rip if self.v6 else rip, p)
        if f != '-m' and not self.mark: self.there[n] = p = 0 if self.any_port else self.port; self.real = rip if p == 0 else '%s:%d' % ('[%s]' % rip if self.v6 else rip, p)
        if word == '-d': return 'ipvsadm -d %s -r %s' % (self.text, self.real)
        return 'ipvsadm %s %s -r %s %s -w %d%s' % (word, self.text, self.real, f, weight(d), thresholds(d))

def connections(d, name):
    marked = d.chance(20)
    sc = Scenario.__new__(Scenario)
    sc.marked = marked
    setup = []
    for k in sorted(SYSCTLS):
        if d.chance(25): setup.append('sysctl ipv4/vs/%s %d' % (k, d.of(SYSCTLS[k])))
    if d.chance(20): setup.append('ipvsadm --set %d %d %d' % (d.of([0, 20, 40, 300]), d.of([0, 7, 40]), d.of([0, 9, 33, 200])))
    if marked: setup.append('nft table ip m {\n chain p {\n type filter hook prerouting priority -150;\n ip daddr 10.0.0.3 meta l4proto { tcp, udp } th dport 70-9000 meta mark set 3\n }\n}\n')
    services = []
    for _ in range(d.of([1, 1, 2, 3])):
        s = Service(d, sc)
        if any(s.text == o.text for o in services): continue
        services.append(s); setup.append('ipvsadm -A %s%s' % (s.text, s.options()))
        for _ in range(d.between(1, 4)):
            n = d.between(5, 12)
            if n not in s.there: setup.append(s.server(n))
    show = [d.of(LISTINGS[:5])] + ([d.of(LISTINGS)] if d.chance(60) else [])
    try: sc.__init__(name, setup, show=sorted(set(show)))
    except SystemExit as e: print(name, e); return
    flows = []
    def client_packet(s, client, sport, kind):
        if s.proto == 'tcp': return tcp(client, sport, s.vip, s.port, flags=kind, seq=1000 if 'S' in kind else 1001, ack=0 if kind == 'S' else 1)
        if s.proto == 'udp': return udp(client, sport, s.vip, s.port, pl=b'x' * d.between(1, 20))
        return sctp(client, sport, s.vip, s.port, chunk(kind, body=b'\0' * 16), vtag=0 if kind == 1 else 7)
    def place(out):
        """The server a frame went to, and its port."""
        for f in out:
            if f[:5] != bytes([2, 0, 0, 0, 2]): continue
            b = f[14:]; v6 = b[0] >> 4 == 6; at = 40 if v6 else 20
            if (b[6] if v6 else b[9]) in (4, 41): return None
            dst = socket.inet_ntop(socket.AF_INET6 if v6 else socket.AF_INET, b[24:40] if v6 else b[16:20])
            return (f[5], dst, struct.unpack('>H', b[at + 2:at + 4])[0])
    def from_client(flow, kind):
        s, client, sport = flow[:3]
        out = sc.client(client_packet(s, client, sport, kind), show=None if d.chance(70) else [])
        flow[3] = place(out) or flow[3]
    for _ in range(d.between(10, 35)):
        r = d.below(100)
        s = d.of(services)
        if r < 30 or not flows:
            nets = ['2001:db8:77::5', '2001:db8:77::9', '2001:db8:78::5', '2001:db8:99:1::7'] if s.v6 else ['192.168.77.5', '192.168.77.99', '192.168.78.5', '203.0.113.9']
            flow = [s, d.of(nets), d.of(CPORTS), None]
            same = [f for f in flows if f[:3] == flow[:3]]
            if same: flow = same[0]
            else: flows.append(flow)
            from_client(flow, {'tcp': 'S', 'udp': None, 'sctp': 1}[s.proto])
        elif r < 70:
            flow = d.of(flows); s = flow[0]
            if flow[3] and flow[3][1] != s.vip and d.chance(50):
                n, rip, rport = flow[3]
                if s.proto == 'tcp': p = tcp(rip, rport, flow[1], flow[2], flags=d.of(['SA', 'A', 'PA', 'FA', 'R', 'RA', 'SA']), seq=5000, ack=1001)
                elif s.proto == 'udp': p = udp(rip, rport, flow[1], flow[2], pl=b'answer')
                else: p = sctp(rip, rport, flow[1], flow[2], chunk(d.of([2, 11, 0, 3, 6, 7, 8, 9, 14]), body=b'\0' * 16), vtag=7)
                sc.server(n, p, show=None if d.chance(70) else [])
            else: from_client(flow, {'tcp': d.of(['A', 'A', 'A', 'PA', 'FA', 'FA', 'R', 'S', 'S', 'SA', 'F', 'RA']), 'udp': None, 'sctp': d.of([1, 10, 10, 0, 0, 3, 6, 7, 8, 9, 14, 4])}[s.proto])
        elif r < 85:
            k = d.below(100)
            if k < 35 and s.there: line = s.server(d.of(sorted(s.there)), '-e')
            elif k < 52 and s.there: line = s.server(d.of(sorted(s.there)), '-d')
            elif k < 75: line = s.server(d.of(sorted(s.there)) if s.there and d.chance(60) else d.between(5, 12))
            elif k < 83: line = 'ipvsadm -E %s%s' % (s.text, s.options())
            elif k < 87: line = 'ipvsadm -D ' + s.text
            elif k < 91: line = 'ipvsadm -A %s%s' % (s.text, s.options())
            elif k < 94: line = d.of(['ipvsadm -Z', 'ipvsadm -Z ' + s.text])
            elif k < 95: line = 'ipvsadm -C'
            else: line = 'ipvsadm --set %d %d %d' % (d.of([0, 20, 300]), d.of([0, 7, 40]), d.of([0, 9, 200]))
            sc.ipvsadm(line[8:])
        elif r < 89:
            k = d.of(['conn_reuse_mode', 'expire_nodest_conn', 'expire_quiescent_template']); v = d.of(SYSCTLS[k])
            sysctl('ipv4/vs/' + k, v); sc.step(op='sh', cmd='sysctl net.ipv4.vs.%s=%d' % (k, v))
        else: sc.sleep(d.of(SLEEPS))
    sc.end()

seed, count = int(sys.argv[1]), int(sys.argv[2])
which = sys.argv[3] if len(sys.argv) > 3 else 'both'
for i in range(count):
    for kind, make in (('sched', scheduling), ('conns', connections)):
        if which not in ('both', kind): continue
        try: make(Dice(seed * 100003 + i * 2 + (kind == 'conns')), '%s-%d-%d' % (kind, seed, i))
        except BaseException as e:
            import traceback; print(kind, seed, i, repr(e)); traceback.print_exc()
