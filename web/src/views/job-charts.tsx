// A job's numbers over its blocks: the loss of each linear, seconds and memory of each block.
import { useMemo } from "preact/hooks";
import uPlot from "uplot";

import { api, body } from "../api/client";
import { type Job, type JobEvent, type Linear, isOver } from "../api/types";
import { bytes, duration, number, plural } from "../lib/format";
import { outliers } from "../lib/series";
import { colour } from "../state/theme";
import { useEvents, useResource } from "../state/resource";
import { Chart, axis, blockAxis, logAxis } from "../ui/chart";
import { Card, TableBehind } from "../ui/parts";

const PAGE = 1000;

export async function loadLinears(id: string, signal: AbortSignal): Promise<Linear[]> {
  const rows: Linear[] = [];
  let token: string | null = null;
  do {
    const query: { page_size: number; page_token?: string } = { page_size: PAGE, ...(token && { page_token: token }) };
    const page: { data: Linear[]; next_page_token: string | null } = await body(api.GET("/v1/jobs/{job_id}/linears", { params: { path: { job_id: id }, query }, signal }));
    rows.push(...page.data);
    token = page.next_page_token;
  } while (token);
  return rows;
}

/** Returns the number that is drawn: the relative loss, which compares linears of different sizes. */
export const shownLoss = (row: Linear): number | null => (row.relative_loss !== null && row.relative_loss > 0 ? row.relative_loss : null);

export function LossCard({ job }: { job: Job }) {
  const { data, reload } = useResource(`linears ${job.id} ${isOver(job.state) ? job.state : ""}`, (signal) => loadLinears(job.id, signal));
  useEvents((event) => event.job_id === job.id, reload, 1000);
  const rows = data ?? [];
  if (rows.every((row) => shownLoss(row) === null)) return null;
  return <LossChart rows={rows} />;
}

function LossChart({ rows }: { rows: readonly Linear[] }) {
  const far = useMemo(() => outliers(rows.map((row) => ({ linear: row.linear, loss: shownLoss(row) }))), [rows]);
  const data = useMemo<uPlot.AlignedData>(
    () => [rows.map((_, at) => at), rows.map((row, at) => (far.has(at) ? null : shownLoss(row))), rows.map((row, at) => (far.has(at) ? shownLoss(row) : null))],
    [rows, far],
  );
  const options = (): Omit<uPlot.Options, "width" | "height"> => ({
    scales: { x: { time: false }, y: { distr: 3 } },
    axes: [blockAxis(rows.map((row) => row.block)), logAxis((value) => number(value, 1))],
    series: [{}, dots("running", 6), { paths: () => null, points: { show: false } }],
    hooks: { draw: [(plot) => drawTriangles(plot, plot.data[2]!)] },
    cursor: { points: { size: 11 }, y: false, drag: { x: true, y: false } },
  });
  const describe = (at: number | null): string => {
    if (at === null || !rows[at]) return far.size > 0 ? `${plural(rows.length, "linear")}; ${plural(far.size, "outlier")}, drawn as red triangles` : `${plural(rows.length, "linear")}; no outliers`;
    const row = rows[at];
    return `${row.linear}: relative loss ${number(shownLoss(row) ?? 0)}${far.has(at) ? ", an outlier" : ""}`;
  };
  return (
    <Card title="Loss of each linear" aside={<span class="quiet">relative, log scale</span>}>
      <Chart label={`Relative loss of ${rows.length} linears, block by block, on a logarithmic scale. The table below holds the numbers.`} data={data} options={options} describe={describe} height={260} />
      <TableBehind
        label="Loss of each linear"
        head={["Block", "Linear", "Bits", "Relative loss", "Loss", "Tokens", "Time", "Notes"]}
        numeric={[0, 2, 3, 4, 5, 6]}
        rows={() =>
          rows.map((row, at) => [row.block, row.linear, row.bits, row.relative_loss === null ? "–" : number(row.relative_loss), row.loss === null ? "–" : number(row.loss), row.tokens.toLocaleString("en-US"), duration(row.seconds), [far.has(at) ? "outlier" : "", ...row.warnings].filter(Boolean).join(", ")])
        }
      />
    </Card>
  );
}

