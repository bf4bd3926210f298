/** Metrics as monitoring sees them: the real promtool reads them, the real Prometheus scrapes them and answers the dashboard's queries. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { runBin, startDaemon, temporaryFolder } from '../src/control/daemon.fixture.ts';
import { missing } from './requirements.ts';

const TOKEN = 'scraper-0123456789abcdef';
const CONFIGURATION = `
-A -t 10.0.0.3:80 -s wrr
-a -t 10.0.0.3:80 -r 10.0.0.7:80 -g -w 1
-a -t 10.0.0.3:80 -r 10.0.0.8:80 -g -w 0
-A -u [2001:db8::3]:53 -s rr
-a -u [2001:db8::3]:53 -r [2001:db8::7]:53 -m
-A -f 7 -s sh
`;

interface Place {
  folder: string;
  port: string;
  environment: Record<string, string>;
}

async function director(context: TestContext): Promise<Place> {
  const folder = temporaryFolder(context);
  const environment = { DIRIGO_SOCKET: join(folder, 'd.sock') };
  const token = join(folder, 'token');
  writeFileSync(token, TOKEN, { mode: 0o600 });
  await startDaemon(context, environment, ['--listen', '127.0.0.1:0', '--token-file', token]);
  assert.equal(runBin('ipvsadm', ['-R'], environment, { input: CONFIGURATION.trimStart() }).status, 0);
  const { listen } = JSON.parse(runBin('dirigo', ['status', '--json'], environment).stdout) as {
    listen: string;
  };
  return { folder, port: listen.split(':')[1] ?? '', environment };
}

async function scrape(port: string, accept?: string, query = ''): Promise<{ type: string; text: string }> {
  const response = await fetch(`http://127.0.0.1:${port}/metrics${query}`, {
    headers: { Authorization: `Bearer ${TOKEN}`, ...(accept !== undefined && { Accept: accept }) },
  });
  assert.equal(response.status, 200);
  return { type: response.headers.get('content-type') ?? '', text: await response.text() };
}

test('the form is the one that was asked for, and promtool has no complaint', {
  skip: missing('promtool'),
}, async context => {
  const { port } = await director(context);
  const plain = await scrape(port);
  assert.equal(plain.type, 'text/plain; version=0.0.4; charset=utf-8');
  const checked = spawnSync('promtool', ['check', 'metrics'], { input: plain.text, encoding: 'utf8' });
  assert.deepEqual([checked.status, checked.stdout, checked.stderr], [0, '', '']);
  const open = await scrape(port, 'application/openmetrics-text; version=1.0.0');
  assert.equal(open.type, 'application/openmetrics-text; version=1.0.0; charset=utf-8');
  assert.match(open.text, /\n# EOF\n$/);
  assert.match(
    open.text,
    /# TYPE dirigo_in_bytes counter\n# UNIT dirigo_in_bytes bytes\n# HELP [^\n]+\ndirigo_in_bytes_total 0\n/,
  );
  assert.match(
    open.text,
    /\ndirigo_server_weight\{service="udp \[2001:db8::3\]:53",server="\[2001:db8::7\]:53"\} 1\n/,
  );
  // Each family stands together, each sample once.
  const families = [...open.text.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name);
  assert.equal(new Set(families).size, families.length);
  const samples = open.text.split('\n').filter(line => line !== '' && !line.startsWith('#'));
  assert.equal(new Set(samples.map(line => line.replace(/ \S+$/, ''))).size, samples.length);
});

test('less detail is fewer lines', async context => {
  const { port } = await director(context);
  const count = async (detail: string): Promise<[boolean, boolean]> => {
    const { text } = await scrape(port, undefined, `?detail=${detail}`);
    return [text.includes('dirigo_service_in_packets'), text.includes('dirigo_server_weight')];
  };
  assert.deepEqual(await count('director'), [false, false]);
  assert.deepEqual(await count('services'), [true, false]);
  assert.deepEqual(await count('servers'), [true, true]);
});

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise(resolve => server.close(resolve));
  return port;
}

/** A Prometheus of this test's own that scrapes the director every second. */
async function prometheus(context: TestContext, { folder, port }: Place): Promise<string> {
  const configuration = join(folder, 'prometheus.yml');
  writeFileSync(
    configuration,
    `global: {scrape_interval: 1s, scrape_timeout: 1s}
scrape_configs:
  - job_name: dirigo
    authorization: {credentials_file: ${join(folder, 'token')}}
    static_configs: [{targets: ['127.0.0.1:${port}']}]
`,
  );
  const listen = `127.0.0.1:${await freePort()}`;
  const server = spawn('prometheus', [
    `--config.file=${configuration}`,
    `--storage.tsdb.path=${join(folder, 'tsdb')}`,
    `--web.listen-address=${listen}`,
  ]);
  const ended = new Promise(resolve => server.once('exit', resolve));
  context.after(async () => {
    server.kill('SIGTERM');
    await ended;
  });
  let said = '';
  server.stderr.on('data', chunk => {
    said += chunk;
  });
  for (const end = performance.now() + 30_000; ; ) {
    const up = await query(`http://${listen}`, 'count_over_time(up{job="dirigo"}[1m]) >= 3').catch(() => []);
    if (up.length > 0) return `http://${listen}`;
    assert.ok(performance.now() < end, said);
    await new Promise(resolve => setTimeout(resolve, 200));
  }
}

