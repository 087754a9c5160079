// The text format of Prometheus, and what the gauges make of two readings of it.

export type Metrics = Map<string, number>;

// Sums over labels: the page shows totals.
export function parseMetrics(text: string): Metrics {
  const metrics: Metrics = new Map();
  for (const line of text.split("\n")) {
    const match = /^([a-zA-Z_:][\w:]*)(?:\{.*\})?\s+(\S+)/.exec(line);
    if (!match?.[1]) continue;
    const value = Number(match[2]);
    if (Number.isFinite(value)) metrics.set(match[1], (metrics.get(match[1]) ?? 0) + value);
  }
  return metrics;
}

export interface Reading {
  at: number; // seconds
  metrics: Metrics;
}

export interface Sample {
  at: number;
  tokensPerSecond: number;
  diskBytesPerSecond: number | null; // null: the first reading
  hitRate: number | null; // of experts asked for since the last reading; null: none was
  residentBytes: number;
  limitBytes: number;
  running: number;
  queued: number;
  contextTokens: number;
}

export function sample(before: Reading | undefined, now: Reading): Sample {
  const value = (name: string): number => now.metrics.get(`sluice_${name}`) ?? 0;
  // A counter that fell belongs to a server that was started again.
  const grown = (name: string): number =>
    before ? Math.max(0, value(name) - (before.metrics.get(`sluice_${name}`) ?? 0)) : 0;
  const seconds = before ? Math.max(now.at - before.at, 0.001) : 1;
  const requested = grown("experts_requested_total");
  return {
    at: now.at,
    tokensPerSecond: value("decode_tokens_per_second"),
    diskBytesPerSecond: before ? grown("disk_read_bytes_total") / seconds : null,
    hitRate: requested > 0 ? grown("experts_hit_total") / requested : null,
    residentBytes: value("resident_bytes"),
    limitBytes: value("memory_limit_bytes"),
    running: value("requests_running"),
    queued: value("requests_queued"),
    contextTokens: value("context_tokens_used"),
  };
}

const kUnits = ["B", "kB", "MB", "GB", "TB"];

export function bytes(count: number): string {
  let unit = 0;
  while (count >= 1000 && unit + 1 < kUnits.length) {
    count /= 1000;
    unit += 1;
  }
  return `${count >= 100 || unit === 0 ? count.toFixed(0) : count.toFixed(1)} ${kUnits[unit]}`;
}
