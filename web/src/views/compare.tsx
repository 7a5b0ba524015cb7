// Jobs side by side: which is worth its size, in what they differ, where each loses.
import { useMemo, useState } from "preact/hooks";

import { api, body } from "../api/client";
import type { Job } from "../api/types";
import { nameOfBatch } from "../lib/batch";
import { type Entry, entriesOfBatch, entryOfJob } from "../lib/compare";
import { plural } from "../lib/format";
import { go, hrefTo, place } from "../router";
import { useEvents, useResource } from "../state/resource";
import { Empty, ErrorBox, IconLink, Loading, PageHead } from "../ui/parts";
import { BatchesCard } from "./batches-card";
import { DifferenceCard, LossOverlay, ParetoCard, ResultTable } from "./compare-parts";
import { loadLinears } from "./job-charts";
import { JobRow } from "./job-row";

export const COMPARE_MAX = 6;

async function loadJob(id: string, signal: AbortSignal): Promise<Entry> {
  const params = { path: { job_id: id } };
  const [job, files, linears] = await Promise.all([
    body(api.GET("/v1/jobs/{job_id}", { params, signal })),
    body(api.GET("/v1/jobs/{job_id}/artifacts", { params, signal })),
    loadLinears(id, signal),
  ]);
  return entryOfJob(job, files.data, linears);
}

async function loadBatch(id: string, signal: AbortSignal) {
  const batch = await body(api.GET("/v1/batches/{batch_id}", { params: { path: { batch_id: id } }, signal }));
  const entries = entriesOfBatch(batch);
  const losses = await Promise.all(entries.slice(0, COMPARE_MAX).map((entry) => loadLinears(entry.id, signal)));
  return { name: nameOfBatch(batch), entries: entries.map((entry, at) => ({ ...entry, linears: losses[at] ?? [] })) };
}

export function CompareView() {
  const { query } = place.value;
  const ids = query.getAll("job").slice(0, COMPARE_MAX);
  const batch = query.get("batch");
  if (!batch && ids.length < 2) return <Chooser chosen={ids} />;
  return <Comparison ids={ids} batch={batch} />;
}

function Comparison({ ids, batch }: { ids: readonly string[]; batch: string | null }) {
  const { data, error, reload } = useResource(`compare ${batch ?? ids.join()}`, async (signal) =>
    batch ? loadBatch(batch, signal) : { name: "", entries: await Promise.all(ids.map((id) => loadJob(id, signal))) },
  );
  useEvents((event) => data?.entries.some(({ id }) => id === event.job_id) ?? false, reload, 2000);
  return (
    <>
      <PageHead title="Compare" lead={data && `${data.name ? `${data.name}: ` : ""}${plural(data.entries.length, "job")}`}>
        <a class="button" href={hrefTo("compare")}>
          Choose others
        </a>
      </PageHead>
      {error && <ErrorBox error={error} retry={reload} />}
      {data ? <Parts entries={data.entries} /> : !error && <Loading rows={6} />}
    </>
  );
}

function Parts({ entries }: { entries: readonly Entry[] }) {
  const overlaid = useMemo(() => entries.slice(0, COMPARE_MAX), [entries]);
  return (
    <>
      <ParetoCard entries={entries} />
      <ResultTable entries={entries} />
      <DifferenceCard entries={overlaid} />
      <LossOverlay entries={overlaid} />
    </>
  );
}

function Chooser({ chosen }: { chosen: readonly string[] }) {
  const [picked, setPicked] = useState<ReadonlySet<string>>(new Set(chosen));
  const { data, error } = useResource("succeeded", (signal) => body(api.GET("/v1/jobs", { params: { query: { state: ["succeeded"], page_size: 100 } }, signal })));
  const toggle = (job: Job): void => setPicked((old) => new Set(old.has(job.id) ? [...old].filter((id) => id !== job.id) : [...old, job.id]));
  const jobs = data?.data ?? [];
  const fits = picked.size >= 2 && picked.size <= COMPARE_MAX;
  return (
    <>
      <PageHead title="Compare" lead={`A batch, or 2 to ${COMPARE_MAX} finished jobs.`}>
        <IconLink href={hrefTo("batch")} icon="plus">
          New batch
        </IconLink>
        <button type="button" class="button primary" disabled={!fits} onClick={() => go(hrefTo("compare", { job: [...picked] }))}>
          Compare {picked.size > 0 && picked.size}
        </button>
      </PageHead>
      {error && <ErrorBox error={error} />}
      <BatchesCard />
      {!data && !error && <Loading rows={4} />}
      {data && jobs.length === 0 && <Empty title="No job has finished yet." />}
      {jobs.length > 0 && (
        <ul class="rows card flush" aria-label="Finished jobs">
          {jobs.map((job) => (
            <JobRow job={job} key={job.id}>
              <label class="row-check">
                <input type="checkbox" checked={picked.has(job.id)} onChange={() => toggle(job)} />
                <span class="visually-hidden">Select {job.id}</span>
              </label>
            </JobRow>
          ))}
        </ul>
      )}
    </>
  );
}
