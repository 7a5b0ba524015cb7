import { expect, test } from "vitest";

import type { BudgetPlan, ModelFolder } from "../src/api/types";
import { configsOf, modelsOf, refusalsByCell, severalOf, variedOf } from "../src/lib/batch";
import { drawnOf, shareOfGrids } from "../src/lib/budget";
import { type Field, fieldOf, valuesFor } from "../src/lib/fields";

const document = { components: { schemas: {} } };
const method = fieldOf(document, "method", { type: "string", enum: ["gptq", "rtn"], default: "gptq" });
const bits = fieldOf(document, "bits", { type: "integer", enum: [3, 4], default: 4 });
const size = fieldOf(document, "group_size", { type: "integer", default: 128 });
const preset = fieldOf(document, "preset", { anyOf: [{ type: "string", enum: ["fast", "best"] }, { type: "null" }], "x-methods": ["gptq"] });
const draw = fieldOf(document, "calibration", { type: "object", properties: { samples: { type: "integer", default: 32 } }, "x-methods": ["gptq"] });
const fields: Field[] = [method, bits, size, preset, ...draw.fields];
const varied = [method, bits, size, preset].map(severalOf);

test("what varies starts with the default and is chosen as a list", () => {
  expect(varied.map(({ kind }) => kind)).toEqual(["choices", "choices", "list", "choices"]);
  expect(variedOf(varied, {})).toEqual({ method: ["gptq"], bits: [4], group_size: [128], preset: [] });
  expect(variedOf(varied, { bits: [4, 3] })["bits"]).toEqual([4, 3]);
});

test("a batch is each combination once, with what its method has", () => {
  const shared = { "calibration/samples": 8, evaluate: true };
  const configs = configsOf(fields, shared, { method: ["gptq", "rtn"], bits: [4], preset: ["fast", "best"] });
  expect(configs).toEqual([
    { calibration: { samples: 8 }, evaluate: true, method: "gptq", bits: 4, preset: "fast" },
    { calibration: { samples: 8 }, evaluate: true, method: "gptq", bits: 4, preset: "best" },
    { evaluate: true, method: "rtn", bits: 4 },
  ]);
});

test("a group's fields are of the methods of the group", () => {
  expect(valuesFor("rtn", fields, { "calibration/samples": 8, bits: 3 })).toEqual({ bits: 3 });
  expect(valuesFor("gptq", fields, { "calibration/samples": 8 })).toEqual({ "calibration/samples": 8 });
});

test("models are chosen folders, uploads and what is typed of the hub", () => {
  const known = [{ root: "models", path: "a/b" }, { root: "models", path: "c" }] as ModelFolder[];
  expect(modelsOf(known, { folders: ["models/c"], uploads: ["mdl_1"], hub: "o/n, o/m@v1 o/n" })).toEqual([
    { source: "path", root: "models", path: "c" },
    { source: "upload", id: "mdl_1" },
    { source: "hub", repo: "o/n" },
    { source: "hub", repo: "o/m", revision: "v1" },
  ]);
  expect(modelsOf(known, { folders: [], uploads: [], hub: " " })).toEqual([]);
});

test("what stands against several jobs is said once, with the jobs", () => {
  const errors = [
    { pointer: "#/configs/1/group_size", detail: "must divide 576 (models/0, configs/1)" },
    { pointer: "#/configs/3/group_size", detail: "must divide 576 (models/0, configs/3)" },
    { pointer: "#/models/1/path", detail: "there is no folder (models/1, configs/0)" },
    { pointer: "#/labels", detail: "too many" },
  ];
  expect(refusalsByCell(Object.assign(new Error("no"), { problem: { errors } }))).toEqual([
    { detail: "group_size: must divide 576", cells: [{ model_index: 0, config_index: 1 }, { model_index: 0, config_index: 3 }] },
    { detail: "there is no folder", cells: [{ model_index: 1, config_index: 0 }] },
  ]);
  expect(refusalsByCell(new Error("no"))).toEqual([]);
});

const plan = {
  bits: 3.5,
  divergence: 0.1,
  curve: [
    { bits: 3, divergence: 0.2, grid: "" },
    { bits: 3.5, divergence: 0.1, grid: "" },
    { bits: 8, divergence: 0.00001, grid: "" },
  ],
  uniform: [{ bits: 3.6, divergence: 0.12, grid: "3 bits, groups of 32" }],
  units: [
    { weights: 100, bits: 3, group_size: 64 },
    { weights: 300, bits: 4, group_size: -1 },
    { weights: 100, bits: 3, group_size: 64 },
  ],
} as unknown as BudgetPlan;

test("a budget's curve holds the choice once and ends where it would flatten the rest", () => {
  expect(drawnOf(plan).map(({ kind, bits: at }) => [kind, at])).toEqual([["mixture", 3], ["chosen", 3.5], ["uniform", 3.6]]);
});

test("a budget's grids are told by their share of the weights", () => {
  expect(shareOfGrids(plan.units)).toEqual([
    { grid: "4 bits, a scale per row", share: 0.6 },
    { grid: "3 bits, groups of 64", share: 0.4 },
  ]);
});
