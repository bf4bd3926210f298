#!/usr/bin/python3
"""secure_tcp, drop_packet and drop_entry. What depends on chance or on the guest's memory goes to random/."""
from record import *
L = ['-Lnc', '-Ln']
S = lambda m, extra='', port=80: ['ipvsadm -A -t %s:80 -s rr%s' % (VIP, extra), 'ipvsadm -a -t %s:80 -r %s:%d -%s' % (VIP, RS(7), port, m)]
def tcpcase(sc, sport, steps, n=7, rport=80):
    """steps: flags, upper case from the client, lower case from the server"""
    c = Stream(sc, sport, 80, n, rport)
    for f in steps.split(): c.up(f, b'x' if 'P' in f else b'') if f.isupper() else c.down(f.upper(), b'y' if 'p' in f else b'')
WAYS = ['S sa A PA pa FA fa A', 'S A PA', 'S S A sa A', 'S sa R', 'S sa ra', 'S R S', 'S sa S sa A', 'S sa FA', 'S FA A', 'S sa sa pa A', 'S sa A fa A FA a', 'SA A', 'S sa A R S sa A', 'S ra S', 'S sa A FA S', 'S sa A FA fa A S']
for m in 'mg':
    for level in (3, 0):
        sc = Scenario('secure-tcp-%d-%s' % (level, m), ['sysctl ipv4/vs/secure_tcp %d' % level] + S(m), show=L); sc.sleep(2)
        for i, w in enumerate(WAYS): tcpcase(sc, 40000 + i, w)
        sc.end()
# Switched on and off while connections are there; in force within a second.
sc = Scenario('secure-tcp-switch', S('m'), show=L); sc.sleep(2); tcpcase(sc, 40000, 'S'); sc.sh('sysctl ipv4/vs/secure_tcp 3'); sc.sleep(1.2); tcpcase(sc, 40001, 'S'); sc.client(tcp(CLIENT, 40000, VIP, 80, 'A')); sc.client(tcp(CLIENT, 40001, VIP, 80, 'A'))
sc.sh('sysctl ipv4/vs/secure_tcp 0'); sc.sleep(1.2); sc.client(tcp(CLIENT, 40001, VIP, 80, 'A')); sc.end()
sc = Scenario('secure-tcp-timeouts', ['sysctl ipv4/vs/secure_tcp 3'] + S('g'), show=L); sc.sleep(2)
tcpcase(sc, 40000, 'S'); sc.ipvsadm('--set 100 20 50'); tcpcase(sc, 40001, 'S A FA'); tcpcase(sc, 40002, 'S A'); sc.sleep(50); sc.end()

# drop_packet 3: one in am_droprate of those that would begin a connection.
for rate in (10, 3, 1):
    sc = Scenario('drop-packet-%d' % rate, ['sysctl ipv4/vs/am_droprate %d' % rate, 'sysctl ipv4/vs/drop_packet 3'] + S('m') + ['ipvsadm -A -u %s:53 -s rr' % VIP, 'ipvsadm -a -u %s:53 -r %s:53 -g' % (VIP, RS(8))], show=['-Ln']); sc.sleep(2)
    for i in range(24): sc.client(tcp(CLIENT, 41000 + i, VIP, 80) if i % 3 else udp(CLIENT, 41000 + i, VIP, 53))
    for i in range(4): sc.client(tcp(CLIENT, 41001, VIP, 80, 'A')); sc.client(tcp(CLIENT, 42000 + i, VIP, 80, 'A')); sc.client(tcp(CLIENT, 42000 + i, VIP, 99))
    sc.end()
sc = Scenario('drop-packet-switch', ['sysctl ipv4/vs/am_droprate 2'] + S('m'), show=['-Ln']); sc.sleep(2)
go = lambda a, n: [sc.client(tcp(CLIENT, a + i, VIP, 80)) for i in range(n)]
go(41000, 4); sc.sh('sysctl ipv4/vs/drop_packet 3'); sc.sleep(1.2); go(41010, 5); sc.sh('sysctl ipv4/vs/am_droprate 4'); sc.sleep(1.2); go(41020, 9); sc.sh('sysctl ipv4/vs/drop_packet 0'); sc.sleep(1.2); go(41040, 4); sc.sh('sysctl ipv4/vs/drop_packet 3'); sc.sleep(1.2); go(41050, 6); sc.end()
sc = Scenario('drop-packet-persist', ['sysctl ipv4/vs/am_droprate 3', 'sysctl ipv4/vs/drop_packet 3'] + S('g', ' -p 60'), show=L); sc.sleep(2); go(41000, 8); sc.end()
sc = Scenario('drop-packet-no-server', ['sysctl ipv4/vs/am_droprate 2', 'sysctl ipv4/vs/drop_packet 3', 'ipvsadm -A -t %s:80 -s rr' % VIP], show=L); sc.sleep(2); go(41000, 6); sc.end()

# drop_entry 3: how many connections of each kind are left after so many seconds.
def states():
    r = {}
    for l in ipvs('-Lnc').split('\n')[2:]:
        t = l.split()
        if t: k = t[0] + ' ' + t[2] + (' template' if t[3].endswith(':0') else '') + ' ' + t[4].rsplit(':', 1)[1]; r[k] = r.get(k, 0) + 1
    return r
