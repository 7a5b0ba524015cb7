// All jobs: filters in the address, pages that come while one scrolls, several jobs chosen at once.
import { useEffect, useRef, useState } from "preact/hooks";

import { api, body } from "../api/client";
import { type Job, type JobState, STATES } from "../api/types";
import { plural, words } from "../lib/format";
import { canCancel, methodName } from "../lib/jobs";
import { focusedRow, onKey } from "../keyboard";
import { go, hrefTo, place, replacePlace } from "../router";
import { cancelJobs } from "../state/actions";
import { epoch } from "../state/live";
import { useEvents } from "../state/resource";
import { Glyph, StateShape } from "../ui/icons";
import { Empty, ErrorBox, Loading, PageHead } from "../ui/parts";
import { COMPARE_MAX } from "./compare";
import { JobRow } from "./job-row";
import { useMethods } from "./methods";

const PAGE = 50;
/** A value may hold spaces and colons. */
const LABEL_PATTERN = "[^:]+:.*";

interface Filters {
  state: JobState[];
  method: string;
  model: string;
  label: string[];
}

function readFilters(query: URLSearchParams): Filters {
  return {
    state: query.getAll("state").filter((state): state is JobState => (STATES as readonly string[]).includes(state)),
    method: query.get("method") ?? "",
    model: query.get("model") ?? "",
    label: query.getAll("label"),
  };
}

async function loadPage(filters: Filters, token: string | null) {
  const query = {
    page_size: PAGE,
    ...(filters.state.length > 0 && { state: filters.state }),
    ...(filters.method && { method: filters.method as "gptq" }),
    ...(filters.model && { model: filters.model }),
    ...(filters.label.length > 0 && { label: filters.label }),
    ...(token && { page_token: token }),
  };
  return body(api.GET("/v1/jobs", { params: { query } }));
}

interface Pages {
  jobs: readonly Job[];
  next: string | null;
}

/** Puts the newest page before what is there: what it holds is newer, what it does not hold stays where it is. */
export function merged(newest: readonly Job[], known: readonly Job[]): Job[] {
  const fresh = new Map(newest.map((job) => [job.id, job]));
  const old = new Set(known.map((job) => job.id));
  return [...newest.filter((job) => !old.has(job.id)), ...known.map((job) => fresh.get(job.id) ?? job)];
}

function useJobs(filters: Filters) {
  const [pages, setPages] = useState<Pages>();
  const [error, setError] = useState<Error>();
  const key = JSON.stringify(filters);
  const current = useRef(key);
  current.current = key;
  const busy = useRef(false);
  const guarded = async (load: Promise<{ data: Job[]; next_page_token: string | null }>, put: (page: Pages) => Pages): Promise<void> => {
    try {
      const { data, next_page_token } = await load;
      if (current.current !== key) return;
      setPages(put({ jobs: data, next: next_page_token }));
      setError(undefined);
    } catch (problem) {
      if (current.current === key) setError(problem as Error);
    }
  };
  const generation = epoch.value;
  const reload = (): Promise<void> => guarded(loadPage(filters, null), (page) => page);
  useEffect(() => {
    setPages(undefined);
    void reload();
  }, [key]);
  useEffect(() => {
    if (generation > 0) void reload();
  }, [generation]);
  const refresh = (): Promise<void> => guarded(loadPage(filters, null), (page) => ({ jobs: merged(page.jobs, pages?.jobs ?? []), next: pages?.next ?? page.next }));
  const more = async (): Promise<void> => {
    if (busy.current || !pages?.next) return;
    busy.current = true;
    await guarded(loadPage(filters, pages.next), (page) => ({ ...page, jobs: [...pages.jobs, ...page.jobs] }));
    busy.current = false;
  };
  return { pages, error, reload, refresh, more };
}

export function JobsView() {
  const filters = readFilters(place.value.query);
  const { pages, error, reload, refresh, more } = useJobs(filters);
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set());
  useEvents(() => true, () => void refresh(), 500);
  const toggle = (id: string): void => setChosen((old) => new Set(old.has(id) ? [...old].filter((one) => one !== id) : [...old, id]));
  const jobs = pages?.jobs ?? [];
  const find = (): Job | undefined => jobs.find((job) => job.id === focusedRow()?.dataset["job"]);
  useEffect(() => {
    const stop = [
      onKey("c", () => {
        const job = find();
        if (job) void cancelJobs([job]);
      }),
      onKey("x", () => {
        const job = find();
        if (job) toggle(job.id);
      }),
    ];
    return () => stop.forEach((one) => one());
  });
  const picked = jobs.filter((job) => chosen.has(job.id));
  return (
    <>
      <PageHead title="Jobs" />
      <FilterBar filters={filters} />
      {error && <ErrorBox error={error} retry={() => void reload()} />}
      {!pages && !error && <Loading rows={6} />}
      {pages && jobs.length === 0 && <Nothing filtered={location.hash.includes("?")} />}
      {jobs.length > 0 && (
        <ul class="rows card flush" aria-label="Jobs">
          {jobs.map((job) => (
            <JobRow job={job} key={job.id}>
              <label class="row-check">
                <input type="checkbox" checked={chosen.has(job.id)} onChange={() => toggle(job.id)} />
                <span class="visually-hidden">Select {job.id}</span>
              </label>
            </JobRow>
          ))}
        </ul>
      )}
      {pages?.next && <More load={more} />}
      <Chosen picked={picked} clear={() => setChosen(new Set())} />
    </>
  );
}

