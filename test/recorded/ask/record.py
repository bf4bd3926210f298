"""Records scenarios in the oracle's guest: frames in, frames out, listings. Runs inside the guest, beside its o.py and
net.py. A scenario's file has the form that `dirigo replay` reads."""
import time
from net import *

CLIENT, CLIENT6 = '192.168.77.5', '2001:db8:77::5'
VIP, VIP6 = '10.0.0.3', '2001:db8::3'

def describe(f):
    """A reading aid; nothing depends on it."""
    b = f[14:]; v6 = b[0] >> 4 == 6
    proto = b[6] if v6 else b[9]; at = 40 if v6 else 4 * (b[0] & 15)
    a = lambda x: socket.inet_ntop(socket.AF_INET6 if v6 else socket.AF_INET, x)
    s, d = (b[8:24], b[24:40]) if v6 else (b[12:16], b[16:20])
    text = 'to %s IP %s>%s ttl %d len %d' % (mac(f[:6]), a(s), a(d), b[7] if v6 else b[8], len(b))
    if proto == 6:
        sp, dp, seq, ack, off, fl = struct.unpack('>HHIIBB', b[at:at + 14])
        pl = b[at + 4 * (off >> 4):]
        text += ' TCP %d>%d %s seq %d ack %d' % (sp, dp, ''.join(c for c, v in FL.items() if fl & v), seq, ack)
        if pl: text += ' ' + repr(pl)[1:]
    elif proto == 17: text += ' UDP %d>%d' % struct.unpack('>HH', b[at:at + 4])
    else: text += ' protocol %d' % proto
    return text

class Scenario:
    def __init__(self, name, setup, interfaces=1, show=(), **net):
        self.wires = mknet(ifs=interfaces, fwd=net.get('fwd', 1), mtu1=net.get('mtu1'))
        self.record = {'name': name, 'interfaces': interfaces, 'net': net, 'setup': setup, 'steps': []}
        self.show = list(show); self.start = time.monotonic()
        for line in setup: self.command(line)
    def command(self, line):
        word, _, rest = line.partition(' ')
        if word == 'sysctl': k, v = rest.split(None, 1); sysctl(k, v)
        elif word == 'nft':
            with open('/tmp/nft', 'w') as f: f.write(rest + '\n')
            sh('nft -f /tmp/nft')
        else: sh(rest if word == 'sh' else line)
    def listings(self, names):
        if any('--stats' in n for n in names): time.sleep(2.1)
        return {n: ipvs(n) for n in names}
    def step(self, show=None, **fields):
        names = self.show if show is None else list(show)
        if names: fields['show'] = self.listings(names)
        fields['t'] = round(time.monotonic() - self.start, 2)
        self.record['steps'].append(fields)
    def packet(self, pkt, side, src=GWMAC, show=None, dev=0, **extra):
        f = self.wires[dev].send(pkt, src=src)
        out = [{'dev': w.dev, 'hex': g.hex(), 'desc': describe(g)} for w in self.wires for g in w.recv(0.01)]
        self.step(show, op='packet', **{'from': side, 'dev': 'eth%d' % dev, 'in': f.hex(), 'in_desc': describe(f), 'out': out}, **extra)
        return [bytes.fromhex(o['hex']) for o in out]
    def client(self, pkt, **k): return self.packet(pkt, 'client', **k)
    def server(self, n, pkt, **k): return self.packet(pkt, 'server', src=RSMAC(n), dev=len(self.wires) - 1, **k)
    def sleep(self, seconds, show=None): time.sleep(seconds); self.step(show, op='sleep', seconds=seconds)
    def sh(self, cmd, show=None): self.command(cmd); self.step(show, op='sh', cmd=cmd)
    def ipvsadm(self, args, show=None):
        argv = ['ipvsadm'] + args.split(); rc, o, e = run(argv)
        self.step(show, op='ipvsadm', argv=argv, status=rc, stdout=o, stderr=e)
    def end(self, names=('-Ln', '-Lnc', '-Ln --stats --exact')):
        self.record['end'] = self.listings(names)
        outjson(self.record['name'] + '.json', self.record)
        for w in self.wires: w.s.close()

class Stream:
    """A TCP connection between a client and a server through the director: each end numbers as it would."""
    def __init__(self, sc, sport, dport, n, rport, client=CLIENT, vip=VIP, rip=None, cseq=1000, sseq=5000):
        self.sc, self.n = sc, n; self.v6 = ':' in client
        self.c, self.v, self.r = (client, sport), (vip, dport), (rip or (RS6(n) if self.v6 else RS(n)), rport)
        self.cnext, self.snext = cseq, sseq          # next of its own that each end sends
        self.cseen, self.sseen = 0, 0                # next that each end expects of the other
    def seen(self, frames):
        for f in frames:
            b = f[14:]; at = 40 if b[0] >> 4 == 6 else 4 * (b[0] & 15)
            if (b[6] if at == 40 and b[0] >> 4 == 6 else b[9]) != 6: continue
            seq, off, fl = struct.unpack('>I', b[at + 4:at + 8])[0], b[at + 12] >> 4, b[at + 13]
            return (seq + len(b) - at - 4 * off + (fl & 1) + (fl >> 1 & 1)) & 0xffffffff
    def up(self, flags='A', data=b'', again=0, opts=b'', **k):
        seq = (self.cnext - again) & 0xffffffff
        f = self.sc.client(tcp(*self.c, *self.v, flags=flags, seq=seq, ack=self.cseen if 'A' in flags else 0, pl=data, opts=opts), **k)
        if not again: self.cnext = (seq + len(data) + ('S' in flags) + ('F' in flags)) & 0xffffffff
        if f and not again: self.sseen = self.seen(f) or self.sseen
        return f
    def down(self, flags='A', data=b'', again=0, opts=b'', **k):
        seq = (self.snext - again) & 0xffffffff
        f = self.sc.server(self.n, tcp(*self.r, *self.c, flags=flags, seq=seq, ack=self.sseen if 'A' in flags else 0, pl=data, opts=opts), **k)
        if not again: self.snext = (seq + len(data) + ('S' in flags) + ('F' in flags)) & 0xffffffff
        if f and not again: self.cseen = self.seen(f) or self.cseen
        return f
    def open(self): self.up('S'); self.down('SA'); self.up('A')
    def say(self, text): return self.up('PA', text.encode())
    def answer(self, text): r = self.down('PA', text.encode()); self.up('A'); return r
