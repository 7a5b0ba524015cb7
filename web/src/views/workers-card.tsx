// The workers in short, for the overview: which there are, what they do, what room is left.
import { api, body } from "../api/client";
import type { Worker, WorkerPage } from "../api/types";
import { ago, bytes, plural, words } from "../lib/format";
import { hrefTo } from "../router";
import { now } from "../state/live";
import { type Resource, useEvents, useResource } from "../state/resource";
import { Card } from "../ui/parts";

const REFRESH_MS = 2000;

export function useWorkers(): Resource<WorkerPage> {
  const resource = useResource("workers", (signal) => body(api.GET("/v1/workers", { signal })));
  useEvents(() => true, resource.reload, REFRESH_MS);
  return resource;
}

export function WorkerState({ state }: { state: Worker["state"] }) {
  return (
    <span class={`worker-state ${state}`}>
      <i aria-hidden="true" />
      {words(state)}
    </span>
  );
}

export function WorkersCard() {
  const { data } = useWorkers();
  if (!data) return null;
  const free = data.capacity.reduce((sum, { free }) => sum + free, 0);
  return (
    <Card title="Workers" aside={<a class="more-link" href={hrefTo("workers")}>{free > 0 ? plural(free, "free slot") : "No free slot"}</a>}>
      {data.data.length === 0 && <p class="quiet">No worker has registered. Jobs wait until one does.</p>}
      <ul class="workers-short">
        {data.data.map((worker) => (
          <li key={worker.id}>
            <span>
              <b>{worker.hostname}</b> <WorkerState state={worker.state} />
            </span>
            <span class="quiet">
              {worker.device}, {bytes(worker.memory_bytes)}, seen {ago(worker.heartbeat_at, now.value)}
            </span>
          </li>
        ))}
      </ul>
    </Card>
  );
}
