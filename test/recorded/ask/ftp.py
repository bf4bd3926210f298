#!/usr/bin/python3
"""FTP through ip_vs_ftp: active and passive, the extended commands, and what is not recognised."""
from record import *
L = ['-Lnc']
NAT = lambda n, port=21, vip=VIP: ['modprobe ip_vs_ftp', 'ipvsadm -A -t %s:21 -s rr' % vip, 'ipvsadm -a -t %s:21 -r %s:%d -m' % (vip, RS(n), port)]
NAT6 = lambda n: ['modprobe ip_vs_ftp', 'ipvsadm -A -t [%s]:21 -s rr' % VIP6, 'ipvsadm -a -t [%s]:21 -r [%s]:21 -m' % (VIP6, RS6(n))]
def login(sc, n, **k):
    c = Stream(sc, 40000, 21, n, k.pop('rport', 21), **k); c.open(); c.answer('220 ready\r\n'); c.say('USER anonymous\r\n'); c.answer('230 in\r\n')
    return c

# Active: the server opens the data connection from its port 20.
sc = Scenario('ftp-active', NAT(7), show=L); c = login(sc, 7)
c.say('PORT 192,168,77,5,195,80\r\n'); c.answer('200 PORT\r\n'); c.say('LIST\r\n')
d = Stream(sc, 50000, 20, 7, 20, cseq=7000, sseq=9000)
d.down('S'); d.up('SA'); d.down('A'); d.down('PA', b'-rw file\r\n'); d.up('A'); d.down('FA'); d.up('FA'); d.down('A')
c.answer('226 done\r\n'); c.up('FA'); c.down('FA'); c.up('A')
sc.sleep(61); sc.end()

# The command connection ends first; the server's port is not 21.
sc = Scenario('ftp-active-port', NAT(7, 2121), show=L); c = login(sc, 7, rport=2121)
c.say('port 192,168,77,5,195,81\r\n'); c.answer('200 PORT\r\n')
d = Stream(sc, 50001, 20, 7, 2120, cseq=7000, sseq=9000)
d.down('S'); d.up('SA'); d.down('A'); c.up('R'); sc.sleep(12); sc.sleep(30); d.down('PA', b'late'); d.up('R'); sc.sleep(15); sc.sleep(61); sc.end()

def passive(c, sc, port, text, more=True):
    c.say('PASV\r\n'); c.answer(text)
    if not more: return
    d = Stream(sc, 41000, port, c.n, port, cseq=100, sseq=200, vip=c.v[0])
    d.open(); d.down('PA', b'data'); d.up('A'); d.up('FA'); d.down('FA'); d.up('A'); return d

# Passive, the address in the answer gets shorter: later numbers of the server are adjusted, and the client's acknowledgements.
sc = Scenario('ftp-passive', NAT(15), show=L); c = login(sc, 15)
a227 = '227 Entering Passive Mode (10,0,0,15,195,80).\r\n'
c.say('PASV\r\n'); c.down('PA', a227.encode())
c.up('A')
d = Stream(sc, 41000, 50000, 15, 50000, cseq=100, sseq=200); d.open(); d.down('PA', b'data'); d.up('A'); d.down('FA'); d.up('FA'); d.down('A')
c.say('RETR a\r\n'); c.answer('226 done\r\n')
sack = lambda l, r: struct.pack('>BBBBII', 1, 1, 5, 10, l, r)
c.up('A', opts=sack(c.cseen + 10, c.cseen + 20)); c.down('A', opts=sack(c.sseen + 10, c.sseen + 20))
passive(c, sc, 50001, '227 Entering Passive Mode (10,0,0,15,195,81).\r\n'); c.say('NOOP\r\n'); c.answer('200 ok\r\n')
c.down('PA', b'200 ok\r\n', again=8); c.down('FA'); c.up('FA'); c.down('A'); sc.sleep(61); sc.end()

# The VIP is longer than the server's address.
sc = Scenario('ftp-passive-longer', ['sh ip addr add 10.0.0.200/32 dev lo'] + NAT(7, vip='10.0.0.200'), show=L); c = login(sc, 7, vip='10.0.0.200')
passive(c, sc, 50002, '227 Entering Passive Mode (10,0,0,7,195,82)\r\n')
passive(c, sc, 50003, '227 Entering Passive Mode (10,0,0,7,195,83)\r\n'); c.say('QUIT\r\n'); c.answer('221 bye\r\n'); sc.end()
# Numbers wrap round.
sc = Scenario('ftp-passive-wrap', NAT(15), show=L); c = login(sc, 15, sseq=0xffffffff - 60, cseq=0xfffffff0)
passive(c, sc, 50002, '227 Entering Passive Mode (10,0,0,15,195,82)\r\n'); c.say('NOOP\r\n'); c.answer('200 ok\r\n'); sc.end()

