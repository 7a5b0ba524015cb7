// A uPlot chart in a place that keeps its height: drawn anew for another width or theme, with a line of words on hover.
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

import { colour, painted } from "../state/theme";

export interface ChartProps {
  label: string;
  height?: number;
  data: uPlot.AlignedData;
  /** Made anew for each theme, because a canvas takes its colours when it is drawn. */
  options: () => Omit<uPlot.Options, "width" | "height">;
  /** Words for the point under the pointer or, without one, for the whole chart. */
  describe: (index: number | null) => string;
  /** Called with the point that was clicked. */
  onPick?: (index: number) => void;
}

const FONT = "12px Inter, system-ui, sans-serif";

const isPower = (value: number): boolean => Math.abs(Math.log10(value) - Math.round(Math.log10(value))) < 1e-9;
const powers = (_plot: uPlot, splits: number[]): (number | null)[] => splits.map((value) => (isPower(value) ? value : null));

/** Returns a logarithmic axis: lines and numbers at powers of ten alone. */
export function logAxis(show: (value: number) => string): uPlot.Axis {
  const made = axis({ size: 58 });
  return { ...made, grid: { ...made.grid, filter: powers }, ticks: { ...made.ticks, filter: powers }, filter: powers, values: (_plot, splits) => splits.map((value) => (value === null ? null : show(value))) };
}

const STEPS = [1, 2, 5, 10, 20, 25, 50, 100];
const LABEL_PX = 32;

/** Returns the horizontal axis of linears in the order of the model: a number where a block begins, as many as fit. */
export function blockAxis(blocks: readonly number[]): uPlot.Axis {
  const starts = blocks.flatMap((block, at) => (block !== blocks[at - 1] ? [{ block, at }] : []));
  const splits = (plot: uPlot, _axis: number, low: number, high: number): number[] => {
    const seen = starts.filter(({ at }) => at >= low && at <= high);
    const room = Math.max(1, plot.bbox.width / devicePixelRatio / LABEL_PX);
    const step = STEPS.find((one) => seen.length / one <= room) ?? STEPS.at(-1)!;
    return seen.filter(({ block }) => block % step === 0).map(({ at }) => at);
  };
  return axis({ label: "Block", size: 26, splits, values: (_plot, at) => at.map((one) => blocks[one] ?? null) });
}

/** Returns an axis in the page's colours. */
export function axis(extra: uPlot.Axis = {}): uPlot.Axis {
  const line = { stroke: colour("line"), width: 1 };
  return { stroke: colour("quiet"), font: FONT, labelFont: FONT, labelSize: 20, labelGap: 2, gap: 5, grid: line, ticks: { ...line, size: 4 }, ...extra };
}

export function Chart({ label, height = 240, data, options, describe, onPick }: ChartProps) {
  const holder = useRef<HTMLDivElement>(null);
  const words = useRef<HTMLParagraphElement>(null);
  const plot = useRef<uPlot | undefined>(undefined);
  const latest = useRef({ describe, onPick });
  latest.current = { describe, onPick };
  const paint = painted.value;
  useEffect(() => {
    const element = holder.current!;
    const say = (chart: uPlot): void => {
      words.current!.textContent = latest.current.describe(chart.cursor.idx ?? null);
    };
    const made = options();
    const chart = new uPlot(
      {
        ...made,
        width: element.clientWidth,
        height,
        legend: { show: false },
        hooks: { ...made.hooks, setCursor: [say] },
      },
      data,
      element,
    );
    chart.over.addEventListener("click", () => {
      if (chart.cursor.idx != null) latest.current.onPick?.(chart.cursor.idx);
    });
    plot.current = chart;
    say(chart);
    const observer = new ResizeObserver(() => chart.setSize({ width: element.clientWidth, height }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      chart.destroy();
      plot.current = undefined;
    };
    // The options are a matter of the theme alone; new data go into the chart that is there.
  }, [paint, height]);
  useEffect(() => plot.current?.setData(data), [data]);
  return (
    <figure class="chart">
      <div class="chart-holder" ref={holder} role="img" aria-label={label} style={{ minHeight: `${height}px` }} />
      <figcaption ref={words} aria-hidden="true" />
    </figure>
  );
}
