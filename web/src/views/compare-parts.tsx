// The parts of a comparison. A job has a letter and a colour, the same in every part.
import { useMemo } from "preact/hooks";
import uPlot from "uplot";

import { type Entry, letter, overlay, referencesOf } from "../lib/compare";
import { bytes, duration, number, percent, percentOf } from "../lib/format";
import { differences, shortModel } from "../lib/jobs";
import { paretoFront } from "../lib/series";
import { hrefTo } from "../router";
import { colour } from "../state/theme";
import { Chart, axis, blockAxis, logAxis } from "../ui/chart";
import { Card, DataTable, StateBadge, TableBehind, Warnings } from "../ui/parts";

const SERIES = 6;
const tint = (at: number): string => colour(`series-${(at % SERIES) + 1}`);

export function Mark({ at }: { at: number }) {
  return <span class={`mark mark-${(at % SERIES) + 1}`}>{letter(at)}</span>;
}

interface Point {
  at: number;
  x: number;
  y: number;
}

/** Returns the points that can be drawn, from small to large, and the measure that they are drawn by. */
function pointsOf(entries: readonly Entry[]): { points: Point[]; measure: "perplexity" | "mean relative loss" } {
  const measured = entries.filter(({ perplexity }) => perplexity !== null).length >= 2;
  const points = entries.flatMap((entry, at) => {
    const y = measured ? entry.perplexity : entry.meanLoss;
    return entry.size !== null && y !== null ? [{ at, x: entry.size, y }] : [];
  });
  return { points: points.sort((a, b) => a.x - b.x || a.y - b.y), measure: measured ? "perplexity" : "mean relative loss" };
}

export function ParetoCard({ entries }: { entries: readonly Entry[] }) {
  const { points, measure } = useMemo(() => pointsOf(entries), [entries]);
  const front = useMemo(() => new Set(paretoFront(points)), [points]);
  const data = useMemo<uPlot.AlignedData>(() => [points.map(({ x }) => x), points.map(({ y }) => y), points.map(({ y }, at) => (front.has(at) ? y : null))], [points, front]);
  if (points.length < 2) return null;
  const options = (): Omit<uPlot.Options, "width" | "height"> => ({
    scales: { x: { time: false, range: padded }, y: { range: padded } },
    axes: [axis({ label: "Size of the artifact", size: 28, values: (_plot, splits) => splits.map((value) => bytes(value)), space: 70 }), axis({ label: measure, size: 58, values: (_plot, splits) => splits.map((value) => number(value, 3)) })],
    series: [{}, { paths: () => null, points: { show: false } }, { stroke: colour("quiet"), width: 1.5, dash: [5, 5], spanGaps: true, points: { show: false } }],
    cursor: { points: { show: false }, drag: { x: false, y: false } },
    hooks: { draw: [(plot) => drawPoints(plot, points, front)] },
  });
  const describe = (at: number | null): string => {
    const point = at === null ? undefined : points[at];
    if (!point) return "Smaller and better is down and to the left; the dashed line joins what no other job beats.";
    return `${letter(point.at)}: ${entries[point.at]!.name}, ${bytes(point.x)}, ${measure} ${number(point.y, 4)}`;
  };
  return (
    <Card title={`Size against ${measure}`} aside={measure !== "perplexity" && <span class="quiet">these jobs were not evaluated</span>}>
      <Chart label={`Size of the artifact against ${measure} for ${points.length} jobs. The table below holds the numbers.`} data={data} options={options} describe={describe} height={300} />
    </Card>
  );
}

const PADDING = 0.12;

function padded(_plot: uPlot, low: number, high: number): uPlot.Range.MinMax {
  const room = (high - low || Math.abs(high) || 1) * PADDING;
  return [low - room, high + room];
}

function drawPoints(plot: uPlot, points: readonly Point[], front: ReadonlySet<number>): void {
  const { ctx } = plot;
  const scale = devicePixelRatio;
  ctx.save();
  ctx.setLineDash([]);
  ctx.textAlign = "center";
  ctx.textBaseline = "middle";
  ctx.font = `600 ${11 * scale}px Inter, system-ui, sans-serif`;
  points.forEach(({ at, x, y }, index) => {
    const left = plot.valToPos(x, "x", true);
    const top = plot.valToPos(y, "y", true);
    ctx.beginPath();
    ctx.arc(left, top, 10 * scale, 0, 2 * Math.PI);
    ctx.fillStyle = front.has(index) ? tint(at) : colour("surface");
    ctx.strokeStyle = tint(at);
    ctx.lineWidth = 2 * scale;
    ctx.fill();
    ctx.stroke();
    ctx.fillStyle = front.has(index) ? colour("surface") : tint(at);
    ctx.fillText(letter(at), left, top + 0.5 * scale);
  });
  ctx.restore();
}