# Odd answers and commands.
for name, ask, text in [
    ('bare', 'PASV\r\n', '227 =10,0,0,15,195,84\r\n'), ('lower', 'pasv\r\n', '227 ok (10,0,0,15,195,84)\r\n'), ('zeros', 'PASV\r\n', '227 x (010,000,000,015,195,084)\r\n'),
    ('other-address', 'PASV\r\n', '227 x (10,0,0,8,195,84)\r\n'), ('short', 'PASV\r\n', '227 x (10,0,0,15,195)\r\n'), ('unasked', 'NOOP\r\n', '227 x (10,0,0,15,195,84)\r\n'),
    ('multiline', 'PASV\r\n', '200-x\r\n227 x (10,0,0,15,195,84)\r\n'), ('big', 'PASV\r\n', '227 x (10,0,0,15,451,340)\r\n'), ('pipelined', 'NOOP\r\nPASV\r\n', '227 x (10,0,0,15,195,84)\r\n'),
    ('lf', 'PASV\n', '227 x (10,0,0,15,195,84)\r\n'), ('cut', 'PASV\r\n', '227 x (10,0,0,15,195,84'), ('twice', 'PASV\r\n', '227 x ((10,0,0,15,195,84)\r\n'),
    ('port-zero', 'PASV\r\n', '227 x (10,0,0,15,0,0)\r\n'), ('seven', 'PASV\r\n', '227 x (10,0,0,15,195,84,9)\r\n')]:
    sc = Scenario('ftp-227-' + name, NAT(15), show=L); c = login(sc, 15); c.say(ask); c.answer(text); c.say('NOOP\r\n'); c.answer('200 ok\r\n')
    Stream(sc, 41000, 50004, 15, 50004).open(); sc.end()
for name, text in [('spaces', 'PORT    192,168,77,5,195,80\r\n'), ('nospace', 'PORT192,168,77,5,195,80\r\n'), ('other', 'PORT 192,168,77,99,195,80\r\n'), ('short', 'PORT 192,168,77,5,195\r\n'),
    ('second-line', 'NOOP\r\nPORT 192,168,77,5,195,80\r\n'), ('cut', 'PORT 192,168,77,5,195,80'), ('eprt', 'EPRT |1|192.168.77.5|50000|\r\n'), ('eprt-colon', 'eprt :1:192.168.77.5:50000:\r\n'),
    ('eprt-family', 'EPRT |2|2001:db8:77::5|50000|\r\n'), ('eprt-bad', 'EPRT |1|192.168.77|50000|\r\n'), ('eprt-port', 'EPRT |1|192.168.77.5|0|\r\n'), ('eprt-big', 'EPRT |1|192.168.77.5|115536|\r\n')]:
    sc = Scenario('ftp-port-' + name, NAT(7), show=L); c = login(sc, 7); c.say(text); c.answer('200 ok\r\n'); Stream(sc, 50000, 20, 7, 20).down('S'); sc.end()

# Extended passive.
for name, ask, text in [('plain', 'EPSV\r\n', '229 Extended (|||50005|)\r\n'), ('one', 'EPSV 1\r\n', '229 Extended (|||50005|)\r\n'), ('two', 'EPSV 2\r\n', '229 Extended (|||50005|)\r\n'),
    ('address', 'EPSV\r\n', '229 Extended (|1|10.0.0.15|50005|)\r\n'), ('all', 'EPSV ALL\r\n', '229 Extended (|||50005|)\r\n'), ('bang', 'EPSV\r\n', '229 Extended (!!!50005!)\r\n'),
    ('bare', 'EPSV\r\n', '229 |||50005|\r\n'), ('after-pasv', 'PASV\r\n', '229 Extended (|||50005|)\r\n')]:
    sc = Scenario('ftp-229-' + name, NAT(15), show=L); c = login(sc, 15); c.say(ask); c.answer(text); c.say('NOOP\r\n'); c.answer('200 ok\r\n')
    Stream(sc, 41000, 50005, 15, 50005).open(); sc.end()

