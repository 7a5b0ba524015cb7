// Uploading a job's files to a repository of the model hub, and what became of each upload.
import { useEffect, useState } from "preact/hooks";

import { api, body } from "../api/client";
import type { Job, Publication } from "../api/types";
import { ago, words } from "../lib/format";
import { hrefTo } from "../router";
import { now } from "../state/live";
import { notify } from "../state/notices";
import { useResource } from "../state/resource";
import { Dialog } from "../ui/dialog";
import { Glyph } from "../ui/icons";
import { Card, CopyButton, ErrorBox } from "../ui/parts";
import { SchemaForm } from "../ui/schema-form";
import { TokenDialog } from "./hub-token";

const PENDING_MS = 1000;

export function PublishCard({ job }: { job: Job }) {
  const at = { params: { path: { job_id: job.id } } };
  const { data, error, reload } = useResource(`publications ${job.id}`, async (signal) => {
    const [uploads, token] = await Promise.all([body(api.GET("/v1/jobs/{job_id}/publications", { ...at, signal })), body(api.GET("/v1/hub-token", { signal }))]);
    return { uploads: uploads.data, hasToken: token.stored };
  });
  const [asking, setAsking] = useState<"repository" | "token">();
  const waits = data?.uploads.some(({ state }) => state === "pending") ?? false;
  useEffect(() => {
    // No event tells of an upload.
    if (!waits) return undefined;
    const timer = setInterval(reload, PENDING_MS);
    return () => clearInterval(timer);
  }, [waits, reload]);
  const close = (): void => setAsking(undefined);
  const publish = async (request: Record<string, unknown>): Promise<void> => {
    await body(api.POST("/v1/jobs/{job_id}:publish", { ...at, body: request as never }));
    close();
    notify("The upload waits for a worker");
    reload();
  };
  const stored = (): void => {
    setAsking("repository");
    reload();
  };
  if (!data) return error ? <ErrorBox error={error} retry={reload} /> : null;
  return (
    <Card
      title="On the model hub"
      aside={
        <button type="button" class="button" onClick={() => setAsking(data.hasToken ? "repository" : "token")}>
          <Glyph name="upload" />
          Publish to the hub
        </button>
      }
    >
      {data.uploads.length === 0 && <p class="quiet">The files are not on the hub. A worker uploads them to a repository of yours, in one commit.</p>}
      <ul class="uploads">
        {data.uploads.map((upload) => (
          <Upload upload={upload} key={upload.id} />
        ))}
      </ul>
      {!data.hasToken && (
        <p class="quiet">
          It takes a hub token that may write, which is kept with the <a href={hrefTo("keys")}>API keys</a>; none is stored yet.
        </p>
      )}
      {asking === "token" && <TokenDialog stored={stored} close={close} />}
      {asking === "repository" && (
        <Dialog title="Publish to the hub" onClose={close}>
          <SchemaForm schema="PublishTo" action="Publish" onSubmit={publish} />
        </Dialog>
      )}
    </Card>
  );
}

function Upload({ upload }: { upload: Publication }) {
  return (
    <li>
      <span>
        <b>{upload.repo}</b> <span class={`upload-state ${upload.state}`}>{words(upload.state)}</span>
      </span>
      <span class="quiet">
        made {upload.private ? "private" : "public"} unless it was there, asked for {ago(upload.created_at, now.value)}
        {upload.attempts > 1 && `, attempt ${upload.attempts}`}
      </span>
      {upload.commit && (
        <span class="id-copy">
          commit <code class="id">{upload.commit.slice(0, 12)}</code>
          <CopyButton text={upload.commit} label="Copy the commit" />
        </span>
      )}
      {upload.error && <span class="row-error">{upload.error}</span>}
    </li>
  );
}