const TRIANGLE_PX = 7;

/** Draws what stands out in a shape of its own, so that it is told without its colour. */
function drawTriangles(plot: uPlot, losses: ArrayLike<number | null | undefined>): void {
  const { ctx, bbox } = plot;
  const half = TRIANGLE_PX * devicePixelRatio;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top - half, bbox.width, bbox.height + half);
  ctx.clip();
  ctx.fillStyle = colour("failed");
  ctx.strokeStyle = colour("surface");
  ctx.lineWidth = devicePixelRatio;
  Array.from(losses).forEach((loss, at) => {
    if (loss == null) return;
    const x = plot.valToPos(at, "x", true);
    const y = plot.valToPos(loss, "y", true);
    ctx.beginPath();
    ctx.moveTo(x, y - half);
    ctx.lineTo(x + half, y + half * 0.75);
    ctx.lineTo(x - half, y + half * 0.75);
    ctx.closePath();
    ctx.fill();
    ctx.stroke();
  });
  ctx.restore();
}

/** Points without a line. */
export function dots(name: string, size: number): uPlot.Series {
  return { paths: () => null, stroke: colour(name), points: { show: true, size, fill: colour(name), stroke: colour("surface"), width: 1 } };
}

interface BlockRow {
  block: number;
  seconds: number;
  rss: number;
}

/** Returns each block's newest numbers: a resumed job solves none twice, one that began anew does. */
export function blockRows(events: readonly JobEvent[]): BlockRow[] {
  const rows = new Map<number, BlockRow>();
  for (const { kind, payload } of events)
    if (kind === "block_quantized") rows.set(Number(payload["block"]), { block: Number(payload["block"]), seconds: Number(payload["seconds"]), rss: Number(payload["rss_bytes"]) });
  return [...rows.values()].sort((a, b) => a.block - b.block);
}

export function ResourceCards({ events }: { events: readonly JobEvent[] }) {
  const rows = useMemo(() => blockRows(events), [events]);
  if (rows.length < 2) return null;
  return (
    <div class="columns even">
      <BlockChart title="Seconds per block" rows={rows} value={(row) => row.seconds} say={duration} bars />
      <BlockChart title="Memory after each block" rows={rows} value={(row) => row.rss} say={bytes} />
    </div>
  );
}

interface BlockChartProps {
  title: string;
  rows: readonly BlockRow[];
  value: (row: BlockRow) => number;
  say: (value: number) => string;
  bars?: boolean;
}

function BlockChart({ title, rows, value, say, bars = false }: BlockChartProps) {
  const data = useMemo<uPlot.AlignedData>(() => [rows.map((row) => row.block), rows.map(value)], [rows]);
  const most = Math.max(...rows.map(value));
  const options = (): Omit<uPlot.Options, "width" | "height"> => ({
    scales: { x: { time: false, ...(bars && { range: (_plot, low, high) => [low - 0.6, high + 0.6] }) }, y: { range: (_plot, _low, high) => [0, high * 1.1 || 1] } },
    axes: [axis({ label: "Block", size: 26, incrs: [1, 2, 5, 10, 20, 50] }), axis({ size: 62, values: (_plot, splits) => splits.map((split) => say(split)) })],
    series: [{}, { stroke: colour("accent"), fill: colour(bars ? "accent-soft" : "accent-faint"), width: bars ? 1 : 2, points: { show: false }, ...(bars && { paths: uPlot.paths.bars!({ size: [0.7, 40], radius: 0.2 }) }) }],
    cursor: { y: false, drag: { x: false, y: false } },
  });
  const describe = (at: number | null): string => (at === null || !rows[at] ? `at most ${say(most)}` : `Block ${rows[at].block}: ${say(value(rows[at]))}`);
  return (
    <Card title={title}>
      <Chart label={`${title}, at most ${say(most)}. The table below holds the numbers.`} data={data} options={options} describe={describe} height={170} />
      <TableBehind label={title} head={["Block", title]} numeric={[0, 1]} rows={() => rows.map((row) => [row.block, say(value(row))])} />
    </Card>
  );
}
