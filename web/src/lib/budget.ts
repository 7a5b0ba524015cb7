// A budget's plan as points to draw and shares to read. Pure functions.
import type { BudgetPlan } from "../api/types";

export interface Drawn {
  kind: "mixture" | "uniform" | "chosen";
  bits: number;
  divergence: number;
  grid: string;
}

/** What is drawn of the curve's height: below that, its end would flatten everything else. */
const DECADES = 3;

/** Returns all points by rising size: the curve, single grids, and the choice, which takes its place on the curve. */
export function drawnOf({ curve, uniform, bits, divergence }: BudgetPlan): Drawn[] {
  const points: Drawn[] = [
    ...curve.filter((point) => point.bits !== bits).map((point) => ({ ...point, kind: "mixture" as const })),
    ...uniform.map((point) => ({ ...point, kind: "uniform" as const })),
    { kind: "chosen", bits, divergence, grid: "" },
  ];
  const floor = Math.max(...points.map((point) => point.divergence)) / 10 ** DECADES;
  return points.filter((point) => point.divergence > floor || point.kind === "chosen").sort((a, b) => a.bits - b.bits || b.divergence - a.divergence);
}

/** Returns the share of weights on each grid, the largest first. */
export function shareOfGrids(units: BudgetPlan["units"]): { grid: string; share: number }[] {
  const weights = new Map<string, number>();
  for (const { bits, group_size, weights: count } of units) {
    const grid = `${bits} bits, ${group_size < 0 ? "a scale per row" : `groups of ${group_size}`}`;
    weights.set(grid, (weights.get(grid) ?? 0) + count);
  }
  const total = [...weights.values()].reduce((sum, count) => sum + count, 0);
  return [...weights].map(([grid, count]) => ({ grid, share: count / total })).sort((a, b) => b.share - a.share);
}