/** A running job says how far it is, a failed one why. */
function State({ entry: { state, fraction, error } }: { entry: Entry }) {
  const beside = state === "running" ? percent(fraction) : state === "failed" ? error : null;
  return (
    <span class="state-cell">
      <StateBadge state={state} />
      {beside && <small>{beside}</small>}
    </span>
  );
}

export function ResultTable({ entries }: { entries: readonly Entry[] }) {
  const { points } = pointsOf(entries);
  const best = new Set(paretoFront(points).map((at) => points[at]!.at));
  const references = referencesOf(entries.map(({ spec, evaluation }) => ({ model: shortModel(spec), evaluation })));
  const beside = references.map((one) => [
    "",
    one.name,
    one.missing === null ? "" : "not measured",
    one.size === null ? "–" : bytes(one.size),
    one.perplexity === null ? "–" : number(one.perplexity, 4),
    one.kl === null ? "–" : number(one.kl),
    one.agreement === null ? "–" : percentOf(one.agreement),
    "–",
    "–",
    "",
  ]);
  const rows = entries.map((entry, at) => [
    <Mark at={at} />,
    <a href={hrefTo(`jobs/${entry.id}`)}>{entry.name}</a>,
    <State entry={entry} />,
    entry.size === null ? "–" : bytes(entry.size),
    entry.perplexity === null ? "–" : number(entry.perplexity, 4),
    entry.kl === null ? "–" : number(entry.kl),
    entry.agreement === null ? "–" : percentOf(entry.agreement),
    entry.meanLoss === null ? "–" : number(entry.meanLoss),
    entry.seconds === null ? "–" : duration(entry.seconds),
    best.has(at) ? "not beaten" : "",
  ]);
  return (
    <Card title="Results" class="flush-table">
      <DataTable label="Results" head={["Mark", "Job", "State", "Size", "Perplexity", "KL, nats", "Same top 1", "Mean relative loss", "Time", "Front"]} numeric={[3, 4, 5, 6, 7, 8]} rows={[...beside, ...rows]} />
      <Warnings texts={[...new Set(references.flatMap(({ missing }) => missing ?? []))]} />
    </Card>
  );
}

const show = (value: unknown): string => (value === undefined ? "–" : typeof value === "string" ? value : JSON.stringify(value));

export function DifferenceCard({ entries }: { entries: readonly Entry[] }) {
  const found = differences(entries.map(({ spec }) => spec));
  if (found.length === 0)
    return (
      <Card title="What differs">
        <p class="quiet">Nothing: the configurations are the same.</p>
      </Card>
    );
  const head = ["Option", ...entries.map((_, at) => <Mark at={at} key={at} />)];
  return (
    <Card title="What differs" class="flush-table">
      <DataTable label="Options that differ" head={head} rows={found.map(({ path, values }) => [<code>{path}</code>, ...values.map(show)])} />
    </Card>
  );
}

const DASHES: readonly number[][] = [[], [6, 4], [2, 3], [10, 4, 2, 4], [4, 2], [1, 2]];

export function LossOverlay({ entries }: { entries: readonly Entry[] }) {
  const { names, blocks, losses } = useMemo(() => overlay(entries), [entries]);
  const data = useMemo<uPlot.AlignedData>(() => [names.map((_, at) => at), ...losses], [names, losses]);
  if (losses.every((row) => row.every((loss) => loss === null))) return null;
  const options = (): Omit<uPlot.Options, "width" | "height"> => ({
    scales: { x: { time: false }, y: { distr: 3 } },
    axes: [blockAxis(blocks), logAxis((value) => number(value, 1))],
    series: [{}, ...entries.map((_, at) => ({ stroke: tint(at), width: 1.6, dash: DASHES[at % SERIES]!, points: { show: false } }))],
    cursor: { y: false, drag: { x: true, y: false } },
  });
  const describe = (at: number | null): string => {
    if (at === null || names[at] === undefined) return `${names.length} linears`;
    const values = losses.map((row, job) => `${letter(job)} ${row[at] == null ? "–" : number(row[at])}`);
    return `${names[at]}: ${values.join(", ")}`;
  };
  return (
    <Card
      title="Loss of each linear"
      aside={
        <span class="marks">
          {entries.map((_, at) => (
            <Mark at={at} key={at} />
          ))}
        </span>
      }
    >
      <Chart label={`Relative loss of each linear in ${entries.length} jobs, on a logarithmic scale. The table below holds the numbers.`} data={data} options={options} describe={describe} height={260} />
      <TableBehind label="Loss of each linear by job" head={["Linear", ...entries.map((_, at) => letter(at))]} numeric={entries.map((_, at) => at + 1)} rows={() => names.map((name, at) => [name, ...losses.map((row) => (row[at] == null ? "–" : number(row[at])))])} />
    </Card>
  );
}