function FilterBar({ filters }: { filters: Filters }) {
  const methods = useMethods();
  const set = (changes: Partial<Filters>): void => replacePlace(hrefTo("jobs", { ...filters, ...changes }));
  const flip = (state: JobState): JobState[] => (filters.state.includes(state) ? filters.state.filter((one) => one !== state) : [...filters.state, state]);
  const addLabel = (input: HTMLInputElement): void => {
    const label = input.value.trim();
    if (label === "" || !input.reportValidity()) return;
    input.value = "";
    set({ label: [...new Set([...filters.label, label])] });
  };
  return (
    <div class="filters">
      <fieldset class="chips">
        <legend class="visually-hidden">State</legend>
        {STATES.map((state) => (
          <label class={`chip ${state}`} key={state}>
            <input type="checkbox" checked={filters.state.includes(state)} onChange={() => set({ state: flip(state) })} />
            <StateShape state={state} />
            {words(state)}
          </label>
        ))}
      </fieldset>
      <div class="filter-fields">
        <label class="search">
          <span class="visually-hidden">Model: hub name, or path inside its root</span>
          <Glyph name="search" />
          <input data-search type="search" placeholder="Model, by its whole name" value={filters.model} onChange={(event) => set({ model: event.currentTarget.value.trim() })} />
        </label>
        <label>
          <span class="visually-hidden">Method</span>
          <select value={filters.method} onChange={(event) => set({ method: event.currentTarget.value })}>
            <option value="">Any method</option>
            {methods.map((method) => (
              <option value={method} key={method}>
                {methodName(method)}
              </option>
            ))}
          </select>
        </label>
        <label class="label-filter">
          <span class="visually-hidden">Add a label, as key:value</span>
          <input placeholder="Add a label:value" pattern={LABEL_PATTERN} title="key:value" onChange={(event) => addLabel(event.currentTarget)} />
        </label>
      </div>
      {filters.label.length > 0 && (
        <ul class="chips" aria-label="Labels">
          {filters.label.map((label) => (
            <li class="label-chip" key={label}>
              {label}
              <button type="button" aria-label={`Remove the label ${label}`} onClick={() => set({ label: filters.label.filter((one) => one !== label) })}>
                <Glyph name="close" />
              </button>
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}

function Nothing({ filtered }: { filtered: boolean }) {
  return filtered ? (
    <Empty title="No job fits these filters.">
      <a class="button" href={hrefTo("jobs")}>
        Show all jobs
      </a>
    </Empty>
  ) : (
    <Empty title="There are no jobs yet.">
      <a class="button primary" href={hrefTo("new")}>
        <Glyph name="plus" />
        New job
      </a>
    </Empty>
  );
}

/** Loads the next page when it comes into sight; the button is for those who do not scroll. */
function More({ load }: { load: () => Promise<void> }) {
  const element = useRef<HTMLButtonElement>(null);
  const latest = useRef(load);
  latest.current = load;
  useEffect(() => {
    const observer = new IntersectionObserver(([entry]) => entry?.isIntersecting && void latest.current(), { rootMargin: "400px" });
    observer.observe(element.current!);
    return () => observer.disconnect();
  }, []);
  return (
    <button type="button" ref={element} class="button more" onClick={() => void load()}>
      More jobs
    </button>
  );
}

function Chosen({ picked, clear }: { picked: readonly Job[]; clear: () => void }) {
  if (picked.length === 0) return null;
  const open = picked.filter(canCancel).length;
  const cancel = async (): Promise<void> => {
    if (await cancelJobs(picked)) clear();
  };
  const comparable = picked.length >= 2 && picked.length <= COMPARE_MAX;
  return (
    <div class="chosen" role="region" aria-label="Selected jobs">
      <b>{plural(picked.length, "job")} selected</b>
      <button type="button" class="button" disabled={!comparable} title={comparable ? undefined : `Select 2 to ${COMPARE_MAX} jobs`} onClick={() => go(hrefTo("compare", { job: picked.map((job) => job.id) }))}>
        <Glyph name="compare" />
        Compare
      </button>
      <button type="button" class="button danger" disabled={open === 0} onClick={() => void cancel()}>
        Cancel {open > 0 && open}
      </button>
      <button type="button" class="button icon-only" aria-label="Clear the selection" onClick={clear}>
        <Glyph name="close" />
      </button>
    </div>
  );
}
