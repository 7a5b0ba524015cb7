// The token with which this key's jobs fetch gated models and upload results: stored or forgotten here, never shown.
import { useState } from "preact/hooks";

import { api, body } from "../api/client";
import { moment } from "../lib/format";
import { attempt, notify } from "../state/notices";
import { useResource } from "../state/resource";
import { Dialog, confirm } from "../ui/dialog";
import { Card, ErrorBox, Loading } from "../ui/parts";

export function HubTokenCard() {
  const { data, error, reload } = useResource("hub token", (signal) => body(api.GET("/v1/hub-token", { signal })));
  const [asking, setAsking] = useState(false);
  const forget = async (): Promise<void> => {
    if (!(await confirm("Forget the hub token?", "Gated and private models can no longer be fetched, and nothing can be uploaded.", "Forget it"))) return;
    if (await attempt(() => body(api.DELETE("/v1/hub-token")))) {
      notify("Forgotten");
      reload();
    }
  };
  const stored = (): void => {
    setAsking(false);
    notify("Stored");
    reload();
  };
  return (
    <Card title="Token of the model hub">
      {error && <ErrorBox error={error} retry={reload} />}
      {!data && !error && <Loading rows={1} />}
      {data && (
        <>
          <p>{data.stored && data.created_at ? `Stored on ${moment(data.created_at)}. It is never shown again.` : "None is stored: open models can be fetched, gated and private ones cannot, and nothing can be uploaded."}</p>
          <p class="card-foot actions">
            <button type="button" class="button small" onClick={() => setAsking(true)}>
              {data.stored ? "Replace it" : "Store a token"}
            </button>
            {data.stored && (
              <button type="button" class="button small danger" onClick={() => void forget()}>
                Forget it
              </button>
            )}
          </p>
        </>
      )}
      {asking && <TokenDialog stored={stored} close={() => setAsking(false)} />}
    </Card>
  );
}

export function TokenDialog({ stored, close }: { stored: () => void; close: () => void }) {
  const [refused, setRefused] = useState<Error>();
  const submit = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    const token = String(new FormData(event.currentTarget as HTMLFormElement).get("token")).trim();
    try {
      await body(api.PUT("/v1/hub-token", { body: { token } }));
      stored();
    } catch (error) {
      setRefused(error as Error);
    }
  };
  return (
    <Dialog title="Token of the model hub" onClose={close}>
      <form class="schema-form" onSubmit={(event) => void submit(event)}>
        {refused && <ErrorBox error={refused} />}
        <label class="field">
          <span>Token</span>
          <input type="password" name="token" placeholder="hf_…" required maxLength={512} autocomplete="off" spellcheck={false} />
          <small>Of the hub, with the right to read, and to write where results are to be uploaded. It is kept encrypted and given to the process that downloads or uploads, and to no other.</small>
        </label>
        <footer>
          <button class="button primary">Store it</button>
        </footer>
      </form>
    </Dialog>
  );
}
