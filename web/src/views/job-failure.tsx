// A failed job: what happened, where, what to do about it, and what was said last.
import { api, body } from "../api/client";
import type { Job } from "../api/types";
import { plural } from "../lib/format";
import { hrefTo } from "../router";
import { retryJob } from "../state/actions";
import { useResource } from "../state/resource";
import { Glyph, StateShape } from "../ui/icons";
import { IconLink } from "../ui/parts";
import { LogLines } from "./job-log";

const LAST_LINES = 50;

function where(job: Job): string {
  const { stage = null, block = null, linear = null } = job.error ?? {};
  const parts = [stage && `while ${stage}`, block !== null && `in block ${block}`, linear && `at ${linear}`];
  return parts.filter(Boolean).join(", ");
}

export function FailureCard({ job }: { job: Job }) {
  const path = { job_id: job.id };
  const key = `last lines ${job.id} ${job.attempt}`;
  const { data } = useResource(key, (signal) => body(api.GET("/v1/jobs/{job_id}/logs", { params: { path, query: { tail: LAST_LINES } }, signal })));
  const { error } = job;
  const place = where(job);
  const again = error?.retryable !== false;
  return (
    <section class="card failure" aria-labelledby="failure-title">
      <div class="failure-head">
        <StateShape state="failed" />
        <div>
          <h2 id="failure-title">{error?.message ?? "The job failed."}</h2>
          <p class="quiet">
            {place && `${place.charAt(0).toUpperCase()}${place.slice(1)}. `}
            {plural(job.failures, "failed attempt")} of {job.max_attempts}. <code>{error?.code}</code>
          </p>
        </div>
      </div>
      <div class="remedy">
        <h3>What to do</h3>
        <p>{error?.hint || "Look at the last lines below. A retry goes on behind the last finished block."}</p>
        {!again && <p class="quiet">The same would happen again: change what is named above, then submit a copy.</p>}
        <div class="actions">
          <button type="button" class={`button ${again ? "primary" : ""}`} onClick={() => void retryJob(job)}>
            <Glyph name="retry" />
            Retry as it is
          </button>
          <IconLink href={hrefTo("new", { from: job.id })} icon="clone" primary={!again}>
            Change and submit a copy
          </IconLink>
        </div>
      </div>
      {data && data.data.length > 0 && (
        <>
          <h3>Last {plural(data.data.length, "line")} of the log</h3>
          <LogLines lines={data.data} label="Last lines of the log" />
        </>
      )}
    </section>
  );
}
