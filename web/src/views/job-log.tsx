// A job's log: the newest lines, as they come, with a search.
import { useEffect, useRef, useState } from "preact/hooks";

import { api, body } from "../api/client";
import { type Job, type LogLine, isOver } from "../api/types";
import { clock } from "../lib/format";
import { progressOf } from "../state/live";
import { useEvents, useResource } from "../state/resource";
import { Glyph } from "../ui/icons";
import { Card } from "../ui/parts";

const TAIL = 1000;
const AT_END_PX = 30;

const fieldsOf = (line: LogLine): string =>
  Object.entries(line.fields)
    .map(([name, value]) => `${name}=${typeof value === "string" ? value : JSON.stringify(value)}`)
    .join(" ");

/** Lines that hold every word that is searched for. */
export function found(lines: readonly LogLine[], search: string): readonly LogLine[] {
  const wanted = search.toLowerCase().split(/\s+/).filter(Boolean);
  if (wanted.length === 0) return lines;
  return lines.filter((line) => {
    const text = `${line.level} ${line.source} ${line.text} ${fieldsOf(line)}`.toLowerCase();
    return wanted.every((word) => text.includes(word));
  });
}

/** Stays at the end as lines come, unless one has scrolled up to read. */
export function LogLines({ lines, label }: { lines: readonly LogLine[]; label: string }) {
  const element = useRef<HTMLDivElement>(null);
  const follows = useRef(true);
  useEffect(() => {
    if (follows.current) element.current!.scrollTop = element.current!.scrollHeight;
  }, [lines]);
  const scrolled = (): void => {
    const { scrollTop, scrollHeight, clientHeight } = element.current!;
    follows.current = scrollHeight - scrollTop - clientHeight < AT_END_PX;
  };
  return (
    <div class="log" ref={element} tabIndex={0} role="region" aria-label={label} onScroll={scrolled}>
      <ol>
      {lines.map((line) => (
        <li class={line.level} key={`${line.attempt}.${line.number}`}>
          <time dateTime={line.at}>{clock(line.at)}</time>
          <span class="log-source">{line.source}</span>
          <span class="log-text">
            {line.level !== "info" && <b>{line.level} </b>}
            {line.text} <span class="quiet">{fieldsOf(line)}</span>
          </span>
        </li>
      ))}
      </ol>
    </div>
  );
}

export function LogCard({ job }: { job: Job }) {
  const [search, setSearch] = useState("");
  const path = { job_id: job.id };
  const { data, reload } = useResource(`log ${job.id} ${isOver(job.state) ? job.state : ""}`, (signal) =>
    body(api.GET("/v1/jobs/{job_id}/logs", { params: { path, query: { tail: TAIL } }, signal })),
  );
  useEvents((event) => event.job_id === job.id, reload, 1000);
  const beat = progressOf(job.id).value?.heartbeat_at;
  useEffect(reload, [beat]);
  const lines = data?.data ?? [];
  const shown = found(lines, search);
  if (lines.length === 0) return null;
  return (
    <Card
      title="Log"
      aside={
        <label class="search">
          <span class="visually-hidden">Search the log</span>
          <Glyph name="search" />
          <input data-search type="search" placeholder="Search" value={search} onInput={(event) => setSearch(event.currentTarget.value)} />
        </label>
      }
    >
      {shown.length > 0 ? <LogLines lines={shown} label="Log" /> : <p class="quiet">No line holds these words.</p>}
      {search && (
        <p class="quiet" role="status">
          {shown.length} of {lines.length} lines
        </p>
      )}
    </Card>
  );
}
