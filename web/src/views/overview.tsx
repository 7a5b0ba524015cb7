// What runs, what waits, what went wrong: the state of the service at a glance.
import { api, body } from "../api/client";
import type { Job, JobState } from "../api/types";
import { ago, bytes, duration, percent, seconds, words } from "../lib/format";
import { leftOf, shortId, shortModel, summaryOf } from "../lib/jobs";
import { hrefTo } from "../router";
import { now, withProgress } from "../state/live";
import { useEvents, useResource } from "../state/resource";
import { Glyph, StateShape } from "../ui/icons";
import { BlockStrip, Card, Empty, ErrorBox, IconLink, InlineFacts, Loading, PageHead, Snippet } from "../ui/parts";
import { JobRow } from "./job-row";
import { WorkersCard } from "./workers-card";

const DAY_MS = 86_400_000;
const PAGE = 50;
const SHOWN = 6;

interface Some {
  jobs: readonly Job[];
  more: boolean;
}

async function list(signal: AbortSignal, state: JobState[], since?: string): Promise<Some> {
  const query = { state, page_size: PAGE, ...(since ? { created_after: since } : {}) };
  const page = await body(api.GET("/v1/jobs", { params: { query }, signal }));
  return { jobs: page.data, more: page.next_page_token !== null };
}

async function load(signal: AbortSignal) {
  const since = new Date(Date.now() - DAY_MS).toISOString();
  const [active, queued, failed, succeeded] = await Promise.all([
    list(signal, ["running", "cancelling"]),
    list(signal, ["queued"]),
    list(signal, ["failed"], since),
    list(signal, ["succeeded"], since),
  ]);
  return { active, queued, failed, succeeded };
}

export function OverviewView() {
  const { data, error, reload } = useResource("overview", load);
  useEvents(() => true, reload, 400);
  return (
    <>
      <PageHead title="Overview">
        <IconLink href={hrefTo("jobs")} icon="jobs">
          All jobs
        </IconLink>
      </PageHead>
      {error && <ErrorBox error={error} retry={reload} />}
      {!data ? !error && <Loading rows={4} /> : <Board {...data} />}
    </>
  );
}

function Board({ active, queued, failed, succeeded }: Awaited<ReturnType<typeof load>>) {
  const nothing = [active, queued, failed, succeeded].every(({ jobs }) => jobs.length === 0);
  return (
    <>
      <ul class="tiles">
        <Tile state="running" name="Running" some={active} query={{ state: ["running", "cancelling"] }} />
        <Tile state="queued" name="Waiting" some={queued} query={{ state: ["queued"] }} />
        <Tile state="succeeded" name="Succeeded today" some={succeeded} query={{ state: ["succeeded"] }} />
        <Tile state="failed" name="Failed today" some={failed} query={{ state: ["failed"] }} />
      </ul>
      {nothing && <FirstSteps />}
      {active.jobs.map((job) => (
        <RunningCard job={job} key={job.id} />
      ))}
      <div class="columns">
        <div>
          {queued.jobs.length > 0 && <Rows title="Queue" some={{ ...queued, jobs: queued.jobs.toReversed() }} href={hrefTo("jobs", { state: "queued" })} />}
          {succeeded.jobs.length > 0 && <Rows title="Finished in the last day" some={succeeded} href={hrefTo("jobs", { state: "succeeded" })} />}
        </div>
        <div>
          <WorkersCard />
          {failed.jobs.length > 0 && <Rows title="Failures of the last day" some={failed} href={hrefTo("jobs", { state: "failed" })} />}
        </div>
      </div>
    </>
  );
}

function Tile({ state, name, some, query }: { state: JobState; name: string; some: Some; query: Record<string, string[]> }) {
  return (
    <li>
      <a class={`tile ${state} ${some.jobs.length === 0 ? "none" : ""}`} href={hrefTo("jobs", query)}>
        <StateShape state={state} />
        <b>
          {some.jobs.length}
          {some.more && "+"}
        </b>
        <span>{name}</span>
      </a>
    </li>
  );
}

function RunningCard({ job: stored }: { job: Job }) {
  const job = withProgress(stored);
  const { progress } = job;
  const known = [
    ["Stage", words(job.stage ?? "starting")],
    ["Block", progress.blocks_total ? `${progress.blocks_done} of ${progress.blocks_total}` : "–"],
    ["Running for", job.started_at ? duration(Math.round(seconds(job.started_at, now.value))) : "–"],
    ["Memory", progress.rss_bytes ? bytes(progress.rss_bytes) : "–"],
    ["Heartbeat", job.heartbeat_at ? ago(job.heartbeat_at, now.value) : "–"],
  ] as const;
  return (
    <article class="card running-card" data-row data-job={job.id}>
      <div class="running-head">
        <div>
          <h2>
            <a class="row-link" href={hrefTo(`jobs/${job.id}`)}>
              {shortModel(job.spec)}
            </a>
          </h2>
          <p class="quiet">
            {summaryOf(job.spec)} <span class="id">{shortId(job.id)}</span>
          </p>
        </div>
        <p class="running-percent">
          {percent(progress.fraction)}
          <span class="quiet">{leftOf(job, now.value, "estimating …")}</span>
        </p>
      </div>
      <BlockStrip done={progress.blocks_done} total={progress.blocks_total} fraction={progress.fraction} state={job.state} />
      <InlineFacts rows={known} />
    </article>
  );
}

function Rows({ title, some, href }: { title: string; some: Some; href: string }) {
  return (
    <Card
      title={title}
      aside={
        (some.more || some.jobs.length > SHOWN) && (
          <a class="more-link" href={href}>
            All {some.jobs.length}
            {some.more && "+"}
          </a>
        )
      }
      class="flush"
    >
      <ul class="rows compact">
        {some.jobs.slice(0, SHOWN).map((job) => (
          <JobRow job={job} key={job.id} />
        ))}
      </ul>
    </Card>
  );
}

function FirstSteps() {
  const command = 'curl -sS "$URL/v1/jobs" -H "Content-Type: application/json" \\\n  -d \'{"model": {"source": "hub", "repo": "HuggingFaceTB/SmolLM2-135M-Instruct"}, "group_size": 64}\'';
  return (
    <Empty title="Nothing has run here today.">
      <p>Choose a model and a number of bits, and see before it starts whether it fits.</p>
      <p>
        <a class="button primary" href={hrefTo("new")}>
          <Glyph name="plus" />
          New job
        </a>
      </p>
      <p class="quiet">The same from a shell:</p>
      <Snippet label="Submit with curl" text={command.replace('"$URL', `"${new URL(".", document.baseURI).href.replace(/\/$/, "")}`)} />
    </Empty>
  );
}
