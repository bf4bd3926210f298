#!/usr/bin/python3
"""The SIP persistence engine: what it takes for a Call-ID, and servers that begin a dialogue."""
from record import *
L = ['-Lnc --persistent-conn', '-Ln']
S = lambda m, extra='': ['ipvsadm -A -u %s:5060 -s rr%s -p 30 --pe sip' % (VIP, extra)] + ['ipvsadm -a -u %s:5060 -r %s:5060 -%s' % (VIP, RS(n), m) for n in (7, 8)]
head = b'INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP x\r\n'
sc = Scenario('sip-call-id', S('g'), show=L); port = [40000]
def say(b): port[0] += 1; sc.client(udp(CLIENT, port[0], VIP, 5060, b))
for b in [head + b'Call-ID: abc@h\r\n\r\n', head + b'call-id:abc@h\r\n\r\n', head + b'CALL-ID:     abc@h\r\n\r\n', head + b'Call-ID : abc@h\r\n\r\n', head + b'i: abc@h\r\n\r\n', head + b'Call-ID: abc@h x\r\n\r\n', head + b'Call-ID:\tabc@h\r\n\r\n',
    head + b'Call-ID: abc@h', head + b'Call-ID: abc@h\n\n', head + b'Call-ID: \r\n\r\n', head + b'Call-ID:\r\n\r\n', head + b'X-Call-ID: other@h\r\nCall-ID: real@h\r\n\r\n', b'Call-ID: first@h\r\nVia: x\r\n\r\n',
    head + b'Call-ID: ' + b'a' * 15 + b'\r\n\r\n',
    head + b'Subject: x\r\nContent: Call-ID: no@h\r\n\r\n', head + b'\r\nCall-ID: body@h\r\n', head + b'Call-ID: abc@h\r\nCall-ID: second@h\r\n\r\n', b'', b'\r\n', b'Call-ID: q@h\r', head + b'Call-ID: abc@h \r\n\r\n', head + b'Call-ID: ABC@h\r\n\r\n']: say(b)
sc.sleep(33); sc.end()
# ipvsadm itself dies of long engine data, in every listing of connections: only the table here.
sc = Scenario('sip-call-id-long', S('g'), show=['-Ln']); port[0] = 40000
for n in (100, 253, 254, 255, 256, 300): say(head + b'Call-ID: ' + b'%c' % (97 + n % 26) * n + b'\r\n\r\n')
for b in (b'\x00\x01\x80\xff@h', b'A b', b'\xe4@h'): say(head + b'Call-ID: ' + b + b'\r\n\r\n')
sc.sleep(33); sc.end(['-Ln', '-Ln --stats --exact'])
inv = lambda i: head + b'Call-ID: %s\r\n\r\n' % i
ok = lambda i: b'SIP/2.0 200 OK\r\nCall-ID: %s\r\n\r\n' % i
sc = Scenario('sip-nat', S('m'), show=L); sc.client(udp(CLIENT, 40000, VIP, 5060, inv(b'a@h'))); sc.server(8, udp(RS(8), 5060, CLIENT, 40000, ok(b'a@h')))
sc.client(udp('192.168.77.6', 40000, VIP, 5060, inv(b'a@h'))); sc.client(udp(CLIENT, 40000, VIP, 5060, b'not sip'))
sc.server(7, udp(RS(7), 5060, CLIENT, 5060, inv(b'new@h'))); sc.client(udp(CLIENT, 5060, VIP, 5060, ok(b'new@h'))); sc.client(udp('192.168.77.6', 5060, VIP, 5060, inv(b'new@h')))
sc.server(8, udp(RS(8), 5060, '192.168.77.9', 5060, b'not sip')); sc.server(7, udp(RS(7), 5061, CLIENT, 5060, inv(b'p@h'))); sc.server(9, udp(RS(9), 5060, CLIENT, 5060, inv(b'q@h'))); sc.end()
sc = Scenario('sip-ops-nat', S('m', ' -o'), show=L); sc.client(udp(CLIENT, 40000, VIP, 5060, inv(b'a@h'))); sc.server(8, udp(RS(8), 5060, CLIENT, 40000, ok(b'a@h'))); sc.server(7, udp(RS(7), 5060, CLIENT, 40000, ok(b'a@h')))
sc.server(7, udp(RS(7), 5060, CLIENT, 5060, inv(b'new@h'))); sc.client(udp(CLIENT, 5060, VIP, 5060, ok(b'new@h'))); sc.server(8, udp(RS(8), 5060, CLIENT, 40000, b'x')); sc.end()
sc = Scenario('sip-dr-out', S('g'), show=L); sc.server(7, udp(RS(7), 5060, CLIENT, 5060, inv(b'new@h'))); sc.client(udp(CLIENT, 5060, VIP, 5060, ok(b'new@h'))); sc.end()
sc = Scenario('sip-server-gone', S('g') + ['sysctl ipv4/vs/expire_quiescent_template 1'], show=L); sc.client(udp(CLIENT, 40000, VIP, 5060, inv(b'a@h'))); sc.ipvsadm('-e -u %s:5060 -r %s:5060 -g -w 0' % (VIP, RS(8))); sc.client(udp(CLIENT, 40001, VIP, 5060, inv(b'a@h'))); sc.client(udp(CLIENT, 40002, VIP, 5060, inv(b'b@h')))
sc.ipvsadm('-d -u %s:5060 -r %s:5060' % (VIP, RS(7))); sc.client(udp(CLIENT, 40003, VIP, 5060, inv(b'a@h'))); sc.end()
sc = Scenario('sip-mask', ['ipvsadm -A -u %s:5060 -s rr -p 30 -M 255.255.255.0 --pe sip' % VIP] + S('g')[1:], show=L)
for c in ('192.168.77.5', '192.168.77.6', '192.168.78.5'): sc.client(udp(c, 40000, VIP, 5060, inv(b'a@h')))
sc.end()
sc = Scenario('sip-mark', ['nft table ip m {\n chain p {\n type filter hook prerouting priority -150;\n ip daddr %s udp dport 5060-5061 meta mark set 3\n }\n}\n' % VIP, 'ipvsadm -A -f 3 -s rr -p 30 --pe sip'] + ['ipvsadm -a -f 3 -r %s:0 -g' % RS(n) for n in (7, 8)], show=L)
for p in (5060, 5061): sc.client(udp(CLIENT, 40000, VIP, p, inv(b'a@h')))
sc.client(udp('192.168.78.5', 40000, VIP, 5060, inv(b'b@h'))); sc.end()
sc = Scenario('sip-v6', ['ipvsadm -A -u [%s]:5060 -s rr -p 30 --pe sip' % VIP6] + ['ipvsadm -a -u [%s]:5060 -r [%s]:5060 -m' % (VIP6, RS6(n)) for n in (7, 8)], show=L)
for i in range(3): sc.client(udp(CLIENT6, 40000 + i, VIP6, 5060, inv(b'v6%d@h' % (i & 1))))
sc.server(7, udp(RS6(7), 5060, CLIENT6, 5060, inv(b'out6@h'))); sc.end()
