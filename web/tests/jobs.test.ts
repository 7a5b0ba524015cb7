import { expect, test } from "vitest";

import type { Batch, Job, Linear } from "../src/api/types";
import { entriesOfBatch, letter, overlay } from "../src/lib/compare";
import { canCancel, canRetry, differences, leftOf, modelOf, summaryOf } from "../src/lib/jobs";

test("a spec is told in words", () => {
  const spec = { model: { source: "hub", repo: "owner/name" }, method: "gptq", bits: 4, group_size: -1 };
  expect(modelOf(spec)).toBe("owner/name");
  expect(summaryOf(spec)).toBe("GPTQ · 4 bits · a scale per row");
  expect(summaryOf({ method: "awq", bits: 3, group_size: 64 })).toBe("AWQ · 3 bits · groups of 64");
  expect(summaryOf({ method: "gptq", bits: 4, group_size: 64, budget: { bits: 3.5, bytes: 0 } })).toBe("GPTQ · under 3.5 bits per weight");
  expect(summaryOf({ method: "awq", budget: { bits: 3.5, bytes: 90_000_000 } })).toBe("AWQ · under 3.5 bits per weight and 90.0 MB");
});

test("the time left says what it is left to", () => {
  const job = { state: "running", stage: "quantizing", progress: { eta_at: "2026-11-24T09:03:00Z" } } as Job;
  const now = Date.parse("2026-11-24T09:00:00Z");
  expect(leftOf(job, now, "?")).toBe("3 min 00 s left");
  expect(leftOf({ ...job, stage: "downloading" }, now, "?")).toBe("fetching, 3 min 00 s left");
  expect(leftOf({ ...job, progress: { ...job.progress, eta_at: null } }, now, "?")).toBe("?");
  expect(leftOf({ ...job, state: "cancelling" }, now, "?")).toBe("stopping");
});

test("what differs is found at any depth, and nothing else", () => {
  const a = { bits: 4, calibration: { samples: 32, seed: 0 }, targets: ["vllm"], dynamic: {} };
  const b = { bits: 3, calibration: { samples: 32, seed: 1 }, targets: ["vllm"], dynamic: {} };
  expect(differences([a, b, a])).toEqual([
    { path: "bits", values: [4, 3, 4] },
    { path: "calibration.seed", values: [0, 1, 0] },
  ]);
  expect(differences([{ a: 1 }, {}])).toEqual([{ path: "a", values: [1, undefined] }]);
});

test("a finished job is not cancelled, a succeeded one not retried", () => {
  const states = ["queued", "running", "cancelling", "succeeded", "failed", "cancelled"] as const;
  const jobs = states.map((state) => ({ state }) as Job);
  expect(jobs.map(canCancel)).toEqual([true, true, false, false, false, false]);
  expect(jobs.map(canRetry)).toEqual([false, false, false, false, true, true]);
});

test("losses are laid over each other by name, in the order of the blocks", () => {
  const row = (block: number, name: string, relative_loss: number | null) => ({ block, linear: `layers.${block}.${name}`, relative_loss }) as Linear;
  const entries = entriesOfBatch({ table: [{ job_id: "a", model: "m", config: {} }, { job_id: "b", model: "m", config: {} }] } as unknown as Batch);
  entries[0]!.linears = [row(10, "q", 0.1), row(2, "q", 0.2)];
  entries[1]!.linears = [row(2, "q", 0), row(2, "k", 0.3)];
  const { names, blocks, losses } = overlay(entries);
  expect(names).toEqual(["layers.2.k", "layers.2.q", "layers.10.q"]);
  expect(blocks).toEqual([2, 2, 10]);
  expect(losses).toEqual([
    [null, 0.2, 0.1],
    [0.3, null, null],
  ]);
});

test("jobs have letters, also more than there are", () => {
  expect([0, 25, 26].map(letter)).toEqual(["A", "Z", "A2"]);
});
