// What a job under a size chose: the curve of size against predicted loss, and the grids that were given out.
import { useMemo } from "preact/hooks";
import uPlot from "uplot";

import { RefusedError, api, body } from "../api/client";
import type { BudgetPlan, Job } from "../api/types";
import { type Drawn, drawnOf, shareOfGrids } from "../lib/budget";
import { bytes, number, percentOf } from "../lib/format";
import { colour } from "../state/theme";
import { useEvents, useResource } from "../state/resource";
import { Chart, axis, logAxis } from "../ui/chart";
import { Card, Facts, TableBehind } from "../ui/parts";

/** Returns the plan; undefined while the job has not come to it. */
async function loadPlan(id: string, signal: AbortSignal): Promise<BudgetPlan | undefined> {
  try {
    return await body(api.GET("/v1/jobs/{job_id}/budget", { params: { path: { job_id: id } }, signal }));
  } catch (error) {
    if (error instanceof RefusedError && error.status === 404) return undefined;
    throw error;
  }
}

export function BudgetCard({ job }: { job: Job }) {
  const { data, reload } = useResource(`budget ${job.id} ${job.attempt}`, (signal) => loadPlan(job.id, signal));
  useEvents((event) => event.job_id === job.id && event.kind === "budget_planned", reload);
  return data ? <Plan plan={data} /> : null;
}

function Plan({ plan }: { plan: BudgetPlan }) {
  return (
    <Card title="Chosen under the budget" aside={<span class="quiet">{number(plan.bits, 4)} bits per weight</span>}>
      <Curve plan={plan} />
      <Facts
        rows={[
          ["Linears take", `${bytes(plan.quantized_bytes)} of ${bytes(plan.limit_bytes)} allowed`],
          ["Predicted loss", `${number(plan.divergence)} nats per token of KL divergence, measured on ${plan.tokens.toLocaleString("en-US")} tokens`],
          ["Weights by grid", shareOfGrids(plan.units).map(({ grid, share }) => `${percentOf(share)} in ${grid}`).join("; ")],
          ...(plan.mixed ? [] : [["One grid for all", "a target loads no mixture"] as const]),
        ]}
      />
    </Card>
  );
}

const MARKS: Readonly<Record<Drawn["kind"], string>> = { mixture: "the best mixture of this size", uniform: "one grid for all", chosen: "chosen" };

function Curve({ plan }: { plan: BudgetPlan }) {
  const points = useMemo(() => drawnOf(plan), [plan]);
  const data = useMemo<uPlot.AlignedData>(() => [points.map(({ bits }) => bits), points.map((point) => (point.kind === "uniform" ? null : point.divergence)), points.map(({ divergence }) => divergence)], [points]);
  if (points.length < 2) return null;
  const options = (): Omit<uPlot.Options, "width" | "height"> => ({
    scales: { x: { time: false }, y: { distr: 3 } },
    axes: [axis({ label: "Bits per weight", size: 28 }), logAxis((value) => number(value, 1))],
    series: [{}, { stroke: colour("accent"), width: 2, spanGaps: true, points: { show: false } }, { paths: () => null, points: { show: false } }],
    hooks: { draw: [(plot) => drawMarks(plot, points)] },
    cursor: { points: { show: false }, y: false, drag: { x: true, y: false } },
  });
  const describe = (at: number | null): string => {
    const point = at === null ? undefined : points[at];
    if (!point) return "The line is the best mixture of each size, the square what was chosen, crosses are one grid for all linears.";
    return `${number(point.bits, 4)} bits, predicted divergence ${number(point.divergence)}: ${point.grid || MARKS[point.kind]}`;
  };
  return (
    <>
      <Chart label="Bits per weight against predicted divergence from the float model, on a logarithmic scale. The table below holds the numbers." data={data} options={options} describe={describe} height={240} />
      <TableBehind label="What other sizes would give" head={["Bits per weight", "Predicted divergence", "What"]} numeric={[0, 1]} rows={() => points.map((point) => [number(point.bits, 4), number(point.divergence), point.grid || MARKS[point.kind]])} />
    </>
  );
}

const HALF_PX = { uniform: 4, chosen: 6 };

/** Draws the choice as a square and single grids as crosses: shapes that are told without their colour. */
function drawMarks(plot: uPlot, points: readonly Drawn[]): void {
  const { ctx } = plot;
  ctx.save();
  ctx.lineWidth = 1.75 * devicePixelRatio;
  for (const { kind, bits, divergence } of points) {
    if (kind === "mixture") continue;
    const half = HALF_PX[kind] * devicePixelRatio;
    const x = plot.valToPos(bits, "x", true);
    const y = plot.valToPos(divergence, "y", true);
    ctx.beginPath();
    if (kind === "chosen") {
      ctx.fillStyle = colour("accent");
      ctx.fillRect(x - half, y - half, 2 * half, 2 * half);
      ctx.strokeStyle = colour("surface");
      ctx.strokeRect(x - half, y - half, 2 * half, 2 * half);
    } else {
      ctx.strokeStyle = colour("quiet");
      ctx.moveTo(x - half, y - half);
      ctx.lineTo(x + half, y + half);
      ctx.moveTo(x - half, y + half);
      ctx.lineTo(x + half, y - half);
      ctx.stroke();
    }
  }
  ctx.restore();
}
