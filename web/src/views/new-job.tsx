// The form of a new job: made of the service's own description, checked by the service while it is filled in.
import { useMemo, useState } from "preact/hooks";

import { api, body } from "../api/client";
import type { Job, ModelFolders } from "../api/types";
import { type Document, type Values, allFields, fieldsOf, nested, sectionsOf, valuesFor, valuesOf } from "../lib/fields";
import { requestOf } from "../lib/jobs";
import { refusalsByPath } from "../lib/refusals";
import { hrefTo, place } from "../router";
import { useResource } from "../state/resource";
import { useSending } from "../state/sending";
import { ErrorBox, Loading, PageHead } from "../ui/parts";
import { OptionCards } from "./job-options";
import { loadDocument } from "./methods";
import { type Model, ModelFields, fullModel, modelOfRequest } from "./model-fields";
import { PreflightPanel, usePreflight } from "./preflight";

export function NewJobView() {
  const from = place.value.query.get("from");
  const { data, error, reload } = useResource(`new ${from ?? ""}`, async (signal) => {
    const path = { job_id: from ?? "" };
    const [document, known, job] = await Promise.all([
      loadDocument(),
      body(api.GET("/v1/models", { signal })),
      from ? body(api.GET("/v1/jobs/{job_id}", { params: { path }, signal })) : undefined,
    ]);
    return { document, known, job };
  });
  return (
    <>
      <PageHead title="New job" lead={from ? "A copy: change what you like." : "What it costs and whether it fits is told while you choose."}>
        <a class="button" href={hrefTo("batch")}>
          Several at once
        </a>
      </PageHead>
      {error && <ErrorBox error={error} retry={reload} />}
      {data ? <Form {...data} /> : !error && <Loading rows={6} />}
    </>
  );
}

function startingValues(document: Document, job: Job | undefined): Values {
  if (!job) return {};
  const fields = fieldsOf(document, document.components.schemas["JobRequest"] ?? {}).filter(({ name }) => name !== "model");
  return valuesOf(fields, requestOf(job));
}

/** Returns the uploaded model that a link names. */
function modelOfAddress(): object | undefined {
  const id = place.value.query.get("model");
  return id ? { source: "upload", id } : undefined;
}

const send = async (request: object, key: string): Promise<string> => {
  const created = (await body(api.POST("/v1/jobs", { body: request as never, params: { header: { "idempotency-key": key } } }))) as Job;
  return hrefTo(`jobs/${created.id}`);
};

function Form({ document, known, job }: { document: Document; known: ModelFolders; job: Job | undefined }) {
  const sections = useMemo(() => sectionsOf(document), [document]);
  const [values, setValues] = useState<Values>(() => startingValues(document, job));
  const [model, setModel] = useState<Model>(() => modelOfRequest(job?.spec["model"] ?? modelOfAddress(), known));
  const chosen = fullModel(model);
  const method = values["method"] ?? sections.basics.find(({ name }) => name === "method")?.default;
  const request = useMemo(() => ({ ...nested(valuesFor(method, allFields(sections), values)), model: chosen }), [values, JSON.stringify(chosen)]);
  const { sending, failed, submit } = useSending(request, send);
  const preflight = usePreflight(chosen ? request : undefined);
  const refusals = refusalsByPath(failed ?? preflight.refusal);
  const regroup = (size: number): void => setValues({ ...values, group_size: size });
  return (
    <form class="new-job-form" onSubmit={(event) => void submit(event)} noValidate>
      <div class="form-main">
        <fieldset class="card form-section">
          <legend>Model</legend>
          <ModelFields model={model} known={known} refused={refusals} onChange={setModel} />
        </fieldset>
        <OptionCards title="Quantization" sections={sections} methods={[method]} values={values} refusals={refusals} onChange={setValues} />
      </div>
      <PreflightPanel {...preflight} refusal={failed ?? preflight.refusal} sending={sending} ready={chosen !== undefined} regroup={"group_size" in refusals ? regroup : undefined} />
    </form>
  );
}
