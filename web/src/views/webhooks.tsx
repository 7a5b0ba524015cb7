// Webhooks: who is told of events, and what became of each message.
import { useState } from "preact/hooks";

import { api, body } from "../api/client";
import type { Webhook } from "../api/types";
import { attempt, notify } from "../state/notices";
import { useResource } from "../state/resource";
import { Dialog, confirm } from "../ui/dialog";
import { Glyph } from "../ui/icons";
import { Card, Empty, ErrorBox, Facts, Loading, PageHead } from "../ui/parts";
import { SchemaForm } from "../ui/schema-form";
import { SecretDialog } from "../ui/secret";
import { Deliveries } from "./deliveries";

const HINT = "Receivers check each message's signature with it, as Standard Webhooks says.";

export function WebhooksView() {
  const { data, error, reload } = useResource("webhooks", (signal) => body(api.GET("/v1/webhooks", { signal })));
  const [making, setMaking] = useState(false);
  const [secret, setSecret] = useState<string>();
  const make = async (request: Record<string, unknown>): Promise<void> => {
    const made = await body(api.POST("/v1/webhooks", { body: request as never }));
    setMaking(false);
    setSecret(made.secret);
    reload();
  };
  return (
    <>
      <PageHead title="Webhooks" lead="A receiver is told when a job ends, with a signed message that is repeated until it is taken.">
        <button type="button" class="button primary" onClick={() => setMaking(true)}>
          <Glyph name="plus" />
          New webhook
        </button>
      </PageHead>
      {error && <ErrorBox error={error} retry={reload} />}
      {!data && !error && <Loading rows={3} />}
      {data?.data.length === 0 && <Empty title="Nobody is told." />}
      {data?.data.map((webhook) => (
        <WebhookCard webhook={webhook} changed={reload} tell={setSecret} key={webhook.id} />
      ))}
      {making && (
        <Dialog title="New webhook" onClose={() => setMaking(false)}>
          <SchemaForm schema="NewWebhook" action="Make the webhook" onSubmit={make} />
        </Dialog>
      )}
      {secret !== undefined && <SecretDialog title="The signing secret" secret={secret} hint={HINT} onClose={() => setSecret(undefined)} />}
    </>
  );
}

function WebhookCard({ webhook, changed, tell }: { webhook: Webhook; changed: () => void; tell: (secret: string) => void }) {
  const [sent, setSent] = useState(0);
  const [changing, setChanging] = useState(false);
  const at = { params: { path: { webhook_id: webhook.id } } };
  const act = async (action: () => Promise<unknown>, says: string): Promise<void> => {
    if (!(await attempt(action))) return;
    notify(says);
    changed();
    setSent(sent + 1);
  };
  const rotate = async (): Promise<void> => {
    if (!(await confirm("Give it a new secret?", "Messages are signed with the new one at once: the receiver must know it.", "New secret"))) return;
    await attempt(async () => tell((await body(api.POST("/v1/webhooks/{webhook_id}:rotate-secret", at))).secret));
  };
  const remove = async (): Promise<void> => {
    if (await confirm("Delete this webhook?", "What was not sent is not sent any more.", "Delete")) await act(() => body(api.DELETE("/v1/webhooks/{webhook_id}", at)), "Deleted");
  };
  const change = async (changes: Record<string, unknown>): Promise<void> => {
    await body(api.PATCH("/v1/webhooks/{webhook_id}", { ...at, body: changes as never }));
    setChanging(false);
    notify("Changed");
    changed();
  };
  const turn = (): Promise<unknown> => body(api.PATCH("/v1/webhooks/{webhook_id}", { ...at, body: { enabled: !webhook.enabled } as never }));
  const state = webhook.enabled ? "enabled" : webhook.disabled_reason || "stopped";
  return (
    <Card title={webhook.name || new URL(webhook.url).host} aside={<span class={`key-state ${webhook.enabled ? "active" : "expired"}`}>{state}</span>}>
      <Facts
        rows={[
          ["Address", webhook.url],
          ["Told of", webhook.events.join(", ")],
          ["Whose jobs", webhook.all_owners ? "everybody's" : "this key's"],
        ]}
      />
      <p class="card-foot actions">
        <button type="button" class="button small" onClick={() => void act(() => body(api.POST("/v1/webhooks/{webhook_id}:test", at)), "A test message is on its way")}>
          Send a test
        </button>
        <button type="button" class="button small" onClick={() => void act(turn, webhook.enabled ? "Stopped" : "Started")}>
          {webhook.enabled ? "Stop" : "Start"}
        </button>
        <button type="button" class="button small" onClick={() => setChanging(true)}>
          Change
        </button>
        <button type="button" class="button small" onClick={() => void rotate()}>
          New secret
        </button>
        <button type="button" class="button small danger" onClick={() => void remove()}>
          Delete
        </button>
      </p>
      <Deliveries webhook={webhook.id} key={sent} />
      {changing && (
        <Dialog title="Change the webhook" onClose={() => setChanging(false)}>
          <SchemaForm schema="WebhookChanges" action="Change the webhook" from={webhook} onSubmit={change} />
        </Dialog>
      )}
    </Card>
  );
}
