import { describe, expect, test } from "vitest";

import { kindOf, median, outliers, paretoFront } from "../src/lib/series";

const rows = (kind: string, losses: readonly (number | null)[]) => losses.map((loss, block) => ({ linear: `model.layers.${block}.${kind}`, loss }));

describe("outliers", () => {
  test("a loss far above its kind is one", () => {
    expect(outliers(rows("mlp.down_proj", [0.01, 0.011, 0.009, 0.2, 0.0105, 0.0095]))).toEqual(new Set([3]));
  });

  test("a small loss is none, and neither is a missing one", () => {
    expect(outliers(rows("q", [0.01, 0.011, 0.00001, null, 0.0105, 0.0095, 0.0102]))).toEqual(new Set());
  });

  test("kinds are compared with themselves: one that always loses more has no outliers", () => {
    const all = [...rows("a", [0.01, 0.0101, 0.0099, 0.01, 0.0102]), ...rows("b", [1, 1.01, 0.99, 1, 1.02])];
    expect(outliers(all)).toEqual(new Set());
  });

  test("equal losses have none, however closely they agree", () => {
    expect(outliers(rows("q", [0.01, 0.01, 0.01, 0.01, 0.0100001]))).toEqual(new Set());
  });

  test("too few of a kind say nothing", () => {
    expect(outliers(rows("q", [0.01, 0.01, 5]))).toEqual(new Set());
  });
});

test("a linear's kind is its name behind the block", () => {
  expect(kindOf("model.layers.3.mlp.down_proj")).toBe("mlp.down_proj");
  expect(kindOf("model.layers.3.mlp.experts.7.up_proj")).toBe("up_proj");
  expect(kindOf("lm_head")).toBe("lm_head");
});

test("the median of an even count is the middle of the two", () => {
  expect(median([4, 1, 3, 2])).toBe(2.5);
  expect(median([3, 1, 2])).toBe(2);
});

describe("the Pareto front", () => {
  test("holds what nothing beats in both", () => {
    const points = [
      { x: 3, y: 1 },
      { x: 1, y: 5 },
      { x: 2, y: 6 },
      { x: 2, y: 2 },
      { x: 4, y: 1 },
    ];
    expect(paretoFront(points)).toEqual([1, 3, 0]);
  });

  test("of equal points holds one", () => {
    expect(paretoFront([{ x: 1, y: 1 }, { x: 1, y: 1 }])).toHaveLength(1);
  });
});
