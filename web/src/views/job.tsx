// One job: what it does now, what it did, what came out of it.
import { useEffect } from "preact/hooks";

import { api, body } from "../api/client";
import { type Job, isOver } from "../api/types";
import { nameOfBatch } from "../lib/batch";
import { duration, moment, words } from "../lib/format";
import { canCancel, canRetry, modelOf, shortModel, summaryOf } from "../lib/jobs";
import { onKey } from "../keyboard";
import { go, hrefTo } from "../router";
import { cancelJobs, deleteJob, retryJob } from "../state/actions";
import { withProgress } from "../state/live";
import { announce } from "../state/notices";
import { useEvents, useResource } from "../state/resource";
import { Glyph } from "../ui/icons";
import { Card, CopyButton, ErrorBox, Facts, IconLink, Loading, PageHead, Snippet, StateBadge, Warnings } from "../ui/parts";
import { BudgetCard } from "./job-budget";
import { LossCard, ResourceCards } from "./job-charts";
import { EvaluationCard } from "./job-evaluation";
import { FailureCard } from "./job-failure";
import { FilesCard } from "./job-files";
import { EventsCard, useHistory } from "./job-history";
import { LogCard } from "./job-log";
import { AttemptsCard, ProgressCard } from "./job-progress";
import { PublishCard } from "./job-publish";

export function JobView({ id }: { id: string }) {
  const path = { job_id: id };
  const { data, error, reload } = useResource(id, (signal) => body(api.GET("/v1/jobs/{job_id}", { params: { path }, signal })));
  useEvents((event) => event.job_id === id, reload, 150);
  if (!data) return error ? <ErrorBox error={error} retry={reload} /> : <Loading rows={6} />;
  return <Shown job={withProgress(data)} changed={reload} />;
}

function Shown({ job, changed }: { job: Job; changed: () => void }) {
  const events = useHistory(job.id);
  const over = isOver(job.state);
  useEffect(() => onKey("c", () => void cancelJobs([job])));
  useEffect(() => announce(`The job is ${job.state}${job.stage && !over ? `, ${job.stage}` : ""}`), [job.state, job.stage]);
  return (
    <>
      <Head job={job} />
      {job.state === "failed" && <FailureCard job={job} />}
      {!over && <ProgressCard job={job} events={events} />}
      <Warnings texts={job.warnings.map((warning) => [warning["linear"], warning["message"]].filter(Boolean).map(String).join(": "))} />
      {job.state === "succeeded" && <FilesCard job={job} changed={changed} />}
      {job.state === "succeeded" && <PublishCard job={job} />}
      {job.evaluation && <EvaluationCard evaluation={job.evaluation} />}
      {job.spec["budget"] !== undefined && <BudgetCard job={job} />}
      <LossCard job={job} />
      <ResourceCards events={events} />
      {over && <ProgressCard job={job} events={events} />}
      <LogCard job={job} />
      <div class="columns">
        <div>
          <AttemptsCard job={job} />
          <EventsCard events={events} />
        </div>
        <ConfigCard job={job} />
      </div>
    </>
  );
}

function Head({ job }: { job: Job }) {
  const remove = async (): Promise<void> => {
    if (await deleteJob(job)) go(hrefTo("jobs"));
  };
  return (
    <PageHead
      title={shortModel(job.spec)}
      lead={
        <span class="job-lead">
          <StateBadge state={job.state} />
          <span>{summaryOf(job.spec)}</span>
          <span class="id-copy">
            <code class="id">{job.id}</code>
            <CopyButton text={job.id} label="Copy the id" />
          </span>
        </span>
      }
    >
      {canCancel(job) && (
        <button type="button" class="button danger" onClick={() => void cancelJobs([job])}>
          Cancel
        </button>
      )}
      {canRetry(job) && (
        <button type="button" class={`button ${job.state === "failed" ? "" : "primary"}`} onClick={() => void retryJob(job)}>
          <Glyph name="retry" />
          Retry
        </button>
      )}
      <IconLink href={hrefTo("new", { from: job.id })} icon="clone">
        Clone
      </IconLink>
      {isOver(job.state) && (
        <button type="button" class="button" onClick={() => void remove()}>
          Delete
        </button>
      )}
    </PageHead>
  );
}

/** The batch that the job came with: where it stands beside the others. */
function BatchLink({ id }: { id: string }) {
  const { data } = useResource(`batch of ${id}`, (signal) => body(api.GET("/v1/batches", { params: { query: { job: id } }, signal })));
  const batch = data?.data[0];
  return batch ? <a href={hrefTo("compare", { batch: batch.id })}>{nameOfBatch(batch)}</a> : <>none</>;
}

function ConfigCard({ job }: { job: Job }) {
  const known = Object.entries(job.resolved).map(([name, value]) => [words(name), <code class="wrap">{typeof value === "string" ? value : JSON.stringify(value)}</code>] as const);
  return (
    <Card title="Configuration">
      <Facts
        rows={[
          ["Model", modelOf(job.spec)],
          ["Submitted", moment(job.created_at)],
          ["Batch", <BatchLink id={job.id} />],
          ["Labels", Object.entries(job.labels).map(([key, value]) => `${key}: ${value}`).join(", ") || "none"],
          ["Priority", job.priority],
          ["Deadline", job.deadline_at ? `${moment(job.deadline_at)}, ${duration(job.deadline_s!)} after the submit` : "none"],
          ...known,
        ]}
      />
      <h3>As a request</h3>
      <Snippet label="The job as a request" text={JSON.stringify(job.spec, null, 2)} />
    </Card>
  );
}
