// The calibration texts that are stored: what is in each, how long it is kept, adding and deleting one.
import { useState } from "preact/hooks";

import { api, body } from "../api/client";
import type { CalibrationSet } from "../api/types";
import { bytes, moment, number } from "../lib/format";
import { announce, attempt, notify } from "../state/notices";
import { useResource } from "../state/resource";
import { confirm } from "../ui/dialog";
import { Card, CopyButton, Empty, ErrorBox, Facts, Loading, PageHead, Warnings } from "../ui/parts";
import { TextZone, describe, upload } from "./calibration";
import { KeepControls, KeptFact } from "./keeping";

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
  const remove = async (): Promise<void> => {
    if (!(await confirm(`Delete ${set.name}?`, "Jobs that were calibrated on it stay, but cannot be retried.", "Delete for good"))) return;
    if (await attempt(() => body(api.DELETE("/v1/calibration-sets/{calibration_set_id}", { params: { path } })))) {
      notify("Deleted");
      changed();
    }
  };
  const tokens = data?.estimated_tokens;
  return (
    <Card title={set.name} aside={<span class="quiet">{set.format}</span>}>
      <Facts
        rows={[
          ["Documents", set.documents.toLocaleString("en-US")],
          ["Size", bytes(set.size_bytes)],
          ["Tokens", tokens == null ? "…" : `roughly ${number(tokens)}`],
          ["Stored", moment(set.created_at)],
          ["Kept", <KeptFact kept={set} />],
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
        <KeepControls
          kept={set}
          words="Until"
          name={set.name}
          change={(changes) => body(api.PATCH("/v1/calibration-sets/{calibration_set_id}", { params: { path }, body: changes as never }))}
          changed={changed}
        />
        <button type="button" class="button small danger" aria-description={set.name} onClick={() => void remove()}>
          Delete
        </button>
      </p>
    </Card>
  );
}
