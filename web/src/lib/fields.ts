// Makes the form's fields out of the service's OpenAPI document, so that an option that the service learns appears here
// with its words, range and default, and nothing about options is written twice.

export interface Schema {
  $ref?: string;
  type?: string;
  enum?: readonly unknown[];
  const?: unknown;
  anyOf?: readonly Schema[];
  oneOf?: readonly Schema[];
  allOf?: readonly Schema[];
  items?: Schema;
  properties?: Record<string, Schema>;
  additionalProperties?: boolean | Schema;
  patternProperties?: Record<string, Schema>;
  description?: string;
  default?: unknown;
  minimum?: number;
  maximum?: number;
  examples?: readonly unknown[];
}

export interface Document {
  components: { schemas: Record<string, Schema> };
}

export type FieldKind = "choice" | "choices" | "flag" | "number" | "text" | "pairs" | "json" | "group";

export interface Field {
  /** Path below the request, as in a JSON pointer without its `#/`. */
  path: string;
  name: string;
  kind: FieldKind;
  hint: string;
  default: unknown;
  optional: boolean;
  options: readonly unknown[];
  whole: boolean;
  low?: number;
  high?: number;
  example?: unknown;
  fields: readonly Field[];
}

export type Values = Readonly<Record<string, unknown>>;

/** Follows references; what stands beside a reference (words, a default) goes before what it points at. */
export function resolve(document: Document, schema: Schema): Schema {
  const target = schema.$ref ?? (schema.allOf?.length === 1 ? schema.allOf[0]!.$ref : undefined);
  if (!target) return schema;
  const { $ref: _ref, allOf: _all, ...beside } = schema;
  return { ...resolve(document, document.components.schemas[target.split("/").at(-1)!] ?? {}), ...beside };
}

function withoutNull(document: Document, schema: Schema): { schema: Schema; optional: boolean } {
  const choices = schema.anyOf?.filter((one) => one.type !== "null");
  if (!schema.anyOf || choices?.length !== 1) return { schema, optional: false };
  const { anyOf: _any, ...beside } = schema;
  return { schema: { ...resolve(document, choices[0]!), ...beside }, optional: choices.length < schema.anyOf.length };
}

function kindOf(schema: Schema): FieldKind {
  if (schema.enum) return "choice";
  if (schema.type === "array" && schema.items?.enum) return "choices";
  if (schema.type === "boolean") return "flag";
  if (schema.type === "integer" || schema.type === "number") return "number";
  if (schema.type === "string") return "text";
  if (schema.properties) return "group";
  const values = Object.values(schema.patternProperties ?? {})[0] ?? schema.additionalProperties;
  return typeof values === "object" && values.type === "string" ? "pairs" : "json";
}

/** An integer's bound that only says how it is stored tells nobody anything. */
const INT32_MAX = 2 ** 31 - 1;

export function fieldOf(document: Document, name: string, given: Schema, prefix = ""): Field {
  const { schema, optional } = withoutNull(document, resolve(document, given));
  const items = schema.items && resolve(document, schema.items);
  const kind = kindOf(items ? { ...schema, items } : schema);
  const path = prefix + name;
  return {
    path,
    name,
    kind,
    hint: schema.description ?? "",
    default: schema.default,
    optional,
    options: schema.enum ?? items?.enum ?? [],
    whole: schema.type === "integer",
    ...(schema.minimum !== undefined && { low: schema.minimum }),
    ...(schema.maximum !== undefined && schema.maximum < INT32_MAX && { high: schema.maximum }),
    ...(schema.examples && { example: schema.examples[0] }),
    fields: kind === "group" ? fieldsOf(document, schema, `${path}/`) : [],
  };
}

export function fieldsOf(document: Document, schema: Schema, prefix = ""): Field[] {
  return Object.entries(schema.properties ?? {}).map(([name, one]) => fieldOf(document, name, one, prefix));
}

export interface Sections {
  basics: Field[];
  method: Field[];
  calibration: Field[];
  result: Field[];
  job: Field[];
}

const BASICS = ["method", "preset", "bits", "group_size", "sym"];
const RESULT = ["targets", "formats", "evaluate"];
const SPELLINGS = ["desc_act", "static_groups"];

/** Sorts the request's fields: the document lists a method's options before `method` and what concerns the job after. */
export function sectionsOf(document: Document): Sections {
  const fields = fieldsOf(document, document.components.schemas["JobRequest"] ?? {});
  const border = fields.findIndex(({ name }) => name === "method");
  const named = (names: readonly string[]): Field[] => names.flatMap((name) => fields.filter((field) => field.name === name));
  const rest = fields.filter(({ name }) => !BASICS.includes(name) && !RESULT.includes(name) && name !== "model" && name !== "calibration");
  const ofMethod = (field: Field): boolean => fields.indexOf(field) < border || SPELLINGS.includes(field.name);
  return {
    basics: named(BASICS),
    method: rest.filter(ofMethod),
    calibration: named(["calibration"]).flatMap((field) => field.fields),
    result: named(RESULT),
    job: rest.filter((field) => !ofMethod(field)),
  };
}

/** Reads what was typed; what is not of the field's kind stays text, for the service to refuse with its reason. */
export function readInput(field: Field, text: string): unknown {
  const trimmed = text.trim();
  if (trimmed === "") return undefined;
  if (field.kind === "number") return Number.isFinite(Number(trimmed)) ? Number(trimmed) : trimmed;
  if (field.kind === "pairs") return readPairs(trimmed);
  if (field.kind === "json") {
    try {
      return JSON.parse(trimmed) as unknown;
    } catch {
      return trimmed;
    }
  }
  return trimmed;
}

function readPairs(text: string): unknown {
  const pairs = text.split(",").map((pair) => pair.trim()).filter(Boolean);
  return Object.fromEntries(pairs.map((pair) => [pair.split(":")[0]!.trim(), pair.slice(pair.indexOf(":") + 1).trim()]));
}

export function writeInput(field: Field, value: unknown): string {
  if (value === undefined || value === null) return "";
  if (typeof value === "string") return value;
  if (field.kind === "pairs") return Object.entries(value as object).map(([key, one]) => `${key}:${String(one)}`).join(", ");
  return field.kind === "json" ? JSON.stringify(value) : String(value);
}

const same = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);

/** Sets one value; the default, or nothing, takes it out, so that a request says only what was chosen. */
export function withValue(values: Values, field: Field, value: unknown): Values {
  const { [field.path]: _old, ...rest } = values;
  return value === undefined || value === null || same(value, field.default) ? rest : { ...rest, [field.path]: value };
}

/** Makes a request's nested form of values by path. */
export function nested(values: Values): Record<string, unknown> {
  const request: Record<string, unknown> = {};
  for (const [path, value] of Object.entries(values)) {
    const names = path.split("/");
    const last = names.pop()!;
    let at = request;
    for (const name of names) at = (at[name] ??= {}) as Record<string, unknown>;
    at[last] = value;
  }
  return request;
}

/** Takes the values of a request apart again, leaving defaults out. */
export function valuesOf(fields: readonly Field[], request: Record<string, unknown>): Values {
  let values: Values = {};
  for (const field of fields) {
    const value = request[field.name];
    if (field.kind === "group" && value !== null && typeof value === "object") values = { ...values, ...valuesOf(field.fields, value as Record<string, unknown>) };
    else if (!(Array.isArray(value) && value.length === 0 && field.default === undefined)) values = withValue(values, field, value);
  }
  return values;
}
