#!/usr/bin/python3
"""Fragments, ICMP errors and extension headers beyond the recorded scenarios. Runs in the oracle's guest; two boots
give the offsets of what varies."""
import sys, os; sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from net import *
sh('modprobe ip_vs', check=False)
C, V = '192.168.77.5', '10.0.0.3'
C6, V6 = '2001:db8:77::5', '2001:db8::3'
R4 = '192.168.77.1'
def cnt(n): return bytes(i & 255 for i in range(n))
def frags4(dg, cuts, ident=0x77, df=False, src=C, dst=V, tos=0, proto=17, order=None):
    b = [0] + cuts + [len(dg)]; out = []
    for i in range(len(b) - 1):
        f = (b[i] >> 3) | (0x2000 if b[i + 1] < len(dg) else 0) | (0x4000 if df is True or (df == i) and df is not False else 0)
        out.append(ip(src, dst, proto, dg[b[i]:b[i + 1]], ident=ident, frag=f, tos=tos))
    return [out[i] for i in order] if order else out
def frags6(dg, cuts, ident=0x77, src=C6, dst=V6, nh=17, pre=b'', first=44):
    b = [0] + cuts + [len(dg)]; out = []
    for i in range(len(b) - 1):
        h = struct.pack('>BBHI', nh, 0, b[i] | (1 if b[i + 1] < len(dg) else 0), ident)
        out.append(ip(src, dst, first, pre + h + dg[b[i]:b[i + 1]]))
    return out
def l4(p): return p[20:] if p[0] >> 4 == 4 else p[40:]
U = lambda n, s=40000, d=80: l4(udp(C, s, V, d, cnt(n)))
U6 = lambda n, s=40000, d=80: l4(udp(C6, s, V6, d, cnt(n)))
def badsum(p, at): return p[:at] + bytes([p[at] ^ 0x55]) + p[at + 1:]
def ext(nh, words=1): return bytes([nh, words - 1, 1, 8 * words - 4]) + bytes(8 * words - 4)
def svc4(fw, proto='u', rs='10.0.0.7:80'): return ['ipvsadm -A -%s 10.0.0.3:80 -s rr' % proto, 'ipvsadm -a -%s 10.0.0.3:80 -r %s %s' % (proto, rs, fw)]
def svc6(fw, proto='u', rs='[2001:db8::7]:80'): return ['ipvsadm -A -%s [2001:db8::3]:80 -s rr' % proto, 'ipvsadm -a -%s [2001:db8::3]:80 -r %s %s' % (proto, rs, fw)]
S = []
def add(name, setup, steps, **net): S.append((name, setup, steps, net))
small4 = frags4(U(100), [64]) + frags4(U(300, 40001), [200, 248], 0x78, order=[2, 1, 0])
big4 = frags4(U(2500), [1400], 0x79)
small6 = frags6(U6(100), [64]) + frags6(U6(300, 40001), [200, 248], 0x78)
big6 = frags6(U6(2500), [1400], 0x79)
for t, o in (('ipip', ''), ('gue', '--tun-type gue --tun-port 6080'), ('gre', '--tun-type gre')):
    add('frag-tun-4in4-' + t, svc4('-i ' + o), small4 + big4)
    add('frag-tun-4in6-' + t, svc4('-i ' + o, rs='[2001:db8::7]:80'), small4 + big4)
    add('frag-tun-6in4-' + t, svc6('-i ' + o, rs='10.0.0.7:80'), small6 + big6)
    add('frag-tun-6in6-' + t, svc6('-i ' + o), small6 + big6)
