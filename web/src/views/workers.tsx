// Workers: what each has and does, the room of each queue class, and taking one out of service.
import { api, body } from "../api/client";
import type { Worker } from "../api/types";
import { ago, bytes, moment, plural } from "../lib/format";
import { shortId } from "../lib/jobs";
import { hrefTo } from "../router";
import { now } from "../state/live";
import { attempt, notify } from "../state/notices";
import { Card, DataTable, Empty, ErrorBox, Facts, Loading, PageHead } from "../ui/parts";
import { WorkerState, useWorkers } from "./workers-card";

export function WorkersView() {
  const { data, error, reload } = useWorkers();
  return (
    <>
      <PageHead title="Workers" lead="A worker takes one job per slot, finishes a block before it stops, and can be drained before an upgrade." />
      {error && <ErrorBox error={error} retry={reload} />}
      {!data && !error && <Loading rows={3} />}
      {data?.data.length === 0 && (
        <Empty title="No worker has registered.">
          <p class="quiet">
            Jobs wait until one does. <code>bitmill up</code> starts one; in the scaled mode, start the worker's container.
          </p>
        </Empty>
      )}
      <div class="cards">
        {data?.data.map((worker) => (
          <WorkerCard worker={worker} changed={reload} key={worker.id} />
        ))}
      </div>
      {data && data.capacity.length > 0 && (
        <Card title="Room by queue class" class="flush-table">
          <DataTable
            label="Room by queue class"
            head={["Class", "Workers", "Slots", "Busy", "Free", "Waiting", "Largest memory"]}
            numeric={[1, 2, 3, 4, 5, 6]}
            rows={data.capacity.map((room) => [room.queue_class, room.workers, room.slots, room.busy, room.free, room.waiting, room.largest_memory_bytes === null ? "–" : bytes(room.largest_memory_bytes)])}
          />
        </Card>
      )}
    </>
  );
}

function WorkerCard({ worker, changed }: { worker: Worker; changed: () => void }) {
  const drains = worker.drain_requested_at !== null;
  const turn = async (): Promise<void> => {
    const call = { params: { path: { worker_id: worker.id } } };
    if (await attempt(() => body(drains ? api.POST("/v1/workers/{worker_id}:resume", call) : api.POST("/v1/workers/{worker_id}:drain", call)))) {
      notify(drains ? "It works again with its next sign of life" : "It drains: the block under way is finished, then the job goes back to the queue");
      changed();
    }
  };
  return (
    <Card title={worker.hostname} aside={<WorkerState state={worker.state} />}>
      <Facts
        rows={[
          ["Device", `${worker.device_name} (${worker.device})`],
          ["Memory", bytes(worker.memory_bytes)],
          ["Slots", `${worker.busy} of ${worker.slots} busy`],
          ["Jobs", <Jobs ids={worker.jobs} busy={worker.busy} />],
          ["Queue classes", worker.queue_classes.join(", ")],
          ["Engine", worker.engine_version],
          ["Seen", ago(worker.heartbeat_at, now.value)],
          ["Since", moment(worker.registered_at)],
        ]}
      />
      {worker.state !== "lost" && (
        <p class="card-foot">
          <button type="button" class="button small" onClick={() => void turn()}>
            {drains ? "Let it work again" : "Drain"}
          </button>
        </p>
      )}
    </Card>
  );
}

function Jobs({ ids, busy }: { ids: readonly string[]; busy: number }) {
  const hidden = busy - ids.length;
  return (
    <>
      {ids.map((id) => (
        <a href={hrefTo(`jobs/${id}`)} key={id}>
          {shortId(id)}{" "}
        </a>
      ))}
      {hidden > 0 && <span class="quiet">{plural(hidden, "job")} of other keys</span>}
      {busy === 0 && "none"}
    </>
  );
}
