// The models that were uploaded to the service: choosing one, and uploading another as an archive.
import { useState } from "preact/hooks";

import { api, body, postFile } from "../api/client";
import type { UploadedModel } from "../api/types";
import { bytes, percent } from "../lib/format";
import { announce } from "../state/notices";
import { useResource } from "../state/resource";
import { ErrorBox } from "../ui/parts";
import { DropZone } from "./calibration";

const ARCHIVES = ".tar,.tar.gz,.tgz,.tar.bz2,.zip";

const describe = (model: UploadedModel): string => `${model.model_type}, ${bytes(model.size_bytes)}`;

export function UploadedModels({ chosen, choose }: { chosen: string; choose: (id: string) => void }) {
  const { data, error, reload } = useResource("uploaded models", (signal) => body(api.GET("/v1/uploaded-models", { signal })));
  const [refused, setRefused] = useState<Error>();
  const [sent, setSent] = useState<number>();
  const take = async (file: File | undefined): Promise<void> => {
    if (!file) return;
    setRefused(undefined);
    setSent(0);
    try {
      const stored = await postFile<UploadedModel>("/v1/uploaded-models", file, setSent);
      choose(stored.id);
      reload();
      announce(`${stored.name}: ${describe(stored)}`);
    } catch (problem) {
      setRefused(problem as Error);
    }
    setSent(undefined);
  };
  const busy = sent === undefined ? undefined : sent < 1 ? `Uploading … ${percent(sent)}` : "Checking …";
  return (
    <>
      {error && <ErrorBox error={error} retry={reload} />}
      <ul class="folders" aria-label="Uploaded models">
        {data?.data.map((model) => (
          <li key={model.id}>
            <button type="button" aria-pressed={model.id === chosen} onClick={() => choose(model.id)}>
              <b>{model.name}</b>
              <small>{describe(model)}</small>
            </button>
          </li>
        ))}
      </ul>
      <DropZone busy={busy} words="Drop an archive of a model here, or choose a file" hint="A .tar, .tar.gz, .tar.bz2 or .zip with config.json, tokenizer and safetensors" accept={ARCHIVES} onFile={(file) => void take(file)}>
        {sent !== undefined && <progress aria-label="Uploaded" value={sent} max={1} />}
      </DropZone>
      {refused && <ErrorBox error={refused} />}
    </>
  );
}
