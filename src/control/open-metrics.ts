/**
 * The two text forms in which metrics are scraped: OpenMetrics 1.0 (https://prometheus.io/docs/specs/om/open_metrics_spec/)
 * and Prometheus' own, version 0.0.4, for what does not ask for the former.
 */

export type MetricType = 'counter' | 'gauge' | 'info';

export interface Metric {
  /** Without `_total` and `_info`; with the unit at its end. */
  name: string;
  type: MetricType;
  /** One sentence. */
  help: string;
  /** What the name ends with: `seconds`, `bytes`. */
  unit?: string;
  samples: Iterable<Sample>;
}

export interface Sample {
  /** As `labelText` writes them; empty without any. */
  labels: string;
  value: number;
}

export const METRIC_FORMATS = {
  openMetrics: 'application/openmetrics-text; version=1.0.0; charset=utf-8',
  prometheus: 'text/plain; version=0.0.4; charset=utf-8',
} as const;
export type MetricFormat = keyof typeof METRIC_FORMATS;

/** The form that a client's `Accept` asks for. */
export function metricFormat(accept: string | undefined): MetricFormat {
  return accept?.includes('application/openmetrics-text') ? 'openMetrics' : 'prometheus';
}

/** `{a="b",c="d"}` */
export function labelText(labels: Readonly<Record<string, string>>): string {
  const parts = Object.entries(labels).map(([name, value]) => `${name}="${escaped(value, /["\\\n]/g)}"`);
  return parts.length === 0 ? '' : `{${parts.join(',')}}`;
}

/** Lines without their ends, one after the other. */
export function* metricLines(metrics: Iterable<Metric>, format: MetricFormat): Generator<string> {
  for (const { name, type, help, unit, samples } of metrics) {
    const suffix = type === 'counter' ? '_total' : type === 'info' ? '_info' : '';
    const isOpen = format === 'openMetrics';
    // Prometheus' own form knows no info, and calls a counter by its whole name.
    const family = isOpen ? name : `${name}${suffix}`;
    yield `# TYPE ${family} ${type === 'info' && !isOpen ? 'gauge' : type}`;
    if (unit !== undefined && isOpen) yield `# UNIT ${family} ${unit}`;
    yield `# HELP ${family} ${escaped(help, isOpen ? /["\\\n]/g : /[\\\n]/g)}`;
    for (const { labels, value } of samples) {
      yield `${name}${suffix}${labels} ${value === Number.POSITIVE_INFINITY ? '+Inf' : value}`;
    }
  }
  if (format === 'openMetrics') yield '# EOF';
}

function escaped(text: string, special: RegExp): string {
  return text.replace(special, letter => (letter === '\n' ? '\\n' : `\\${letter}`));
}
