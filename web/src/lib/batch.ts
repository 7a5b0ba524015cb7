// A batch out of a form: each combination of what varies, once, with what all jobs share.
import type { BatchSummary, ModelFolder } from "../api/types";
import { type Field, type Values, nested, valuesFor } from "./fields";
import type { Refusal } from "./refusals";

/** What varies: the values of each field; with none it is left out. */
export type Varied = Readonly<Record<string, readonly unknown[]>>;

/** Returns the field as one of several values. */
export function severalOf(field: Field): Field {
  const given = field.default === undefined || field.default === null ? [] : [field.default];
  return { ...field, kind: field.kind === "choice" ? "choices" : "list", default: given, optional: false };
}

/** Returns what is chosen for each of the fields. */
export const variedOf = (fields: readonly Field[], values: Values): Varied =>
  Object.fromEntries(fields.map(({ path, default: one }) => [path, listOf(values[path] ?? one)]));

const listOf = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : [value]);

function combinations(varied: Varied): Values[] {
  let found: Values[] = [{}];
  for (const [path, values] of Object.entries(varied))
    if (values.length > 0) found = found.flatMap((one) => values.map((value) => ({ ...one, [path]: value })));
  return found;
}

/** Returns the configs, in the order of what varies; two that mean the same are one. */
export function configsOf(fields: readonly Field[], shared: Values, varied: Varied): Record<string, unknown>[] {
  const configs = combinations(varied).map((own) => nested(valuesFor(own["method"], fields, { ...shared, ...own })));
  return [...new Map(configs.map((config) => [JSON.stringify(config), config])).values()];
}

export interface Cell {
  model_index: number;
  config_index: number;
}

export interface BatchModel {
  source: string;
  path?: string;
  root?: string;
  repo?: string;
  revision?: string;
  id?: string;
}

/** What a form chose. folders: as `root/path`; uploads: by id; hub: as typed, `owner/name` or `owner/name@revision`. */
export interface ChosenModels {
  folders: readonly string[];
  uploads: readonly string[];
  hub: string;
}

/** What is asked of the service, and then sent. */
export interface BatchQuestion {
  name: string;
  models: readonly BatchModel[];
  configs: readonly Record<string, unknown>[];
}

/** Returns the models of a request. */
export function modelsOf(known: readonly ModelFolder[], { folders, uploads, hub }: ChosenModels): BatchModel[] {
  const chosen = known.filter(({ root, path }) => folders.includes(`${root}/${path}`)).map(({ root, path }) => ({ source: "path", root, path }));
  const typed = [...new Set(hub.split(/[\s,]+/).filter(Boolean))].map((id) => {
    const [repo = "", revision] = id.split("@", 2);
    return { source: "hub", repo, ...(revision && { revision }) };
  });
  return [...chosen, ...uploads.map((id) => ({ source: "upload", id })), ...typed];
}

/** Returns what a batch is called; one without a name, by its id. */
export const nameOfBatch = ({ id, name }: Pick<BatchSummary, "id" | "name">): string => name || `Batch ${id.slice(-8)}`;

const CELL = / \(models\/(\d+), configs\/(\d+)\)$/;

/** Returns what is said against a batch, each thing once with the jobs that it stands against. */
export function refusalsByCell(error: Refusal): { detail: string; cells: Cell[] }[] {
  const told = new Map<string, Cell[]>();
  for (const { detail, pointer } of error.problem?.errors ?? []) {
    const [ending, model, config] = CELL.exec(detail) ?? [];
    if (ending === undefined) continue;
    const field = /^#\/configs\/\d+\/(.+)$/.exec(pointer ?? "")?.[1];
    const said = `${field ? `${field}: ` : ""}${detail.slice(0, -ending.length)}`;
    told.set(said, [...(told.get(said) ?? []), { model_index: Number(model), config_index: Number(config) }]);
  }
  return [...told].map(([detail, cells]) => ({ detail, cells }));
}
