// The batches there are, newest first, each with what became of its jobs; its name opens its table.
import { useState } from "preact/hooks";

import { api, body } from "../api/client";
import { type BatchSummary, STATES } from "../api/types";
import { nameOfBatch } from "../lib/batch";
import { ago, moment, plural } from "../lib/format";
import { hrefTo } from "../router";
import { now } from "../state/live";
import { attempt } from "../state/notices";
import { useEvents, useResource } from "../state/resource";
import { Card, ErrorBox } from "../ui/parts";

const PAGE = 10;

const loadPage = (token?: string, signal?: AbortSignal) =>
  body(api.GET("/v1/batches", { params: { query: { page_size: PAGE, ...(token && { page_token: token }) } }, ...(signal && { signal }) }));

export function BatchesCard() {
  const { data, error, reload } = useResource("batches", (signal) => loadPage(undefined, signal));
  const [older, setOlder] = useState<{ rows: readonly BatchSummary[]; next: string | null }>();
  useEvents(() => true, reload, 2000);
  if (error) return <ErrorBox error={error} retry={reload} />;
  if (!data || data.data.length === 0) return null;
  const first = new Set(data.data.map(({ id }) => id));
  const rows = [...data.data, ...(older?.rows ?? []).filter(({ id }) => !first.has(id))];
  const next = older ? older.next : data.next_page_token;
  const more = (): Promise<boolean> =>
    attempt(async () => {
      const page = await loadPage(next!);
      setOlder({ rows: [...rows, ...page.data], next: page.next_page_token });
    });
  return (
    <Card title="Batches">
      <ul class="batches">
        {rows.map((batch) => (
          <li key={batch.id}>
            <a href={hrefTo("compare", { batch: batch.id })}>{nameOfBatch(batch)}</a>
            <span class="quiet">{saysOf(batch)}</span>
            <time class="quiet" dateTime={batch.created_at} title={moment(batch.created_at)}>
              {ago(batch.created_at, now.value)}
            </time>
          </li>
        ))}
      </ul>
      {next && (
        <button type="button" class="button small" onClick={() => void more()}>
          Older batches
        </button>
      )}
    </Card>
  );
}

function saysOf({ states }: BatchSummary): string {
  const counted = STATES.flatMap((state) => (states[state] ? [`${states[state]} ${state}`] : []));
  const total = Object.values(states).reduce((sum, count) => sum + count, 0);
  return total === 0 ? "its jobs were deleted" : `${plural(total, "job")}: ${counted.join(", ")}`;
}
