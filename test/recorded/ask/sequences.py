#!/usr/bin/python3
"""Random sequences of packets, commands and pauses."""
import random, sys
from record import *
SEED, COUNT, STEPS = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
def scenario(seed):
    r = random.Random(seed); v6 = r.random() < 0.25
    vip, rs, cl = (VIP6, RS6, ['2001:db8:77::5', '2001:db8:77::6', '2001:db8:78::5']) if v6 else (VIP, RS, ['192.168.77.5', '192.168.77.6', '192.168.78.5'])
    br = lambda a, p: ('[%s]:%d' if v6 else '%s:%d') % (a, p)
    method = {n: r.choice('mmggi') for n in (7, 8, 9)}
    rport = {n: r.choice([80, 8080]) if method[n] == 'm' else 80 for n in method}
    sched = lambda: r.choice(['rr', 'rr', 'wrr', 'wlc', 'lc', 'sh', 'sed', 'nq'])
    persist = lambda: r.choice(['', '', '', ' -p 20', ' -p 60', ' -p 360', ' -p 60 -M ' + ('64' if v6 else '255.255.255.0')])
    vs = [('-t', 80), ('-u', 80)]
    if r.random() < .3: vs.append(('-t', 0))
    svc = lambda s: '%s %s' % (s[0], br(vip, s[1]))
    extra = lambda s: (persist() if s[1] else ' -p 60') + (' -o' if s[0] == '-u' and r.random() < .3 else '')
    port = lambda s, n: rport[n] if method[n] == 'm' and s[1] else s[1]
    thr = lambda: '' if r.random() < .6 else ' -x %d -y %d' % (lambda x: (x, r.choice([0, 0, max(0, x - 1), max(0, x - 2)])))(r.randint(1, 4))
    setup = []
    for k, vals in (('expire_nodest_conn', (0, 0, 1)), ('conn_reuse_mode', (1, 1, 0, 2)), ('expire_quiescent_template', (0, 1)), ('sloppy_tcp', (0, 0, 0, 1)), ('nat_icmp_send', (0, 0, 1))):
        v = r.choice(vals)
        if v != {'conn_reuse_mode': 1}.get(k, 0): setup.append('sysctl ipv4/vs/%s %d' % (k, v))
    for s in vs:
        setup.append('ipvsadm -A %s -s %s%s' % (svc(s), sched(), extra(s)))
        for n in method:
            if r.random() < .8: setup.append('ipvsadm -a %s -r %s -%s -w %d%s' % (svc(s), br(rs(n), port(s, n)), method[n], r.choice([1, 1, 2, 3, 0]), thr()))
    sc = Scenario('sequence-%d' % seed, setup, show=['-Lnc', '-Ln', '-Ln --stats --exact'])
    for i in range(STEPS):
        c, sp = r.choice(cl), r.choice([1000, 1001, 1002]); x = r.random()
        if x < .45: sc.client(tcp(c, sp, vip, r.choice([80, 80, 80, 80, 443]), r.choice(['S', 'S', 'S', 'A', 'A', 'PA', 'FA', 'R', 'RA', 'SA', 'FS']), seq=5000, ack=77, pl=b''))
        elif x < .55: sc.client(udp(c, sp, vip, r.choice([80, 80, 80, 53]), b'question'))
        elif x < .68:
            n = r.choice([7, 8, 9]); sc.server(n, tcp(rs(n), rport[n], c, sp, r.choice(['SA', 'A', 'FA', 'R', 'RA', 'PA']), seq=900, ack=5001))
        elif x < .72:
            n = r.choice([7, 8, 9]); sc.server(n, udp(rs(n), rport[n], c, sp, b'answer'))
        elif x < .92:
            s = r.choice(vs); n = r.choice([7, 8, 9]); y = r.random(); a = br(rs(n), port(s, n))
            if y < .3: sc.ipvsadm('-e %s -r %s -%s -w %d%s' % (svc(s), a, method[n], r.choice([0, 0, 1, 2, 5]), thr()))
            elif y < .5: sc.ipvsadm('-d %s -r %s' % (svc(s), a))
            elif y < .75: sc.ipvsadm('-a %s -r %s -%s -w %d%s' % (svc(s), a, method[n], r.choice([1, 1, 2, 0]), thr()))
            elif y < .82: sc.ipvsadm('-E %s -s %s%s' % (svc(s), sched(), extra(s)))
            elif y < .86: sc.ipvsadm('-D %s' % svc(s))
            elif y < .92: sc.ipvsadm('-A %s -s %s%s' % (svc(s), sched(), extra(s)))
            elif y < .94: sc.ipvsadm('-C')
            elif y < .97: sc.ipvsadm(r.choice(['-Z', '-Z ' + svc(s)]))
            else: sc.ipvsadm('--set %d %d %d' % (r.choice([0, 100, 30]), r.choice([0, 5, 20]), r.choice([0, 10, 60])))
        elif x < .96: sc.sleep(r.choice([1, 3, 5, 10, 15]))
        else: sc.sleep(r.choice([30, 61, 65, 70, 125, 130, 300, 1000]))
    sc.end()
for k in range(COUNT): scenario(SEED + k)
