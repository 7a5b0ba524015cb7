// API keys: who may do what, and how much of it.
import { useState } from "preact/hooks";

import { api, body } from "../api/client";
import type { ApiKey } from "../api/types";
import { bytes, moment, plural, words } from "../lib/format";
import { attempt, notify } from "../state/notices";
import { useResource } from "../state/resource";
import { Dialog, confirm } from "../ui/dialog";
import { Glyph } from "../ui/icons";
import { Card, DataTable, Empty, ErrorBox, Loading, PageHead } from "../ui/parts";
import { SchemaForm } from "../ui/schema-form";
import { SecretDialog } from "../ui/secret";
import { HubTokenCard } from "./hub-token";

export function KeysView() {
  const { data, error, reload } = useResource("keys", (signal) => body(api.GET("/v1/api-keys", { signal })));
  const [making, setMaking] = useState(false);
  const [secret, setSecret] = useState<string>();
  const make = async (request: Record<string, unknown>): Promise<void> => {
    const made = await body(api.POST("/v1/api-keys", { body: request as never }));
    setMaking(false);
    setSecret(made.bearer);
    reload();
  };
  return (
    <>
      <PageHead title="API keys" lead="A key may do what its scopes say, and take what its quotas leave. On this machine's loopback none is needed.">
        <button type="button" class="button primary" onClick={() => setMaking(true)}>
          <Glyph name="plus" />
          New key
        </button>
      </PageHead>
      {error && <ErrorBox error={error} retry={reload} />}
      {!data && !error && <Loading rows={3} />}
      {data?.data.length === 0 && <Empty title="There are no keys." />}
      {data && data.data.length > 0 && <KeyTable keys={data.data} changed={reload} />}
      <HubTokenCard />
      {making && (
        <Dialog title="New key" onClose={() => setMaking(false)}>
          <SchemaForm schema="NewKey" action="Make the key" onSubmit={make} />
        </Dialog>
      )}
      {secret !== undefined && <SecretDialog title="The new key" secret={secret} hint="Clients send it as a bearer token; bitmill jobs takes it from BITMILL_API_KEY." onClose={() => setSecret(undefined)} />}
    </>
  );
}

function limits({ quotas }: ApiKey): string {
  const said = [
    quotas.jobs_in_flight != null && `${quotas.jobs_in_flight} jobs`,
    quotas.stored_bytes != null && `${bytes(quotas.stored_bytes)} stored`,
    quotas.calibration_bytes != null && `${bytes(quotas.calibration_bytes)} of texts`,
    quotas.model_bytes != null && `${bytes(quotas.model_bytes)} of models`,
    quotas.requests_per_minute != null && `${quotas.requests_per_minute} requests a minute`,
  ];
  return said.filter(Boolean).join(", ") || "none";
}

function KeyTable({ keys, changed }: { keys: readonly ApiKey[]; changed: () => void }) {
  const [changing, setChanging] = useState<ApiKey>();
  const revoke = async (key: ApiKey): Promise<void> => {
    if (!(await confirm(`Revoke ${key.name}?`, "Clients that use it are refused at once, for good. What it owns stays.", "Revoke"))) return;
    if (await attempt(() => body(api.DELETE("/v1/api-keys/{key_id}", { params: { path: { key_id: key.id } } })))) {
      notify("Revoked");
      changed();
    }
  };
  const rows = keys.map((key) => [
    <b>{key.name}</b>,
    <span class={`key-state ${key.state}`}>{words(key.state)}</span>,
    key.scopes.join(", "),
    limits(key),
    moment(key.created_at),
    key.expires_at ? moment(key.expires_at) : "never",
    key.state === "revoked" ? (
      ""
    ) : (
      <span class="row-actions">
        <button type="button" class="button small" aria-label={`Change ${key.name}`} onClick={() => setChanging(key)}>
          Change
        </button>
        <button type="button" class="button small danger" aria-label={`Revoke ${key.name}`} onClick={() => void revoke(key)}>
          Revoke
        </button>
      </span>
    ),
  ]);
  const done = (): void => {
    setChanging(undefined);
    notify("Changed");
    changed();
  };
  return (
    <Card class="flush-table">
      <DataTable label="API keys" head={["Name", "State", "Scopes", "Limits", "Made", "Expires", "Actions"]} rows={rows} />
      {changing && <ChangeDialog apiKey={changing} done={done} close={() => setChanging(undefined)} />}
    </Card>
  );
}

function ChangeDialog({ apiKey, done, close }: { apiKey: ApiKey; done: () => void; close: () => void }) {
  const at = { params: { path: { key_id: apiKey.id } } };
  const { data } = useResource(`key ${apiKey.id}`, (signal) => body(api.GET("/v1/api-keys/{key_id}", { ...at, signal })));
  const change = async (changes: Record<string, unknown>): Promise<void> => {
    await body(api.PATCH("/v1/api-keys/{key_id}", { ...at, body: changes as never }));
    done();
  };
  return (
    <Dialog title={`Change ${apiKey.name}`} onClose={close}>
      {data?.usage && (
        <p class="quiet">
          It takes now: {plural(data.usage.jobs_in_flight, "job")} in flight, {bytes(data.usage.stored_bytes)} stored, {bytes(data.usage.calibration_bytes)} of texts,{" "}
          {bytes(data.usage.model_bytes)} of models.
        </p>
      )}
      <SchemaForm schema="KeyChanges" action="Change the key" from={apiKey} onSubmit={change} />
    </Dialog>
  );
}
