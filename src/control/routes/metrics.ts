/** Metrics for Prometheus and whatever else reads OpenMetrics. */
import { METRIC_DETAILS, type MetricDetail, readMetrics } from '../metrics.ts';
import { METRIC_FORMATS, metricFormat, metricLines } from '../open-metrics.ts';
import { optional, word } from '../schema.ts';
import { type Route, type RouteEnvironment, route, Stream, type StreamClient } from './route.ts';

/** Lines that are written before packets have their turn: well below a millisecond. */
const LINES = 512;

export function metricRoutes(environment: RouteEnvironment): Route[] {
  return [
    route({
      method: 'GET',
      path: '/metrics',
      summary: 'Show metrics',
      description: 'OpenMetrics 1.0 if `Accept` asks for it, else Prometheus’ text format 0.0.4.',
      parameters: {
        detail: optional(
          word(METRIC_DETAILS, {
            default: 'servers',
            description: 'Down to what: 10,000 services are many lines.',
          }),
        ),
      },
      answer: { contentType: METRIC_FORMATS.openMetrics, description: 'Metrics as text.' },
      handle: ({ parameters: { detail = 'servers' }, headers }) => {
        const format = metricFormat(headers.accept as string | undefined);
        return new Stream(METRIC_FORMATS[format], client => {
          write(environment, detail, format, client).catch((error: Error) => {
            environment.log.error('metrics failed', { reason: error.message });
            // A scrape that ends early must not pass for a whole one.
            client.cut();
          });
        });
      },
    }),
  ];
}

async function write(
  environment: RouteEnvironment,
  detail: MetricDetail,
  format: keyof typeof METRIC_FORMATS,
  client: StreamClient,
): Promise<void> {
  const pause = (): Promise<void> => new Promise(resolve => setImmediate(resolve));
  let lines: string[] = [];
  for (const line of metricLines(await readMetrics(environment, detail, pause), format)) {
    lines.push(line);
    if (lines.length < LINES) continue;
    client.write(`${lines.join('\n')}\n`);
    lines = [];
    await client.drained();
    await pause();
    if (client.gone.aborted) return;
  }
  client.write(`${lines.join('\n')}\n`);
  client.end();
}
