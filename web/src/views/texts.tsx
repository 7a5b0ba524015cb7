// The calibration texts that are stored: what is in each, how long it is kept, adding and deleting one.
import { useState } from "preact/hooks";

import { api, body } from "../api/client";
import type { CalibrationSet } from "../api/types";
import { bytes, dayOf, endOfDay, moment, number } from "../lib/format";
import { announce, attempt, notify } from "../state/notices";
import { useResource } from "../state/resource";
import { confirm } from "../ui/dialog";
import { Card, CopyButton, Empty, ErrorBox, Facts, Loading, PageHead, Warnings } from "../ui/parts";
import { TextZone, describe, upload } from "./calibration";

export function TextsView() {
  const { data, error, reload } = useResource("calibration sets", (signal) => body(api.GET("/v1/calibration-sets", { signal })));
  const [refused, setRefused] = useState<Error>();
  const [busy, setBusy] = useState(false);
  const take = async (file: File | undefined): Promise<void> => {
    if (!file) return;
    setBusy(true);
    setRefused(undefined);
    try {
      const stored = await upload(file);
      notify(`${stored.name} is stored`);
      announce(`${stored.name}: ${describe(stored)}`);
      reload();
    } catch (problem) {
      setRefused(problem as Error);
    }
    setBusy(false);
  };
  return (
    <>
      <PageHead title="Calibration texts" lead="Text of your own field gives a better model for that field. A new job chooses among these." />
      <TextZone busy={busy} onFile={(file) => void take(file)} />
      {refused && <ErrorBox error={refused} />}
      {error && <ErrorBox error={error} retry={reload} />}
      {!data && !error && <Loading rows={3} />}
      {data?.data.length === 0 && (
        <Empty title="No text is stored.">
          <p class="quiet">Jobs are calibrated on the built-in text, unless they name another.</p>
        </Empty>
      )}
      <div class="cards">
        {data?.data.map((set) => (
          <TextCard set={set} changed={reload} key={set.id} />
        ))}
      </div>
    </>
  );
}

function TextCard({ set, changed }: { set: CalibrationSet; changed: () => void }) {
  const path = { calibration_set_id: set.id };
  const { data } = useResource(`text ${set.id}`, (signal) => body(api.GET("/v1/calibration-sets/{calibration_set_id}", { params: { path }, signal })));
  const keep = async (changes: { pinned?: boolean; expires_at?: string | null }, says: string): Promise<void> => {
    if (!(await attempt(() => body(api.PATCH("/v1/calibration-sets/{calibration_set_id}", { params: { path }, body: changes as never }))))) return;
    notify(says);
    changed();
  };
  const remove = async (): Promise<void> => {
    if (!(await confirm(`Delete ${set.name}?`, "Jobs that were calibrated on it stay, but cannot be retried.", "Delete for good"))) return;
    if (await attempt(() => body(api.DELETE("/v1/calibration-sets/{calibration_set_id}", { params: { path } })))) {
      notify("Deleted");
      changed();
    }
  };
  const tokens = data?.estimated_tokens;
  const kept = set.pinned ? "until it is deleted" : set.expires_at ? `until ${moment(set.expires_at)}` : "no day is set";
  return (
    <Card title={set.name} aside={<span class="quiet">{set.format}</span>}>
      <Facts
        rows={[
          ["Documents", set.documents.toLocaleString("en-US")],
          ["Size", bytes(set.size_bytes)],
          ["Tokens", tokens == null ? "…" : `roughly ${number(tokens)}`],
          ["Stored", moment(set.created_at)],
          ["Kept", kept],
          [
            "Id",
            <span class="id-copy">
              <code class="id">{set.id.slice(-8)}</code>
              <CopyButton text={set.id} label={`Copy the id of ${set.name}`} />
            </span>,
          ],
        ]}
      />
      <Warnings texts={data?.warnings ?? []} />
      <p class="card-foot actions">
        <button type="button" class="button small" aria-pressed={set.pinned} onClick={() => void keep({ pinned: !set.pinned }, set.pinned ? "No longer pinned" : "Pinned")}>
          {set.pinned ? "Unpin" : "Pin"}
        </button>
        <label class="keep-day">
          <span>Until</span>
          <input
            type="date"
            value={set.expires_at ? dayOf(set.expires_at) : ""}
            min={dayOf(new Date().toISOString())}
            onChange={({ currentTarget: { value } }) => void keep({ expires_at: value ? endOfDay(value) : null }, value ? "Kept until then" : "Kept by the service’s rule")}
          />
        </label>
        <button type="button" class="button small danger" onClick={() => void remove()}>
          Delete
        </button>
      </p>
    </Card>
  );
}