# IPv6.
V6 = dict(client=CLIENT6, vip=VIP6)
sc = Scenario('ftp6-eprt', NAT6(7), show=L); c = login(sc, 7, **V6); c.say('EPRT |2|%s|50000|\r\n' % CLIENT6); c.answer('200 ok\r\n')
d = Stream(sc, 50000, 20, 7, 20, **V6); d.down('S'); d.up('SA'); d.down('A'); d.down('FA'); d.up('FA'); sc.end()
sc = Scenario('ftp6-epsv', NAT6(7), show=L); c = login(sc, 7, **V6); c.say('EPSV\r\n'); c.answer('229 Extended (|||50006|)\r\n')
Stream(sc, 41000, 50006, 7, 50006, **V6).open(); c.say('EPSV 2\r\n'); c.answer('229 x (|2|%s|50007|)\r\n' % RS6(7)); c.say('NOOP\r\n'); c.answer('200 ok\r\n'); Stream(sc, 41001, 50007, 7, 50007, **V6).open(); sc.end()
sc = Scenario('ftp6-pasv', NAT6(7), show=L); c = login(sc, 7, **V6); c.say('PASV\r\n'); c.answer('227 x (10,0,0,7,195,80)\r\n'); sc.end()

# Two data connections from one answer; one that nobody uses runs out.
sc = Scenario('ftp-passive-unused', NAT(15), show=L); c = login(sc, 15); passive(c, sc, 0, a227, False); sc.sleep(119); sc.sleep(5); sc.end()
sc = Scenario('ftp-passive-race', NAT(15), show=L); c = login(sc, 15); passive(c, sc, 0, a227, False)
Stream(sc, 41000, 50000, 15, 50000).open(); Stream(sc, 41001, 50000, 15, 50000).up('S')
sc.client(tcp('192.168.77.99', 41000, VIP, 50000)); sc.end()
# The answer comes before the connection is established (no ACK of the client yet).
sc = Scenario('ftp-early', NAT(15), show=L); c = Stream(sc, 40000, 21, 15, 21); c.up('S'); c.down('SA'); c.down('PA', b'220 hello\r\n'); c.up('PA', b'PASV\r\n'); c.answer(a227); sc.end()

# Persistent services: all ports of a client go to one server.
P = lambda m: ['modprobe ip_vs_ftp', 'ipvsadm -A -t %s:21 -s rr -p 60' % VIP] + ['ipvsadm -a -t %s:21 -r %s:21 -%s' % (VIP, RS(n), m) for n in (7, 8)]
for m in 'gi':
    sc = Scenario('ftp-persistent-' + m, P(m), show=['-Lnc', '-Ln'])
    sc.client(tcp(CLIENT, 40000, VIP, 21)); sc.client(tcp(CLIENT, 40000, VIP, 21, 'A')); sc.client(tcp(CLIENT, 41000, VIP, 50000)); sc.client(tcp('192.168.77.6', 41000, VIP, 50000))
    sc.client(tcp(CLIENT, 41000, VIP, 999)); sc.client(tcp(CLIENT, 20, VIP, 50000)); sc.client(tcp(CLIENT, 41001, VIP, 20)); sc.client(tcp(CLIENT, 41002, VIP, 20, 'SA')); sc.end()
sc = Scenario('ftp-persistent-m', P('m'), show=['-Lnc', '-Ln'])
c = login(sc, 8); c.say('PASV\r\n'); c.answer('227 x (10,0,0,8,195,80)\r\n'); Stream(sc, 41000, 50000, 8, 50000).open(); Stream(sc, 41001, 50001, 8, 50001).open()
c.say('PORT 192,168,77,5,195,81\r\n'); Stream(sc, 50001, 20, 8, 20).down('S'); sc.end()
# Not persistent: other ports are not the service's.
sc = Scenario('ftp-not-persistent', NAT(7), show=L); login(sc, 7); sc.client(tcp(CLIENT, 41000, VIP, 50000)); sc.client(tcp(CLIENT, 20, VIP, 21)); sc.end()
# The answer is lost and comes again.
sc = Scenario('ftp-passive-again', NAT(15), show=L); c = login(sc, 15); c.say('PASV\r\n'); c.down('PA', a227.encode()); c.down('PA', a227.encode(), again=len(a227)); c.up('A'); sc.end()
