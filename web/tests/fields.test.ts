import { describe, expect, test } from "vitest";

import { type Document, type Field, completed, fieldOf, nameWithoutUnit, nested, readInput, sectionsOf, unitOf, valuesOf, withValue, writeInput } from "../src/lib/fields";

const document: Document = {
  components: {
    schemas: {
      Order: { type: "string", enum: ["none", "desc_act"] },
      Draw: { type: "object", properties: { set: { type: "string", default: "builtin" }, samples: { type: "integer", default: 32, minimum: 1 } } },
      JobRequest: {
        type: "object",
        properties: {
          bits: { type: "integer", enum: [2, 4], default: 4, description: "Bits per weight." },
          order: { $ref: "#/components/schemas/Order", default: "desc_act", description: "Column order." },
          brand_new: { type: "number", default: 0.5, minimum: 0, maximum: 1, description: "Nobody wrote this into the page." },
          dynamic: { type: "object", additionalProperties: { type: "object", additionalProperties: true }, default: {} },
          method: { type: "string", enum: ["gptq", "rtn"], default: "gptq" },
          desc_act: { anyOf: [{ type: "boolean" }, { type: "null" }], description: "Another spelling." },
          calibration: { $ref: "#/components/schemas/Draw" },
          targets: { type: "array", items: { type: "string", enum: ["vllm", "transformers"] } },
          labels: { type: "object", patternProperties: { "^a": { type: "string" } } },
          deadline_s: { type: "integer", default: 3600, maximum: 2147483647 },
          model: { oneOf: [] },
        },
      },
    },
  },
};
const one = (name: string): Field => fieldOf(document, name, document.components.schemas["JobRequest"]!.properties![name]!);

describe("fields", () => {
  test("have kind, words, range and default of the document", () => {
    expect(one("bits")).toMatchObject({ kind: "choice", options: [2, 4], default: 4, hint: "Bits per weight." });
    expect(one("order")).toMatchObject({ kind: "choice", options: ["none", "desc_act"], default: "desc_act", hint: "Column order." });
    expect(one("brand_new")).toMatchObject({ kind: "number", low: 0, high: 1, whole: false });
    expect(one("desc_act")).toMatchObject({ kind: "flag", optional: true, hint: "Another spelling." });
    expect(one("targets")).toMatchObject({ kind: "choices", options: ["vllm", "transformers"] });
    expect(one("labels").kind).toBe("pairs");
    expect(one("dynamic").kind).toBe("json");
    expect(one("calibration").fields.map(({ path }) => path)).toEqual(["calibration/set", "calibration/samples"]);
  });

  test("show no bound that only says how a number is stored", () => {
    expect(one("deadline_s").high).toBeUndefined();
  });

  test("have the unit that their name ends in, and are written in the largest that divides them", () => {
    const deadline = one("deadline_s");
    expect(nameWithoutUnit(deadline)).toBe("deadline");
    expect([5400, 7200, 172_800, 0, undefined].map((value) => unitOf(deadline, value)?.name)).toEqual(["minutes", "hours", "days", "hours", "hours"]);
    expect(one("bits").units).toEqual([]);
    expect(nameWithoutUnit(one("bits"))).toBe("bits");
  });

  test("an option that the page has never heard of gets its place", () => {
    const sections = sectionsOf(document);
    expect(sections.method.map(({ name }) => name)).toEqual(["order", "brand_new", "dynamic", "desc_act"]);
    expect(sections.job.map(({ name }) => name)).toEqual(["labels", "deadline_s"]);
    expect(sections.calibration.map(({ name }) => name)).toEqual(["set", "samples"]);
  });
});

describe("values", () => {
  test("of the wrong kind go to the service as they were typed", () => {
    expect(readInput(one("brand_new"), " 0.25 ")).toBe(0.25);
    expect(readInput(one("brand_new"), "a lot")).toBe("a lot");
    expect(readInput(one("dynamic"), '{"-:x": {}}')).toEqual({ "-:x": {} });
    expect(readInput(one("dynamic"), "{")).toBe("{");
    expect(readInput(one("brand_new"), "")).toBeUndefined();
  });

  test("pairs are read and written", () => {
    expect(readInput(one("labels"), "team:search, url: http://x")).toEqual({ team: "search", url: "http://x" });
    expect(writeInput(one("labels"), { a: "1", b: "2" })).toBe("a:1, b:2");
  });

  test("a default takes the value out, so that a request says only what was chosen", () => {
    const chosen = withValue({}, one("bits"), 2);
    expect(chosen).toEqual({ bits: 2 });
    expect(withValue(chosen, one("bits"), 4)).toEqual({});
    expect(withValue({ dynamic: { a: {} } }, one("dynamic"), {})).toEqual({});
  });

  test("nest by path, and come apart again without defaults", () => {
    const values = { bits: 2, "calibration/samples": 8 };
    expect(nested(values)).toEqual({ bits: 2, calibration: { samples: 8 } });
    const fields = ["bits", "order", "calibration", "targets"].map(one);
    expect(valuesOf(fields, { bits: 2, order: "desc_act", targets: [], calibration: { set: "builtin", samples: 8 } })).toEqual(values);
  });

  test("with all defaults are a whole body, in which nothing is null that the service must be given", () => {
    const fields = [one("bits"), one("desc_act"), one("labels"), one("calibration")];
    expect(completed(fields, { bits: 2 })).toEqual({ bits: 2, desc_act: null, "calibration/set": "builtin", "calibration/samples": 32 });
  });
});
