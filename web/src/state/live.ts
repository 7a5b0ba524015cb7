// What the stream of events brings, for any view: whether it is live, the newest progress of each job, each event.
import { type Signal, signal } from "@preact/signals";

import { EventFeed } from "../api/stream";
import type { Job, Progress, StreamedEvent } from "../api/types";

export type Liveness = "connecting" | "live" | "lost";

export const live = signal<Liveness>("connecting");
/** Grows where the page may have missed something and should read what it shows anew. */
export const epoch = signal(0);
/** Now, once a second: ages and times left count from it. */
export const now = signal(Date.now());

const progress = new Map<string, Signal<Progress | undefined>>();
const handlers = new Set<(event: StreamedEvent) => void>();

export function progressOf(id: string): Signal<Progress | undefined> {
  let found = progress.get(id);
  if (!found) progress.set(id, (found = signal<Progress | undefined>(undefined)));
  return found;
}

/** Returns the job with the newest progress that has come. */
export function withProgress(job: Job): Job {
  const newest = progressOf(job.id).value;
  if (!newest || newest.version <= job.version || newest.attempt !== job.attempt) return job;
  const { fraction, blocks_done, blocks_total, eta_at, rss_bytes, last_linear, last_loss } = newest;
  return {
    ...job,
    state: newest.state,
    stage: newest.stage,
    heartbeat_at: newest.heartbeat_at,
    progress: { fraction, blocks_done, blocks_total, eta_at, rss_bytes, last_linear, last_loss },
  };
}

/** Calls back with each event until the function that it returns is called. */
export function onEvent(handler: (event: StreamedEvent) => void): () => void {
  handlers.add(handler);
  return () => handlers.delete(handler);
}

const feed = new EventFeed({
  onFrame(kind, data) {
    if (kind === "progress") progressOf((data as Progress).id).value = data as Progress;
    else if (kind === "event") for (const handler of handlers) handler(data as StreamedEvent);
    else if (kind === "reset") epoch.value += 1;
  },
  onLive(isLive) {
    if (isLive && live.value === "lost") epoch.value += 1;
    live.value = isLive ? "live" : "lost";
  },
});

const followWhileSeen = (): void => (document.hidden ? feed.stop() : feed.start());

export function startLive(): void {
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) epoch.value += 1;
    followWhileSeen();
  });
  followWhileSeen();
  setInterval(() => {
    if (!document.hidden) now.value = Date.now();
  }, 1000);
}

/** Drops the connection and opens it anew, as after a change of key. */
export function restartLive(): void {
  feed.stop();
  live.value = "connecting";
  epoch.value += 1;
  followWhileSeen();
}
