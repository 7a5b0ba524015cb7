// What the page says about a job, read out of its spec.
import type { Job } from "../api/types";
import { bytes, left } from "./format";

export type Spec = Record<string, unknown>;

/** Returns the hub name, the folder's path or the upload's name of a spec's model. */
export function modelOf(spec: Spec): string {
  const model = (spec["model"] ?? {}) as Record<string, unknown>;
  return String(model["repo"] ?? model["path"] ?? model["name"] ?? "a model");
}

/** Returns the last part of the model's name, as a heading. */
export const shortModel = (spec: Spec): string => modelOf(spec).split("/").filter(Boolean).at(-1) ?? "a model";

const METHODS: Record<string, string> = { gptq: "GPTQ", rtn: "RTN", awq: "AWQ", adaround: "AdaRound", nf4: "NF4" };

export function methodName(method: unknown): string {
  return METHODS[String(method)] ?? String(method).toUpperCase();
}

/** Returns `4.5 bits per weight` or `1.2 GB`: what a budget leaves, which chooses bits and group sizes itself. */
function limitOf(budget: Record<string, unknown>): string {
  const limits = [budget["bits"] ? `${String(budget["bits"])} bits per weight` : "", budget["bytes"] ? bytes(Number(budget["bytes"])) : ""];
  return limits.filter(Boolean).join(" and ");
}

/** Returns `GPTQ · 4 bits · groups of 64`, or `GPTQ · under 4.5 bits per weight`. */
export function summaryOf(spec: Spec): string {
  const parts = [methodName(spec["method"])];
  if (spec["budget"]) return [...parts, `under ${limitOf(spec["budget"] as Record<string, unknown>)}`].join(" · ");
  if (spec["bits"] !== undefined) parts.push(`${String(spec["bits"])} bits`);
  const group = Number(spec["group_size"]);
  if (group) parts.push(group < 0 ? "a scale per row" : `groups of ${group}`);
  return parts.join(" · ");
}

export const shortId = (id: string): string => id.slice(-8);
export const canCancel = (job: Job): boolean => job.state === "queued" || job.state === "running";
export const canRetry = (job: Job): boolean => job.state === "failed" || job.state === "cancelled";

/** Returns the time left to a running job, while its model is fetched to that; or that it is not known. */
export function leftOf({ state, stage, progress }: Job, now: number, unknown: string): string {
  if (state === "cancelling") return "stopping";
  if (!progress.eta_at) return unknown;
  return `${stage === "downloading" ? "fetching, " : ""}${left(progress.eta_at, now)}`;
}

/** Returns the request that a job's spec is: without what another request would not carry. */
export function requestOf(job: Job): Spec {
  const { labels, priority, max_attempts, deadline_s } = job;
  return { ...job.spec, labels, priority, max_attempts, ...(deadline_s === null ? {} : { deadline_s }) };
}

export interface Difference {
  path: string;
  values: readonly unknown[];
}

function flatten(value: unknown, path: string, into: Map<string, unknown>): void {
  if (value !== null && typeof value === "object" && !Array.isArray(value) && Object.keys(value).length > 0)
    for (const [name, inner] of Object.entries(value)) flatten(inner, path ? `${path}.${name}` : name, into);
  else if (path) into.set(path, value);
}

/** Returns the options in which specs differ, each with one value per spec. */
export function differences(specs: readonly Spec[]): Difference[] {
  const flat = specs.map((spec) => {
    const values = new Map<string, unknown>();
    flatten(spec, "", values);
    return values;
  });
  const paths = new Set(flat.flatMap((values) => [...values.keys()]));
  return [...paths]
    .map((path) => ({ path, values: flat.map((values) => values.get(path)) }))
    .filter(({ values }) => new Set(values.map((value) => JSON.stringify(value))).size > 1);
}