interface Series {
  metric: Record<string, string>;
  value: [number, string];
}

async function query(server: string, expression: string): Promise<Series[]> {
  const response = await fetch(`${server}/api/v1/query?query=${encodeURIComponent(expression)}`);
  const answer = (await response.json()) as { status: string; error?: string; data?: { result: Series[] } };
  assert.equal(answer.status, 'success', `${expression}: ${answer.error}`);
  return answer.data?.result ?? [];
}

interface Dashboard {
  uid: string;
  title: string;
  schemaVersion: number;
  templating: { list: { name: string; type: string; definition?: string }[] };
  panels: {
    id: number;
    type: string;
    title: string;
    gridPos: { x: number; y: number; w: number; h: number };
    targets?: { expr: string; refId: string; legendFormat?: string }[];
  }[];
}

function dashboard(): Dashboard {
  return JSON.parse(
    readFileSync(new URL('../docs/grafana-dashboard.json', import.meta.url), 'utf8'),
  ) as Dashboard;
}

/** What Grafana makes of a query before it asks. */
function filledIn(expression: string): string {
  return expression.replaceAll('$__rate_interval', '10s').replace(/\$[a-z]+/g, '.*');
}

test('Prometheus scrapes it, and answers all queries of the dashboard', {
  skip: missing('prometheus', 'promtool'),
}, async context => {
  const place = await director(context);
  const server = await prometheus(context, place);
  const [up] = await query(server, 'up{job="dirigo"}');
  assert.equal(up?.value[1], '1');
  const weights = await query(server, 'dirigo_server_weight');
  assert.deepEqual(
    weights.map(({ metric: { service, server: name }, value }) => [service, name, value[1]]).sort(),
    [
      ['tcp 10.0.0.3:80', '10.0.0.7:80', '1'],
      ['tcp 10.0.0.3:80', '10.0.0.8:80', '0'],
      ['udp [2001:db8::3]:53', '[2001:db8::7]:53', '1'],
    ],
  );
  const described = (await (await fetch(`${server}/api/v1/metadata`)).json()) as {
    data: Record<string, { type: string }[]>;
  };
  const { panels } = dashboard();
  const targets = panels.flatMap(({ targets = [] }) => targets);
  assert.ok(targets.length > 20);
  for (const { expr, legendFormat = '' } of targets) {
    await query(server, filledIn(expr));
    // A query without an answer may be right (no drops): so every metric and label in it has to be there by itself.
    for (const [, name = '', matchers = ''] of expr.matchAll(/\b((?:dirigo|process)_[a-z_]+)\{([^}]*)\}/g)) {
      const known = described.data[name.replace(/_total$/, '')] ?? described.data[name];
      assert.ok(known, `${name} is a metric`);
      const series = await query(server, name);
      // Without a program in the kernel or a connection, these have no samples: their labels are checked in the code's test.
      if (
        series.length === 0 &&
        /^dirigo_(connections|program_packets_total|datapath_drops_total)$/.test(name)
      )
        continue;
      const labels = [
        ...[...matchers.matchAll(/([a-z_]+)[=!]/g)].map(([, label]) => label as string),
        ...[...legendFormat.matchAll(/\{\{([a-z_]+)\}\}/g)].map(([, label]) => label as string),
        ...[...expr.matchAll(/by \(([^)]+)\)/g)].flatMap(([, list = '']) => list.split(', ')),
      ];
      for (const label of labels)
        assert.ok(
          series.some(({ metric }) => label in metric),
          `${name} has ${label}`,
        );
    }
  }
  await assert.rejects(query(server, 'sum(rate(dirigo_in_packets_total{)'), 'a wrong query is found out');
});

test('the dashboard has the form that Grafana loads', () => {
  const { uid, title, schemaVersion, panels, templating } = dashboard();
  assert.deepEqual([uid, title], ['dirigo', 'Dirigo']);
  assert.ok(schemaVersion >= 36);
  assert.equal(new Set(panels.map(({ id }) => id)).size, panels.length);
  for (const [at, panel] of panels.entries()) {
    const { x, y, w, h } = panel.gridPos;
    assert.ok(x >= 0 && x + w <= 24 && h > 0, panel.title);
    const overlap = panels
      .slice(0, at)
      .find(
        ({ gridPos: other }) =>
          x < other.x + other.w && other.x < x + w && y < other.y + other.h && other.y < y + h,
      );
    assert.equal(overlap, undefined, panel.title);
    if (panel.type === 'row') continue;
    const refs = (panel.targets ?? []).map(({ refId }) => refId);
    assert.ok(refs.length > 0 && new Set(refs).size === refs.length, panel.title);
  }
  const variables = templating.list.map(({ name }) => name);
  const used = JSON.stringify(panels).matchAll(/\$\{?([a-z]+)/g);
  for (const [, name] of used) assert.ok(variables.includes(name as string), `$${name} is a variable`);
});