sc = Scenario('drop-entry', ['sysctl ipv4/vs/drop_entry 3'])
ipvs('-A -t 10.0.0.3:80 -s rr'); ipvs('-a -t 10.0.0.3:80 -r 10.0.0.7:80 -g'); ipvs('-A -t 10.0.0.3:81 -s rr -p 300'); ipvs('-a -t 10.0.0.3:81 -r 10.0.0.7:81 -g')
ipvs('-A -u 10.0.0.3:53 -s rr'); ipvs('-a -u 10.0.0.3:53 -r 10.0.0.7:53 -g'); ipvs('-A -t 10.0.0.3:82 -s rr'); ipvs('-a -t 10.0.0.3:82 -r 10.0.0.7:82 -g')
ipvs('-A -t 10.0.0.3:83 -s rr'); ipvs('-a -t 10.0.0.3:83 -r 10.0.0.7:83 -g')
N = 300; w = sc.wires[0]
for i in range(N):
    a = '192.168.%d.%d' % (80 + i // 200, 1 + i % 200)
    for p in (80, 81, 82, 83): w.send(tcp(a, 1000 + i, VIP, p))
    for k in range(3): w.send(tcp(a, 1000 + i, VIP, 82, 'A'))
    for k in range(12): w.send(tcp(a, 1000 + i, VIP, 83, 'A'))
    w.send(udp(a, 1000 + i, VIP, 53)); w.send(tcp(a, 5000 + i, VIP, 81, 'A')); w.recv(0.001)
w.recv(0.5); counts_ = [{'t': 0, 'states': states()}]; t0 = time.monotonic()
for t in (5, 10, 20, 30, 40, 55, 70, 100, 150, 200, 250):
    time.sleep(max(0, t0 + t - time.monotonic())); counts_.append({'t': t, 'states': states()})
outjson('random/drop-entry.json', {'connections': N, 'kinds': {'80': 'a SYN', '81': 'a SYN, persistent', '82': 'a SYN and 3 ACK', '83': 'a SYN and 12 ACK', '53': 'a datagram'}, 'counts': counts_})

# The automatic levels: the guest is made to seem short of memory.
sc = Scenario('automatic', S('m')); log = []
vs = lambda k: open('/proc/sys/net/ipv4/vs/' + k).read().strip()
def look(what): log.append(dict(what=what, **{k: int(vs(k)) for k in ('amemthresh', 'drop_entry', 'drop_packet', 'secure_tcp')}))
look('as it starts')
for k in ('drop_entry', 'drop_packet', 'secure_tcp'): sysctl('ipv4/vs/' + k, 1)
time.sleep(1.5); look('level 1, memory enough'); sysctl('ipv4/vs/amemthresh', 1 << 28); time.sleep(1.5); look('level 1, memory short')
c = Stream(sc, 40000, 80, 7, 80); c.up('S'); c.up('A'); log.append({'listing': ipvs('-Lnc')})
sysctl('ipv4/vs/amemthresh', 1024); time.sleep(1.5); look('memory enough again')
c = Stream(sc, 40001, 80, 7, 80); c.up('S'); c.up('A'); log.append({'listing': ipvs('-Lnc')})
for k in ('drop_entry', 'drop_packet', 'secure_tcp'): sysctl('ipv4/vs/' + k, 2)
look('level 2 set by hand'); time.sleep(1.5); look('a second later, memory enough')
bad = {}
for k, values in {'drop_entry': ('4', '-1', 'x', '', '1 2'), 'drop_packet': ('4', '-1'), 'secure_tcp': ('4', '-1'), 'amemthresh': ('-1', '4294967296', '0x10', '0'), 'am_droprate': ('0', '-1'), 'conn_reuse_mode': ('4', '-1', '255'), 'expire_nodest_conn': ('2', '-1'),
    'expire_quiescent_template': ('2',), 'sloppy_tcp': ('2',), 'sloppy_sctp': ('2',), 'schedule_icmp': ('2',), 'nat_icmp_send': ('2',), 'pmtu_disc': ('2',), 'ignore_tunneled': ('2',), 'backup_only': ('2',), 'cache_bypass': ('2', '-5'), 'run_estimation': ('2',), 'conntrack': ('2',), 'snat_reroute': ('2',),
    'sync_version': ('2', '-1', '0'), 'sync_ports': ('3', '0', '64'), 'sync_persist_mode': ('2',), 'sync_threshold': ('5 3', '3', '0 0', '-1 4'), 'sync_refresh_period': ('10', '-1'), 'sync_retries': ('4', '3', '-1'), 'sync_qlen_max': ('0', '-1'), 'sync_sock_size': ('0', '-1'), 'lblc_expiration': ('0', '-1', '10'), 'lblcr_expiration': ('0', '-1')}.items():
    for v in values:
        try: before = vs(k)
        except OSError: bad[k] = 'missing'; break
        try: sysctl('ipv4/vs/' + k, v); r = 'ok'
        except OSError as e: r = e.strerror
        bad['%s=%s' % (k, v)] = [before, r, vs(k)]
        try: sysctl('ipv4/vs/' + k, before.replace('\t', ' '))
        except OSError: pass
names = {}
for k in sorted(os.listdir('/proc/sys/net/ipv4/vs')): names[k] = vs(k)
outjson('random/automatic.json', {'log': log, 'values': bad, 'names': names})
