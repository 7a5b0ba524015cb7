// The form of a batch: every combination of what varies on every model, one job each, checked while it is filled in.
import { useMemo, useState } from "preact/hooks";

import { api, body } from "../api/client";
import type { Batch, ModelFolders } from "../api/types";
import { type BatchQuestion, type ChosenModels, configsOf, modelsOf, severalOf, variedOf } from "../lib/batch";
import { type Document, type Field, type Sections, type Values, allFields, sectionsOf } from "../lib/fields";
import { hrefTo } from "../router";
import { useResource } from "../state/resource";
import { useSending } from "../state/sending";
import { FieldInput } from "../ui/field";
import { ErrorBox, Loading, PageHead } from "../ui/parts";
import { BatchPanel, useBatchPreflight } from "./batch-preflight";
import { OptionCards } from "./job-options";
import { loadDocument } from "./methods";
import { FolderList } from "./model-fields";
import { UploadedModels } from "./uploaded-models";

const VARIED = ["method", "bits", "group_size", "preset"];
/** One repository cannot take several artifacts. */
const NOT_HERE = ["publish_to"];

export function NewBatchView() {
  const { data, error, reload } = useResource("new batch", async (signal) => {
    const [document, known] = await Promise.all([loadDocument(), body(api.GET("/v1/models", { signal }))]);
    return { document, known };
  });
  return (
    <>
      <PageHead title="New batch" lead="Every combination below becomes a job; one table compares them.">
        <a class="button" href={hrefTo("new")}>
          One job
        </a>
      </PageHead>
      {error && <ErrorBox error={error} retry={reload} />}
      {data ? <Form {...data} /> : !error && <Loading rows={6} />}
    </>
  );
}

/** Returns the fields that have several values here, and what is left for all jobs. */
function partsOf(document: Document): { varied: Field[]; shared: Sections } {
  const sections = sectionsOf(document);
  const named = (field: Field): boolean => VARIED.includes(field.name);
  const varied = VARIED.flatMap((name) => sections.basics.filter((field) => field.name === name)).map(severalOf);
  return { varied, shared: { ...sections, basics: sections.basics.filter((field) => !named(field)), job: sections.job.filter(({ name }) => !NOT_HERE.includes(name)) } };
}

const send = async (request: BatchQuestion, key: string): Promise<string> => {
  const batch = (await body(api.POST("/v1/batches", { body: request as never, params: { header: { "idempotency-key": key } } }))) as Batch;
  return hrefTo("compare", { batch: batch.id });
};

function Form({ document, known }: { document: Document; known: ModelFolders }) {
  const { varied, shared } = useMemo(() => partsOf(document), [document]);
  const [name, setName] = useState("");
  const [models, setModels] = useState<ChosenModels>({ folders: [], uploads: [], hub: "" });
  const [several, setSeveral] = useState<Values>({});
  const [values, setValues] = useState<Values>({ evaluate: true });
  const chosen = variedOf(varied, several);
  const request = useMemo<BatchQuestion>(
    () => ({ name, models: modelsOf(known.data, models), configs: configsOf([...varied, ...allFields(shared)], values, chosen) }),
    [name, models, several, values],
  );
  const { sending, failed, submit } = useSending(request, send);
  const ready = request.models.length > 0 && request.configs.length > 0;
  const preflight = useBatchPreflight(ready ? request : undefined);
  return (
    <form class="new-job-form" onSubmit={(event) => void submit(event)} noValidate>
      <div class="form-main">
        <fieldset class="card form-section">
          <legend>Models</legend>
          <ModelChoice known={known} models={models} onChange={setModels} />
        </fieldset>
        <fieldset class="card form-section">
          <legend>What varies</legend>
          <div class="fields">
            {varied.map((field) => (
              <FieldInput key={field.path} field={field} values={several} refused={undefined} onChange={setSeveral} />
            ))}
          </div>
        </fieldset>
        <OptionCards title="The same for all" sections={shared} methods={chosen["method"] ?? []} values={values} refusals={{}} onChange={setValues} />
        <fieldset class="card form-section">
          <legend>Name</legend>
          <label class="field">
            <span>Name of the batch</span>
            <input name="batch-name" maxLength={200} placeholder="bits against group size" autocomplete="off" value={name} onInput={(event) => setName(event.currentTarget.value)} />
            <small>As it is listed under Compare.</small>
          </label>
        </fieldset>
      </div>
      <BatchPanel {...preflight} refusal={failed ?? preflight.refusal} request={request} sending={sending} ready={ready} />
    </form>
  );
}

interface ModelChoiceProps {
  known: ModelFolders;
  models: ChosenModels;
  onChange: (change: (models: ChosenModels) => ChosenModels) => void;
}

const toggled = (all: readonly string[], one: string): readonly string[] => (all.includes(one) ? all.filter((other) => other !== one) : [...all, one]);

function ModelChoice({ known, models: { folders, uploads, hub }, onChange }: ModelChoiceProps) {
  const set = (changes: (models: ChosenModels) => Partial<ChosenModels>): void => onChange((models) => ({ ...models, ...changes(models) }));
  return (
    <>
      <FolderList known={known} isChosen={({ root, path }) => folders.includes(`${root}/${path}`)} choose={({ root, path }) => set((models) => ({ folders: toggled(models.folders, `${root}/${path}`) }))} />
      <label class="field after-folders">
        <span>Hub ids</span>
        <input
          name="hub"
          placeholder="HuggingFaceTB/SmolLM2-135M-Instruct"
          autocomplete="off"
          spellcheck={false}
          value={hub}
          onInput={({ currentTarget: { value } }) => set(() => ({ hub: value }))}
        />
        <small>Several with commas between them; owner/name, or owner/name@revision. Fetched by the worker.</small>
      </label>
      <UploadedModels isChosen={(id) => uploads.includes(id)} choose={(id) => set((models) => ({ uploads: toggled(models.uploads, id) }))} />
    </>
  );
}
