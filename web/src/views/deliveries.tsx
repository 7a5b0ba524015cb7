// A webhook's messages, newest first, and sending one again.
import { useEffect } from "preact/hooks";

import { api, body } from "../api/client";
import type { Delivery } from "../api/types";
import { ago, words } from "../lib/format";
import { hrefTo } from "../router";
import { now } from "../state/live";
import { attempt, notify } from "../state/notices";
import { useEvents, useResource } from "../state/resource";
import { DataTable } from "../ui/parts";

const SHOWN = 20;
const REFRESH_MS = 3000;
const PENDING_MS = 1000;

export function Deliveries({ webhook }: { webhook: string }) {
  const params = { path: { webhook_id: webhook }, query: { page_size: SHOWN } };
  const { data, reload } = useResource(`deliveries ${webhook}`, (signal) => body(api.GET("/v1/webhooks/{webhook_id}/deliveries", { params, signal })));
  useEvents(() => true, reload, REFRESH_MS);
  const waits = data?.data.some(({ state }) => state === "pending") ?? false;
  useEffect(() => {
    // No event tells of an attempt.
    if (!waits) return undefined;
    const timer = setInterval(reload, PENDING_MS);
    return () => clearInterval(timer);
  }, [waits, reload]);
  const again = async (delivery: Delivery): Promise<void> => {
    const path = { webhook_id: webhook, delivery_id: delivery.id };
    if (await attempt(() => body(api.POST("/v1/webhooks/{webhook_id}/deliveries/{delivery_id}:replay", { params: { path } })))) {
      notify("It is sent again");
      reload();
    }
  };
  if (!data || data.data.length === 0) return null;
  return (
    <>
      <h3>Messages</h3>
      <DataTable
        label="Messages"
        head={["Event", "Job", "State", "Answer", "When", "Actions"]}
        rows={data.data.map((delivery) => [
          delivery.type,
          delivery.job_id ? <a href={hrefTo(`jobs/${delivery.job_id}`)}>{delivery.job_id.slice(-8)}</a> : "–",
          `${words(delivery.state)}, ${delivery.attempts} tried`,
          delivery.status_code ?? delivery.error ?? "–",
          ago(delivery.created_at, now.value),
          <button type="button" class="button small" aria-label={`Send ${delivery.id} again`} onClick={() => void again(delivery)}>
            Send again
          </button>,
        ])}
      />
    </>
  );
}
