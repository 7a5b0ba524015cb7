// Jobs and rows of a batch in one form, to be put side by side.
import type { Artifact, Batch, Evaluation, Job, JobState, Linear } from "../api/types";
import { type Spec, shortModel, summaryOf } from "./jobs";

export interface Entry {
  id: string;
  name: string;
  state: JobState;
  fraction: number;
  /** Code of the error that ended it. */
  error: string | null;
  spec: Spec;
  evaluation: Evaluation | null;
  size: number | null;
  perplexity: number | null;
  kl: number | null;
  agreement: number | null;
  meanLoss: number | null;
  seconds: number | null;
  linears: readonly Linear[];
}

/** What jobs compare with: a model as it is, or in NF4. missing: why it was not measured. */
export interface Reference {
  name: string;
  size: number | null;
  perplexity: number | null;
  kl: number | null;
  agreement: number | null;
  missing: string | null;
}

/** Returns the float models and NF4 once each; that one worker could not measure NF4 is told only where no other did. */
export function referencesOf(measured: readonly { model: string; evaluation: Evaluation | null }[]): Reference[] {
  const rows = new Map<string, Reference>();
  for (const { model, evaluation } of measured) {
    if (evaluation?.perplexity_float != null) put(rows, { name: `${model}, float`, size: evaluation.bytes_float ?? null, perplexity: evaluation.perplexity_float, kl: 0, agreement: 1, missing: null });
    const nf4 = evaluation?.nf4;
    if (nf4) put(rows, { name: `${model}, NF4 by bitsandbytes`, size: nf4.bytes ?? null, perplexity: nf4.perplexity ?? null, kl: nf4.kl_divergence ?? null, agreement: nf4.top1_agreement ?? null, missing: nf4.missing ?? null });
  }
  return [...rows.values()];
}

function put(rows: Map<string, Reference>, row: Reference): void {
  const known = rows.get(row.name);
  if (!known || (known.missing !== null && row.missing === null)) rows.set(row.name, row);
}

const measuresOf = (evaluation: Evaluation | null | undefined): Pick<Entry, "perplexity" | "kl" | "agreement"> => ({
  perplexity: evaluation?.perplexity_quantized ?? null,
  kl: evaluation?.kl_divergence ?? null,
  agreement: evaluation?.top1_agreement ?? null,
});

export function meanLoss(linears: readonly Linear[]): number | null {
  const losses = linears.flatMap(({ relative_loss }) => (relative_loss === null ? [] : [relative_loss]));
  return losses.length === 0 ? null : losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
}

export function entryOfJob(job: Job, files: readonly Artifact[], linears: readonly Linear[]): Entry {
  const { started_at, finished_at } = job;
  return {
    id: job.id,
    name: `${shortModel(job.spec)}, ${summaryOf(job.spec)}`,
    state: job.state,
    fraction: job.progress.fraction,
    error: job.error?.code ?? null,
    spec: job.spec,
    evaluation: job.evaluation,
    size: files.length === 0 ? null : files.reduce((sum, file) => sum + file.size_bytes, 0),
    ...measuresOf(job.evaluation),
    meanLoss: meanLoss(linears),
    seconds: started_at && finished_at ? (Date.parse(finished_at) - Date.parse(started_at)) / 1000 : null,
    linears,
  };
}

export function entriesOfBatch(batch: Batch): Entry[] {
  return batch.table.map((row) => {
    const spec = { model: { path: row.model }, ...row.config };
    return {
      id: row.job_id,
      name: `${shortModel(spec)}, ${summaryOf(spec)}`,
      state: row.state,
      fraction: row.fraction,
      error: row.error,
      spec,
      evaluation: row.evaluation,
      size: row.artifact_bytes,
      ...measuresOf(row.evaluation),
      meanLoss: row.mean_relative_loss,
      seconds: row.seconds,
      linears: [],
    };
  });
}

/** Returns A, B, … Z, A2, …: a job's mark in every plot and table. */
export const letter = (at: number): string => String.fromCharCode(65 + (at % 26)) + (at >= 26 ? String(Math.floor(at / 26) + 1) : "");

/** Returns the names and blocks of all linears in the order of the models, and each entry's losses in that order. */
export function overlay(entries: readonly Entry[]): { names: string[]; blocks: number[]; losses: (number | null)[][] } {
  const places = new Map<string, number>();
  for (const { linears } of entries) for (const row of linears) if (!places.has(row.linear)) places.set(row.linear, row.block);
  const names = [...places.keys()].sort((a, b) => places.get(a)! - places.get(b)! || (a < b ? -1 : 1));
  const losses = entries.map(({ linears }) => {
    const byName = new Map(linears.map((row) => [row.linear, row.relative_loss]));
    return names.map((name) => {
      const loss = byName.get(name) ?? null;
      return loss !== null && loss > 0 ? loss : null;
    });
  });
  return { names, blocks: names.map((name) => places.get(name)!), losses };
}
