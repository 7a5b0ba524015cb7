// A job's events: all of them, kept up to date, as a list.
import { useEffect, useRef, useState } from "preact/hooks";

import { api, body } from "../api/client";
import type { JobEvent } from "../api/types";
import { bytes, clock, duration, number, words } from "../lib/format";
import { epoch } from "../state/live";
import { useEvents } from "../state/resource";
import { Card } from "../ui/parts";

const PAGE = 1000;

/** Returns the whole history, oldest first; it grows as events come. */
export function useHistory(id: string): readonly JobEvent[] {
  const [events, setEvents] = useState<readonly JobEvent[]>([]);
  const known = useRef<readonly JobEvent[]>([]);
  const busy = useRef(false);
  const readOn = async (): Promise<void> => {
    if (busy.current) return;
    busy.current = true;
    try {
      for (;;) {
        const query = { after: known.current.at(-1)?.seq ?? 0, page_size: PAGE };
        const { data } = await body(api.GET("/v1/jobs/{job_id}/events", { params: { path: { job_id: id }, query } }));
        known.current = [...known.current, ...data];
        if (data.length > 0) setEvents(known.current);
        if (data.length < PAGE) return;
      }
    } catch {
      // The job's own call shows what is wrong; this one reads on with the next event.
    } finally {
      busy.current = false;
    }
  };
  const generation = epoch.value;
  useEffect(() => void readOn(), [id, generation]);
  useEvents((event) => event.job_id === id, () => void readOn(), 200);
  return events;
}

function say(event: JobEvent): string {
  const { payload } = event;
  switch (event.kind) {
    case "stage_started":
      return String(payload["stage"]);
    case "block_quantized":
      return `block ${Number(payload["block"]) + 1} of ${String(payload["blocks_total"])} in ${duration(Number(payload["seconds"]))}, ${bytes(Number(payload["rss_bytes"]))}`;
    case "run_started":
      return Number(payload["blocks_resumed"]) > 0 ? `goes on behind block ${String(payload["blocks_resumed"])} of ${String(payload["blocks_total"])}` : `${String(payload["blocks_total"])} blocks`;
    case "warning":
      return String(payload["message"]);
    default:
      return Object.entries(payload)
        .filter(([name, value]) => name !== "state" && value !== null && typeof value !== "object")
        .map(([name, value]) => `${name} ${typeof value === "number" ? number(value) : String(value)}`)
        .join(", ");
  }
}

const SHOWN = 12;

export function EventsCard({ events }: { events: readonly JobEvent[] }) {
  const [all, setAll] = useState(false);
  if (events.length === 0) return null;
  const newest = events.toReversed();
  return (
    <Card title="Events" aside={<span class="quiet">{events.length}</span>}>
      <div class="events" tabIndex={0} role="region" aria-label="Events, newest first">
        <ol>
        {(all ? newest : newest.slice(0, SHOWN)).map((event) => (
          <li key={event.seq} class={event.kind}>
            <time dateTime={event.at}>{clock(event.at)}</time>
            <span>
              <b>{words(event.kind)}</b> {say(event)}
            </span>
          </li>
        ))}
        </ol>
      </div>
      {events.length > SHOWN && (
        <button type="button" class="button small" onClick={() => setAll(!all)}>
          {all ? "Only the newest" : `All ${events.length}`}
        </button>
      )}
    </Card>
  );
}
