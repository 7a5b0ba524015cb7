// How far a job is: the stages with their times, the blocks, what is left; and the attempts so far.
import { api, body } from "../api/client";
import { type Attempt, type Job, type JobEvent, STAGES, isOver } from "../api/types";
import { ago, bytes, duration, left, moment, number, percent, seconds, words } from "../lib/format";
import { leftOf } from "../lib/jobs";
import { now } from "../state/live";
import { useEvents, useResource } from "../state/resource";
import { Glyph } from "../ui/icons";
import { BlockStrip, Card, InlineFacts, Warnings } from "../ui/parts";

export interface StageTime {
  stage: string;
  from: string;
  to: string | null;
}

/** Returns the stages of the newest attempt, with when each began and ended. */
export function stageTimes(events: readonly JobEvent[], attempt: number, end: string | null): StageTime[] {
  const begun = events.filter((event) => event.kind === "stage_started" && event.attempt === attempt);
  return begun.map((event, at) => ({ stage: String(event.payload["stage"]), from: event.at, to: begun[at + 1]?.at ?? end }));
}

export function ProgressCard({ job, events }: { job: Job; events: readonly JobEvent[] }) {
  const { progress } = job;
  const over = isOver(job.state);
  const queued = job.state === "queued";
  return (
    <Card title={over ? "Timeline" : "Progress"} aside={!over && !queued && <Eta job={job} />}>
      {!over && !queued && <BlockStrip done={progress.blocks_done} total={progress.blocks_total} fraction={progress.fraction} state={job.state} />}
      {queued && <QueueLine job={job} />}
      <Stages job={job} times={stageTimes(events, job.attempt, job.finished_at)} />
      <InlineFacts
        rows={[
          ["Blocks", progress.blocks_total ? `${progress.blocks_done} of ${progress.blocks_total}` : "–"],
          ["Took", job.started_at ? duration(seconds(job.started_at, job.finished_at ?? now.value)) : "–"],
          ["Attempt", job.attempt ? `${job.attempt} (${job.failures} of ${job.max_attempts} failed)` : "none yet"],
          ["Worker", job.worker ? <code class="id">{job.worker.slice(-8)}</code> : "–"],
          ...(over
            ? []
            : ([
                ["Heartbeat", job.heartbeat_at ? ago(job.heartbeat_at, now.value) : "–"],
                ...(job.deadline_at ? [["Deadline", left(job.deadline_at, now.value)] as const] : []),
                ["Memory", progress.rss_bytes ? bytes(progress.rss_bytes) : "–"],
                ["Last linear", progress.last_linear ? `${progress.last_linear}${progress.last_loss === null ? "" : `, loss ${number(progress.last_loss)}`}` : "–"],
              ] as const)),
        ]}
      />
    </Card>
  );
}

function Eta({ job }: { job: Job }) {
  return (
    <span class="eta">
      <b>{percent(job.progress.fraction)}</b> {leftOf(job, now.value, "estimating …")}
    </span>
  );
}

function QueueLine({ job }: { job: Job }) {
  const path = { job_id: job.id };
  const { data, reload } = useResource(`place ${job.id}`, (signal) => body(api.GET("/v1/jobs/{job_id}/queue-position", { params: { path }, signal })));
  useEvents(() => true, reload, 1000);
  if (data?.obstacle) return <Warnings texts={[`It waits in vain: ${data.obstacle.message}`]} />;
  if (!data?.position) return <p class="quiet">It waits for a worker.</p>;
  return (
    <p>
      Place <b>{data.position}</b> of {data.waiting} in the queue.
      {data.available_at && new Date(data.available_at).getTime() > now.value && ` It is tried again in ${duration(seconds(new Date(now.value).toISOString(), data.available_at))}.`}
    </p>
  );
}

function Stages({ job, times }: { job: Job; times: readonly StageTime[] }) {
  const begun = new Map(times.map((time) => [time.stage, time]));
  const shown = STAGES.filter((stage) => begun.has(stage) || (!isOver(job.state) && stage !== "downloading" && stage !== "uploading" && (stage !== "evaluating" || job.spec["evaluate"] === true)));
  const last = times.at(-1)?.stage;
  return (
    <ol class="stages">
      {shown.map((stage) => {
        const time = begun.get(stage);
        const broke = job.state === "failed" && stage === last;
        const is = !time ? "ahead" : broke ? "broke" : time.to ? "done" : "now";
        return (
          <li class={is} key={stage} aria-current={is === "now" ? "step" : undefined}>
            <i aria-hidden="true">{is === "done" ? <Glyph name="check" /> : is === "broke" ? <Glyph name="close" /> : null}</i>
            <span>{words(stage)}</span>
            <small>{time ? duration(seconds(time.from, time.to ?? now.value)) : "–"}</small>
          </li>
        );
      })}
    </ol>
  );
}

export function AttemptsCard({ job }: { job: Job }) {
  const path = { job_id: job.id };
  const key = `attempts ${job.id} ${job.attempt} ${job.state}`;
  const { data } = useResource(key, (signal) => body(api.GET("/v1/jobs/{job_id}/attempts", { params: { path }, signal })));
  if (!data || data.data.length === 0) return null;
  return (
    <Card title="Attempts">
      <ol class="attempts">
        {data.data.map((attempt) => (
          <AttemptLine attempt={attempt} key={attempt.number} />
        ))}
      </ol>
    </Card>
  );
}

function AttemptLine({ attempt }: { attempt: Attempt }) {
  const took = duration(seconds(attempt.started_at, attempt.ended_at ?? now.value));
  return (
    <li>
      <b>{attempt.number}</b>
      <span>
        {words(attempt.outcome ?? "running")} <span class="quiet">after {took}</span>
        {attempt.error && <span class="row-error">{attempt.error.message}</span>}
        <small>
          {moment(attempt.started_at)}, worker {attempt.worker.slice(-8)}
        </small>
      </span>
    </li>
  );
}
