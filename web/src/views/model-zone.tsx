// Where an archive of a model is dropped: it is sent with the fraction that is there, then checked by the service.
import { useState } from "preact/hooks";

import { postFile } from "../api/client";
import type { UploadedModel } from "../api/types";
import { bytes, percent } from "../lib/format";
import { announce } from "../state/notices";
import { ErrorBox } from "../ui/parts";
import { DropZone } from "./calibration";

const ARCHIVES = ".tar,.tar.gz,.tgz,.tar.bz2,.zip";

export const describe = (model: UploadedModel): string => `${model.model_type}, ${bytes(model.size_bytes)}`;

export function ModelZone({ stored }: { stored: (model: UploadedModel) => void }) {
  const [refused, setRefused] = useState<Error>();
  const [sent, setSent] = useState<number>();
  const take = async (file: File | undefined): Promise<void> => {
    if (!file) return;
    setRefused(undefined);
    setSent(0);
    try {
      const model = await postFile<UploadedModel>("/v1/uploaded-models", file, setSent);
      stored(model);
      announce(`${model.name}: ${describe(model)}`);
    } catch (problem) {
      setRefused(problem as Error);
    }
    setSent(undefined);
  };
  const busy = sent === undefined ? undefined : sent < 1 ? `Uploading … ${percent(sent)}` : "Checking …";
  return (
    <>
      <DropZone busy={busy} words="Drop an archive of a model here, or choose a file" hint="A .tar, .tar.gz, .tar.bz2 or .zip with config.json, tokenizer and safetensors" accept={ARCHIVES} onFile={(file) => void take(file)}>
        {sent !== undefined && <progress aria-label="Uploaded" value={sent} max={1} />}
      </DropZone>
      {refused && <ErrorBox error={refused} />}
    </>
  );
}