add('frag-df-dr', svc4('-g'), frags4(U(100), [64], df=True) + frags4(U(2500), [1400], 0x79, df=True) + frags4(U(100), [64], 0x7a, df=0) + frags4(U(100), [40], 0x7b, df=0))
add('frag-df-tun', svc4('-i'), frags4(U(100), [64], df=True) + frags4(U(2500), [1400], 0x79, df=True) + frags4(U(100), [40], 0x7b, df=0))
add('frag-mtu-dr', svc4('-g', rs='10.0.1.7:80'), big4 + frags4(U(2500), [1000, 2000], 0x80), mtu1=1300)
add('frag-mtu-nat', svc4('-m', rs='10.0.1.7:8080'), big4 + frags4(U(2500), [1000, 2000], 0x80), mtu1=1300)
add('frag-mtu-dr6', svc6('-g', rs='[2001:db8:1::7]:80'), big6 + frags6(U6(2500), [1000, 2000], 0x80) + frags6(U6(2500), [1200], 0x81), mtu1=1300)
add('frag-mtu-tun', svc4('-i', rs='10.0.1.7:80'), big4 + frags4(U(2500), [1000, 2000], 0x80), mtu1=1300)
add('frag-mtu-tun6', svc6('-i', rs='[2001:db8:1::7]:80'), big6 + frags6(U6(2500), [1000, 2000], 0x80) + frags6(U6(2500), [1296], 0x81), mtu1=1400)
dup = frags4(U(100), [64])
add('frag-overlap', svc4('-g'), [dup[0], dup[0], dup[1]] + [frags4(U(100), [48], 0x81)[0], ip(C, V, 17, U(100)[40:80], ident=0x81, frag=(40 >> 3) | 0x2000), frags4(U(100), [48], 0x81)[1]]
    + frags4(U(100), [48], 0x82, order=[1]) + [ip(C, V, 17, U(100)[48:72], ident=0x82, frag=(48 >> 3))] + frags4(U(100), [48], 0x82, order=[0, 1]))
add('frag-overlap6', svc6('-g'), [frags6(U6(100), [64])[0]] * 2 + [frags6(U6(100), [64])[1]] + [frags6(U6(100), [48], 0x81)[0], frags6(U6(100), [40, 80], 0x81)[1], frags6(U6(100), [48], 0x81)[1]])
add('frag-ecn', svc4('-g'), [frags4(U(100), [64], 0x83, tos=2)[0], frags4(U(100), [64], 0x83, tos=3)[1], frags4(U(100), [64], 0x84, tos=0)[0], frags4(U(100), [64], 0x84, tos=3)[1], frags4(U(100), [64], 0x85, tos=1)[0], frags4(U(100), [64], 0x85, tos=2)[1]])
add('frag-other', svc4('-g'), frags4(U(100, 40000, 81), [64]) + frags4(U(100), [64], dst='10.0.0.9') )
add('frag-ext6', svc6('-m', rs='[2001:db8::7]:8080'), frags6(U6(100), [64], 0x92, pre=ext(44), first=0) + frags6(ext(17) + U6(100), [64], 0x93, nh=60) + frags6(U6(100), [64], 0x94, pre=ext(44), first=60))
rep = lambda dport=40000, n=24: udp(V, 80, C, dport, cnt(n))
rep6 = lambda dport=40000, n=24: udp(V6, 80, C6, dport, cnt(n))
one = udp(C, 40000, V, 80, b'hello'); one6 = udp(C6, 40000, V6, 80, b'hello')
e = icmp(R4, V, 3, 1, 0, rep()); e6 = icmp('2001:db8:77::1', V6, 1, 0, 0, rep6())
add('icmp-csum-dr', svc4('-g'), [one, e, badsum(e, 22)])
add('icmp-csum-nat', svc4('-m', rs='10.0.0.7:8080'), [one, e, badsum(e, 22), ('s', badsum(icmp('10.0.0.7', C, 3, 3, 0, udp(C, 40000, '10.0.0.7', 8080, cnt(24))), 22))])
add('icmp-csum-dr6', svc6('-g'), [one6, e6, badsum(e6, 42)])
add('icmp-csum-nat6', svc6('-m', rs='[2001:db8::7]:8080'), [one6, e6, badsum(e6, 42), ('s', badsum(icmp('2001:db8::7', C6, 1, 4, 0, udp(C6, 40000, '2001:db8::7', 8080, cnt(24))), 42))])
bigrep = rep(n=1400)
add('icmp-big-dr', svc4('-g', rs='10.0.1.7:80'), [one, icmp(R4, V, 3, 1, 0, bigrep)], mtu1=1300)
add('icmp-big-nat', svc4('-m', rs='10.0.1.7:8080'), [one, icmp(R4, V, 3, 1, 0, bigrep), icmp(R4, V, 3, 1, 0, bigrep, df=False)], mtu1=1300)
add('icmp-big-tun', svc4('-i'), [one, icmp(R4, V, 3, 1, 0, bigrep), icmp(R4, V, 3, 1, 0, rep(n=1440)), icmp(R4, V, 3, 1, 0, rep(n=1440), df=False)])
add('icmp-big-dr6', svc6('-g', rs='[2001:db8:1::7]:80'), [one6, icmp('2001:db8:77::1', V6, 1, 0, 0, rep6(n=1350))], mtu1=1300)
add('icmp-frag', svc4('-m', rs='10.0.0.7:8080'), [one] + frags4(l4(icmp(R4, V, 3, 1, 0, rep(n=200))), [64], 0x95, src=R4, proto=1))
add('icmp-frag6', svc6('-m', rs='[2001:db8::7]:8080'), [one6] + frags6(l4(icmp('2001:db8:77::1', V6, 1, 0, 0, rep6(n=200))), [64], 0x95, src='2001:db8:77::1', nh=58))
q = rep6(); qe = q[:6] + bytes([60]) + q[7:40] + ext(17) + q[40:]
def icmp6ext(src, dst, typ, code, rest, pl):
    p = icmp(src, dst, typ, code, rest, pl)
    return ip(src, dst, 0, ext(58) + p[40:])
