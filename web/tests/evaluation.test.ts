import { expect, test } from "vitest";

import type { Artifact, Evaluation, Job } from "../src/api/types";
import { entryOfJob, referencesOf } from "../src/lib/compare";
import { figuresOf } from "../src/lib/evaluation";
import { dayOf, endOfDay, percentOf } from "../src/lib/format";

const measured = { perplexity_float: 11.63, perplexity_quantized: 12.15, perplexity_ratio: 1.0447, kl_divergence: 0.04123, top1_agreement: 0.91274 } as Evaluation;

test("every measure is a figure with its name", () => {
  expect(figuresOf(measured).map(({ value }) => value)).toEqual(["11.63", "12.15", "× 1.045", "0.0412", "91.3%"]);
});

test("no loss at all is a figure too, and what was not measured is none", () => {
  const same = figuresOf({ kl_divergence: 0, top1_agreement: 1, perplexity_ratio: null } as Evaluation);
  expect(same.map(({ value }) => value)).toEqual(["0", "100.0%"]);
  expect(figuresOf({} as Evaluation)).toEqual([]);
});

test("a comparison takes the measures of a job, where it has them", () => {
  const job = { id: "a", spec: {}, state: "succeeded", started_at: null, finished_at: null, progress: { fraction: 1 }, error: null } as unknown as Job;
  const files = [{ size_bytes: 7 }, { size_bytes: 5 }] as Artifact[];
  expect(entryOfJob({ ...job, evaluation: measured }, files, [])).toMatchObject({ perplexity: 12.15, kl: 0.04123, agreement: 0.91274, size: 12 });
  expect(entryOfJob({ ...job, evaluation: null }, [], [])).toMatchObject({ perplexity: null, kl: null, agreement: null, size: null });
});

test("a share keeps the digit in which good ones differ", () => {
  expect([0.9127, 0.9196, 1].map(percentOf)).toEqual(["91.3%", "92.0%", "100.0%"]);
});

test("a day ends where the reader is, and is read back as the same day", () => {
  const end = new Date(endOfDay("2031-05-17"));
  expect([end.getDate(), end.getHours(), end.getMinutes(), end.getSeconds()]).toEqual([17, 23, 59, 59]);
  expect(dayOf(end.toISOString())).toBe("2031-05-17");
});

test("jobs compare with the float model and with NF4, each once; one worker that has NF4 is enough", () => {
  const nf4 = { perplexity: 12.31, kl_divergence: 0.0533, top1_agreement: 0.9011, bytes: 116 };
  const float = { perplexity_float: 11.63, bytes_float: 269 };
  const without = { ...float, nf4: { missing: "NF4 needs bitsandbytes." } } as Evaluation;
  const having = { ...float, nf4: { ...nf4, missing: null } } as Evaluation;
  const rows = (...evaluations: (Evaluation | null)[]) => referencesOf(evaluations.map((evaluation) => ({ model: "m", evaluation })));
  expect(rows(null)).toEqual([]);
  expect(rows(without, null)).toMatchObject([{ name: "m, float", size: 269, perplexity: 11.63 }, { perplexity: null, missing: "NF4 needs bitsandbytes." }]);
  expect(rows(without, having, without)).toMatchObject([{ size: 269 }, { size: 116, perplexity: 12.31, kl: 0.0533, agreement: 0.9011, missing: null }]);
});
