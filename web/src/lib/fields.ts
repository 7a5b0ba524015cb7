// Makes the form's fields out of the service's OpenAPI document, so that an option that the service learns appears here
// with its words, range and default, and nothing about options is written twice.

export interface Schema {
  $ref?: string;
  type?: string;
  format?: string;
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
  "x-methods"?: readonly string[];
}

export interface Document {
  components: { schemas: Record<string, Schema> };
}

export type FieldKind = "choice" | "choices" | "list" | "flag" | "number" | "text" | "moment" | "pairs" | "json" | "group";

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
  /** What a number of this field is written in; empty where it has no unit. The first is what the service takes. */
  units: readonly Unit[];
  low?: number;
  high?: number;
  examples: readonly unknown[];
  fields: readonly Field[];
  /** The methods that have it, where it is not all of them. */
  methods?: readonly string[];
}

export interface Unit {
  name: string;
  size: number;
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
  if (schema.type === "string") return schema.format === "date-time" ? "moment" : "text";
  if (schema.properties) return "group";
  const values = Object.values(schema.patternProperties ?? {})[0] ?? schema.additionalProperties;
  return typeof values === "object" && values.type === "string" ? "pairs" : "json";
}

/** The service says a number's unit by the end of its name. */
const UNITS: Readonly<Record<string, readonly Unit[]>> = {
  _s: [
    { name: "seconds", size: 1 },
    { name: "minutes", size: 60 },
    { name: "hours", size: 3600 },
    { name: "days", size: 86_400 },
  ],
  _bytes: [
    { name: "bytes", size: 1 },
    { name: "MB", size: 1e6 },
    { name: "GB", size: 1e9 },
    { name: "TB", size: 1e12 },
  ],
};

const unitEnd = (name: string): string | undefined => Object.keys(UNITS).find((end) => name.endsWith(end));

/** Returns a field's name without the unit at its end. */
export function nameWithoutUnit(field: Field): string {
  const end = field.units.length > 0 ? unitEnd(field.name) : undefined;
  return end ? field.name.slice(0, -end.length) : field.name;
}

/** Returns the largest unit of which a number is a whole multiple; where there is none yet, one that people would take. */
export function unitOf(field: Field, value: unknown): Unit | undefined {
  if (typeof value !== "number" || value === 0) return field.units.at(-2);
  return field.units.findLast(({ size }) => value % size === 0) ?? field.units[0];
}

/** An integer's bound that only says how it is stored tells nobody anything. */
const INT32_MAX = 2 ** 31 - 1;

export function fieldOf(document: Document, name: string, given: Schema, prefix = "", of?: readonly string[]): Field {
  const { schema, optional } = withoutNull(document, resolve(document, given));
  const items = schema.items && resolve(document, schema.items);
  const kind = kindOf(items ? { ...schema, items } : schema);
  const path = prefix + name;
  const methods = schema["x-methods"] ?? of;
  return {
    path,
    name,
    kind,
    hint: schema.description ?? "",
    default: schema.default,
    optional,
    options: schema.enum ?? items?.enum ?? [],
    whole: schema.type === "integer",
    units: kind === "number" ? (UNITS[unitEnd(name) ?? ""] ?? []) : [],
    ...(schema.minimum !== undefined && { low: schema.minimum }),
    ...(schema.maximum !== undefined && schema.maximum < INT32_MAX && { high: schema.maximum }),
    examples: schema.examples ?? [],
    fields: kind === "group" ? fieldsOf(document, schema, `${path}/`, methods) : [],
    ...(methods && { methods }),
  };
}

export function fieldsOf(document: Document, schema: Schema, prefix = "", of?: readonly string[]): Field[] {
  return Object.entries(schema.properties ?? {}).map(([name, one]) => fieldOf(document, name, one, prefix, of));
}

export const appliesTo = ({ methods }: Field, method: unknown): boolean => methods === undefined || methods.includes(String(method));

/** Returns the values that a method has a use for. */
export function valuesFor(method: unknown, fields: readonly Field[], values: Values): Values {
  const others = new Set(fields.filter((field) => !appliesTo(field, method)).map(({ path }) => path));
  return Object.fromEntries(Object.entries(values).filter(([path]) => !others.has(path)));
}

export interface Sections {
  basics: Field[];
  method: Field[];
  calibration: Field[];
  result: Field[];
  job: Field[];
}

const BASICS = ["method", "preset", "bits", "group_size", "sym"];
const RESULT = ["targets", "formats", "evaluate", "evaluate_nf4"];
const SPELLINGS = ["desc_act", "static_groups"];

/** Returns all fields of a form, those of groups one by one. */
export const allFields = (sections: Sections): Field[] =>
  Object.values(sections as unknown as Record<string, Field[]>).flat().flatMap((field) => (field.kind === "group" ? field.fields : [field]));

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
    job: groupsLast(rest.filter((field) => !ofMethod(field))),
  };
}

const groupsLast = (fields: Field[]): Field[] => [...fields.filter(({ kind }) => kind !== "group"), ...fields.filter(({ kind }) => kind === "group")];

/** Reads what was typed; what is not of the field's kind stays text, for the service to refuse with its reason. */
export function readInput(field: Field, text: string): unknown {
  const trimmed = text.trim();
  if (trimmed === "") return undefined;
  if (field.kind === "number") return Number.isFinite(Number(trimmed)) ? Number(trimmed) : trimmed;
  if (field.kind === "pairs") return readPairs(trimmed);
  if (field.kind === "list") return trimmed.split(/[\s,]+/).filter(Boolean).map((one) => (Number.isFinite(Number(one)) ? Number(one) : one));
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
  if (field.kind === "list") return (value as unknown[]).join(", ");
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

/** Returns the values with the defaults of all that is not among them. */
export function completed(fields: readonly Field[], values: Values): Values {
  const all = fields.flatMap((field) => (field.kind === "group" ? field.fields : [field]));
  const known = all.filter(({ default: one, optional }) => one !== undefined || optional).map(({ path, default: one }) => [path, one ?? null]);
  return { ...Object.fromEntries(known), ...values };
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