add('icmp-ext6', svc6('-m', rs='[2001:db8::7]:8080'), [one6, icmp('2001:db8:77::1', V6, 1, 0, 0, qe), icmp6ext('2001:db8:77::1', V6, 1, 0, 0, rep6())])
qf = q[:6] + bytes([44]) + q[7:40] + struct.pack('>BBHI', 17, 0, 1, 5) + q[40:]
ql = q[:6] + bytes([44]) + q[7:40] + struct.pack('>BBHI', 17, 0, 64, 5) + q[40:]
add('icmp-quotes-frag6', svc6('-m', rs='[2001:db8::7]:8080'), [one6, icmp('2001:db8:77::1', V6, 1, 0, 0, qf), icmp('2001:db8:77::1', V6, 1, 0, 0, ql)])
f4 = lambda frag: ip(V, C, 17, rep()[20:], frag=frag)
add('icmp-quotes-frag', svc4('-m', rs='10.0.0.7:8080'), [one, icmp(R4, V, 3, 1, 0, f4(0x2000)), icmp(R4, V, 3, 1, 0, f4(8))])
t4 = lambda pl, **k: ip('10.0.0.1', '10.0.0.7', 4, pl, **k)
def err(code, mtu, pl): return icmp('10.0.0.253', '10.0.0.1', 3, code, mtu, pl)
d = lambda n, df=True: udp(C, 40000, V, 80, cnt(n), df=df)
add('tun-err-pmtu', svc4('-i'), [d(5), err(4, 1400, t4(d(5))), err(4, 1300, t4(d(5))), d(1300), err(4, 1200, t4(d(5))), d(1200), err(4, 1450, t4(d(5))), d(1190), err(4, 300, t4(d(5))), d(500), d(520), d(505), d(700, False), err(4, 0, t4(d(5))), d(520), err(4, 1000, t4(d(5, False))), 700, d(1300), d(1472)])
add('tun-err-other', svc4('-i'), [d(5), err(1, 0, t4(d(5))), err(1, 0, ip('10.0.0.1', '10.0.0.8', 4, d(5))), err(1, 0, t4(d(5), frag=0x2000)), err(1, 0, t4(d(5), frag=8)), err(1, 0, t4(udp(C, 40009, V, 80, b'x'))), badsum(err(1, 0, t4(d(5))), 22), err(1, 0, t4(d(5)[:24]))])
sock = ext(6, 2)
t6 = l4(tcp(C6, 40000, V6, 80, 'S'))
for n, fw, rs in (('dr', '-g', '[2001:db8::7]:80'), ('nat', '-m', '[2001:db8::7]:8080'), ('tun', '-i', '[2001:db8::7]:80')):
    add('ext6-' + n, svc6(fw, 't', rs), [ip(C6, V6, 0, ext(60) + ext(6) + t6), ip(C6, V6, 60, ext(6, 2) + t6), ip(C6, V6, 44, struct.pack('>BBHI', 6, 0, 0, 7) + t6), ip(C6, V6, 43, bytes([6, 0, 0, 0, 0, 0, 0, 0]) + t6)])
