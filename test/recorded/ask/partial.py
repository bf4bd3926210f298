#!/usr/bin/python3
"""Tunnels with packets whose checksum the sender's device was to complete (`partial` in a step: where the sum starts
and where it goes, from the start of the frame), as a guest's or a local process's packets come: only these get the
GUE remote checksum option."""
import array, fcntl
from record import *
def txcsum_on(dev):
    v = array.array('I', [0x17, 1]); s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); fcntl.ioctl(s, 0x8946, struct.pack('16sP', dev.encode(), v.buffer_info()[0]) + bytes(16)); s.close()
class Partial:
    def __init__(self, sc):
        setns('ext'); txcsum_on('w0'); self.s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0); self.s.setsockopt(263, 15, 1); self.s.bind(('w0', 0)); setns('lb'); self.sc = sc
    def send(self, pkt):
        b = bytearray(pkt); v6 = b[0] >> 4 == 6; at = 40 if v6 else 20; proto = b[6] if v6 else b[9]; off = {6: 16, 17: 6}[proto]
        src, dst = (b[8:24], b[24:40]) if v6 else (b[12:16], b[16:20]); n = len(b) - at
        ph = bytes(src + dst) + (struct.pack('>I3xB', n, proto) if v6 else struct.pack('>BBH', 0, proto, n))
        b[at + off:at + off + 2] = struct.pack('>H', ~csum(ph) & 0xffff)
        f = MAC('02:00:00:00:00:01') + MAC(GWMAC) + struct.pack('>H', 0x86dd if v6 else 0x800) + bytes(b)
        self.s.send(struct.pack('<BBHHHH', 1, 0, 0, 0, 14 + at, off) + f)
        out = [{'dev': w.dev, 'hex': g.hex(), 'desc': describe(g)} for w in self.sc.wires for g in w.recv(0.02)]
        self.sc.step(None, op='packet', **{'from': 'client', 'dev': 'eth0', 'in': f.hex(), 'in_desc': describe(f), 'partial': [14 + at, 14 + at + off], 'out': out})
for t in ('gue --tun-port 6080 --tun-remcsum', 'gue --tun-port 6080 --tun-csum', 'gue --tun-port 6080 --tun-nocsum', 'gre --tun-csum', 'gre', 'ipip'):
    for v6 in (0, 1):
        v, r, c = ('[%s]' % VIP6, '[%s]' % RS6(7), CLIENT6) if v6 else (VIP, RS(7), CLIENT)
        setup = ['ipvsadm -A -t %s:80 -s rr' % v, 'ipvsadm -a -t %s:80 -r %s:80 -i --tun-type %s' % (v, r, t), 'ipvsadm -A -u %s:53 -s rr' % v, 'ipvsadm -a -u %s:53 -r %s:53 -i --tun-type %s' % (v, r, t)]
        sc = Scenario('partial-%s%s' % (t.replace(' --tun-port 6080', '').replace(' --tun-', '-'), '6' if v6 else ''), setup); p = Partial(sc)
        va = VIP6 if v6 else VIP
        p.send(tcp(c, 40000, va, 80)); p.send(tcp(c, 40000, va, 80, 'PA', pl=b'hello')); p.send(udp(c, 40000, va, 53, b'question')); p.s.close(); sc.end()
