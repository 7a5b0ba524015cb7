// A job as a row: the same in every list.
import type { ComponentChildren } from "preact";

import type { Job } from "../api/types";
import { ago, duration, moment, percent, seconds } from "../lib/format";
import { leftOf, shortId, shortModel, summaryOf } from "../lib/jobs";
import { hrefTo } from "../router";
import { now, withProgress } from "../state/live";
import { BlockStrip, StateBadge } from "../ui/parts";

export function JobRow({ job: stored, children }: { job: Job; children?: ComponentChildren }) {
  const job = withProgress(stored);
  return (
    <li class="row" data-row data-job={job.id}>
      {children}
      <div class="row-what">
        <a class="row-link" href={hrefTo(`jobs/${job.id}`)}>
          {shortModel(job.spec)}
        </a>
        <span class="quiet">
          {summaryOf(job.spec)} <span class="id">{shortId(job.id)}</span>
        </span>
      </div>
      <div class="row-state">
        <StateBadge state={job.state} />
        <time class="quiet" dateTime={job.created_at} title={moment(job.created_at)}>
          {ago(job.finished_at ?? job.created_at, now.value)}
        </time>
      </div>
      <div class="row-how">
        <Outcome job={job} />
      </div>
    </li>
  );
}

function Outcome({ job }: { job: Job }) {
  if (job.state === "running" || job.state === "cancelling")
    return (
      <>
        <BlockStrip done={job.progress.blocks_done} total={job.progress.blocks_total} fraction={job.progress.fraction} state={job.state} />
        <span class="quiet row-line">
          <span>{percent(job.progress.fraction)}</span>
          <span>{leftOf(job, now.value, job.stage ?? "starting")}</span>
        </span>
      </>
    );
  if (job.state === "failed") return <span class="row-error">{job.error?.message ?? "It failed."}</span>;
  if (job.state === "queued") return <span class="quiet">{job.attempt > 0 ? `waits for attempt ${job.attempt + 1}` : "waits for a worker"}</span>;
  if (job.state === "succeeded") return <span class="quiet">{quality(job) ?? took(job)}</span>;
  return null;
}

const took = (job: Job): string => (job.started_at && job.finished_at ? `took ${duration(seconds(job.started_at, job.finished_at))}` : "");

function quality(job: Job): string | undefined {
  const ratio = job.evaluation?.perplexity_ratio;
  return ratio != null ? `perplexity × ${ratio.toFixed(3)}, ${took(job)}` : undefined;
}