opts = bytes([7, 7, 4, 0, 0, 0, 0, 1])
for n, fw, rs in (('dr', '-g', '10.0.0.7:80'), ('nat', '-m', '10.0.0.7:8080'), ('tun', '-i', '10.0.0.7:80')):
    add('opts4-' + n, svc4(fw, 't', rs), [tcp(C, 40000, V, 80, 'S', opts=b''), ip(C, V, 6, l4(tcp(C, 40000, V, 80, 'A')), opts=opts)])
def r4(n, cuts, ident): return [('s', p) for p in frags4(l4(udp('10.0.0.7', 8080, C, 40000, cnt(n))), cuts, ident, src='10.0.0.7', dst=C)]
def r6(n, cuts, ident): return [('s', p) for p in frags6(l4(udp('2001:db8::7', 8080, C6, 40000, cnt(n))), cuts, ident, src='2001:db8::7', dst=C6)]
add('asc-nat6', svc6('-m', rs='[2001:db8::7]:8080'), frags6(U6(100), [40], 0x7b)+r6(100, [40], 0x7b)+r6(2000, [600], 0x7c)+r6(300, [80, 200], 0x7e)+frags6(U6(100), [96], 0x7f)+frags6(U6(100), [104], 0x80)+frags6(U6(0), [], 0x81)+r6(100, [], 0x82))
add('asc-tun', svc4('-i --tun-type gue --tun-port 6080'), frags4(U(2000), [600], 0x7c))
add('asc-tun64', svc6('-i --tun-type gue --tun-port 6080', rs='10.0.0.7:80'), frags6(U6(100), [40], 0x7b)+frags6(U6(2000), [600], 0x7c)+frags6(U6(3000), [600, 1600], 0x7d))
add('asc-tun66', svc6('-i --tun-type gue --tun-port 6080'), frags6(U6(100), [40], 0x7b)+frags6(U6(2000), [600], 0x7c)+frags6(U6(3000), [600, 1600], 0x7d)+frags6(U6(100),[],0x7e))
only = sys.argv[1:]
for name, setup, steps, net in S:
    if only and name not in only: continue
    ifs = 2 if 'mtu1' in net else 1
    w = mknet(ifs, mtu1=net.get('mtu1'))
    t0 = time.monotonic()
    for c in setup: ipvs(c[len('ipvsadm '):])
    rec = []
    for st in steps:
        if isinstance(st, (int, float)):
            time.sleep(st)
            got = [(x.dev, f) for x in w for f in x.recv(0.02)]
            rec.append({'op': 'sleep', 'seconds': st, 'out': [{'dev': a, 'hex': f.hex()} for a, f in got], 't': round(time.monotonic() - t0, 2)}); continue
        who, st = st if isinstance(st, tuple) else ('c', st)
        f = w[0].send(st, src=RSMAC(7) if who == 's' else GWMAC)
        got = [(x.dev, g) for x in w for g in x.recv(0.02)]
        rec.append({'op': 'packet', 'dev': 'eth0', 'in': f.hex(), 'out': [{'dev': a, 'hex': g.hex()} for a, g in got], 't': round(time.monotonic() - t0, 2)})
    time.sleep(2.1)
    outjson(name + '.json', {'name': name, 'interfaces': ifs, 'net': net, 'setup': setup, 'steps': rec, 'end': {'-Ln --stats --exact': ipvs('-Ln --stats --exact'), '-Lnc': ipvs('-Lnc')}})
