// Arithmetic behind the charts: outliers, the Pareto front, medians. Pure functions.

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

const LEAST_FOR_OUTLIERS = 5;
const DEVIATIONS = 3.5;
const MAD_TO_SIGMA = 1.4826;
/** Losses that agree this closely (a tenth of a decade) have no outliers, however small their spread is. */
const LEAST_SPREAD = 0.03;

/** Returns `mlp.down_proj` of `model.layers.3.mlp.down_proj`: linears of one kind are compared with each other. */
export function kindOf(linear: string): string {
  const parts = linear.split(".");
  const last = parts.findLastIndex((part) => /^\d+$/.test(part));
  return parts.slice(last + 1).join(".");
}

/** Returns the places of losses that stand far above the other losses of their kind, on a logarithmic scale. */
export function outliers(rows: readonly { linear: string; loss: number | null }[]): Set<number> {
  const kinds = new Map<string, number[]>();
  rows.forEach((row, at) => {
    if (row.loss !== null && row.loss > 0) kinds.set(kindOf(row.linear), [...(kinds.get(kindOf(row.linear)) ?? []), at]);
  });
  const found = new Set<number>();
  for (const places of kinds.values()) {
    if (places.length < LEAST_FOR_OUTLIERS) continue;
    const logs = places.map((at) => Math.log10(rows[at]!.loss!));
    const middle = median(logs);
    const spread = Math.max(MAD_TO_SIGMA * median(logs.map((log) => Math.abs(log - middle))), LEAST_SPREAD);
    places.forEach((at, index) => {
      if (logs[index]! - middle > DEVIATIONS * spread) found.add(at);
    });
  }
  return found;
}

/** Returns the places of points that no other point beats in both size and loss; both are better when smaller. */
export function paretoFront(points: readonly { x: number; y: number }[]): number[] {
  const order = points.map((_, at) => at).sort((a, b) => points[a]!.x - points[b]!.x || points[a]!.y - points[b]!.y);
  const front: number[] = [];
  let best = Infinity;
  for (const at of order) {
    if (points[at]!.y < best) {
      front.push(at);
      best = points[at]!.y;
    }
  }
  return front;
}
