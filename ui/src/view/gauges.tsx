// What the server is doing, from /metrics every two seconds while in view.
import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import { request } from "../api/client";
import { bytes, parseMetrics, sample, type Reading, type Sample } from "../api/metrics";

const kPeriodMs = 2000;
const kSamplesMax = 120;

function useSamples(): [Sample[], string] {
  const [samples, setSamples] = useState<Sample[]>([]);
  const [problem, setProblem] = useState("");
  useEffect(() => {
    let before: Reading | undefined;
    let timer = 0;
    let gone = false;
    const read = async (): Promise<void> => {
      try {
        const text = await (await request("/metrics")).text();
        if (gone) return;
        const now = { at: Date.now() / 1000, metrics: parseMetrics(text) };
        const next = sample(before, now);
        before = now;
        setProblem("");
        setSamples((all) => [...all, next].slice(-kSamplesMax));
      } catch (error) {
        if (!gone) setProblem(error instanceof Error ? error.message : String(error));
      }
      if (!gone) timer = window.setTimeout(() => void read(), kPeriodMs);
    };
    void read();
    return () => {
      gone = true;
      clearTimeout(timer);
    };
  }, []);
  return [samples, problem];
}

interface GaugeProps {
  label: string;
  value: string;
  detail?: string;
  series: [number[], (number | null)[]];
  most?: number;
}

function Gauge({ label, value, detail, series, most }: GaugeProps): JSX.Element {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | undefined>(undefined);
  useEffect(() => {
    if (!box.current) return;
    const colour = getComputedStyle(box.current).color;
    const made = new uPlot(
      {
        width: box.current.clientWidth,
        height: 44,
        legend: { show: false },
        cursor: { show: false },
        axes: [{ show: false }, { show: false }],
        scales: {
          y: { range: (_plot, _least, greatest) => [0, most ?? (greatest > 0 ? greatest * 1.1 : 1)] },
        },
        series: [{}, { stroke: colour, width: 1.5, points: { show: false } }],
      },
      series,
      box.current,
    );
    plot.current = made;
    return () => made.destroy();
  }, [most]);
  useEffect(() => plot.current?.setData(series), [series]);
  return (
    <div class="gauge">
      <dt>{label}</dt>
      <dd>
        {value} {detail && <small>{detail}</small>}
      </dd>
      <div class="plot" ref={box} aria-hidden="true" />
    </div>
  );
}

export function Gauges(): JSX.Element {
  const [samples, problem] = useSamples();
  const last = samples.at(-1);
  const times = samples.map((entry) => entry.at);
  const line = (of: (entry: Sample) => number | null): [number[], (number | null)[]] => [
    times,
    samples.map(of),
  ];
  return (
    <aside class="gauges" aria-label="Gauges">
      <h2>This machine</h2>
      {problem && <p class="error">{problem}</p>}
      {last && (
        <dl>
          <Gauge label="Speed" value={`${last.tokensPerSecond.toFixed(1)}`} detail="tokens/s"
            series={line((entry) => entry.tokensPerSecond)} />
          <Gauge label="Memory" value={bytes(last.residentBytes)}
            {...(last.limitBytes > 0
              ? { detail: `of ${bytes(last.limitBytes)}`, most: last.limitBytes }
              : {})}
            series={line((entry) => entry.residentBytes)} />
          <Gauge label="Disk" value={last.diskBytesPerSecond === null ? "–" : `${bytes(last.diskBytesPerSecond)}/s`}
            series={line((entry) => entry.diskBytesPerSecond)} />
          <Gauge label="Experts found in memory" most={1}
            value={last.hitRate === null ? "–" : `${(last.hitRate * 100).toFixed(0)} %`}
            series={line((entry) => entry.hitRate)} />
          <Gauge label="Requests" value={`${last.running}`} detail={`${last.queued} waiting`}
            series={line((entry) => entry.running)} />
        </dl>
      )}
    </aside>
  );
}
