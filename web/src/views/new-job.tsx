// The form of a new job: made of the service's own description, checked by the service while it is filled in.
import { useEffect, useMemo, useState } from "preact/hooks";

import { api, body } from "../api/client";
import type { Job, ModelFolders } from "../api/types";
import { type Document, type Field, type Sections, type Values, fieldsOf, nested, sectionsOf, valuesOf } from "../lib/fields";
import { requestOf } from "../lib/jobs";
import { refusalsByPath } from "../lib/refusals";
import { go, hrefTo, place } from "../router";
import { announce, notify } from "../state/notices";
import { useResource } from "../state/resource";
import { FieldInput } from "../ui/field";
import { ErrorBox, Loading, PageHead } from "../ui/parts";
import { CalibrationSource } from "./calibration";
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
      <PageHead title="New job" lead={from ? "A copy: change what you like." : "What it costs and whether it fits is told while you choose."} />
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

function Form({ document, known, job }: { document: Document; known: ModelFolders; job: Job | undefined }) {
  const sections = useMemo(() => sectionsOf(document), [document]);
  const [values, setValues] = useState<Values>(() => startingValues(document, job));
  const [model, setModel] = useState<Model>(() => modelOfRequest(job?.spec["model"], known));
  const [sending, setSending] = useState(false);
  const [failed, setFailed] = useState<Error>();
  const chosen = fullModel(model);
  const request = useMemo(() => ({ ...nested(values), model: chosen }), [values, JSON.stringify(chosen)]);
  const key = useMemo(() => crypto.getRandomValues(new Uint32Array(4)).join("-"), [request]);
  const preflight = usePreflight(chosen ? request : undefined);
  const refusals = refusalsByPath(failed ?? preflight.refusal);
  const regroup = (size: number): void => setValues({ ...values, group_size: size });
  useEffect(() => setFailed(undefined), [request]);
  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    setSending(true);
    try {
      const created = (await body(api.POST("/v1/jobs", { body: request as never, params: { header: { "idempotency-key": key } } }))) as Job;
      notify("Submitted");
      go(hrefTo(`jobs/${created.id}`));
    } catch (error) {
      setFailed(error as Error);
      announce((error as Error).message);
      setSending(false);
    }
  };
  return (
    <form class="new-job-form" onSubmit={(event) => void submit(event)} noValidate>
      <div class="form-main">
        <fieldset class="card form-section">
          <legend>Model</legend>
          <ModelFields model={model} known={known} refused={refusals} onChange={setModel} />
        </fieldset>
        <Options sections={sections} values={values} refusals={refusals} onChange={setValues} />
      </div>
      <PreflightPanel {...preflight} refusal={failed ?? preflight.refusal} sending={sending} ready={chosen !== undefined} regroup={"group_size" in refusals ? regroup : undefined} />
    </form>
  );
}

interface OptionsProps {
  sections: Sections;
  values: Values;
  refusals: Record<string, string>;
  onChange: (values: Values) => void;
}

function Options({ sections, values, refusals, onChange }: OptionsProps) {
  const input = (field: Field) => <FieldInput key={field.path} field={field} values={values} refused={refusals[field.path]} onChange={onChange} />;
  const needsText = values["method"] !== "rtn";
  const source = sections.calibration.find(({ name }) => name === "set");
  return (
    <>
      <fieldset class="card form-section">
        <legend>Quantization</legend>
        <div class="fields">{sections.basics.map(input)}</div>
        <More name="All options of the method" fields={sections.method} values={values} refusals={refusals}>
          {input}
        </More>
      </fieldset>
      {needsText && (
        <fieldset class="card form-section">
          <legend>Calibration</legend>
          <CalibrationSource known={source?.examples ?? []} values={values} refused={refusals["calibration/set"]} onChange={onChange} />
          <div class="fields">{sections.calibration.filter(({ name }) => name !== "set").map(input)}</div>
        </fieldset>
      )}
      <fieldset class="card form-section">
        <legend>Result</legend>
        <div class="fields">{sections.result.map(input)}</div>
        <More name="Deadline, labels, upload to the hub and the rest" fields={sections.job} values={values} refusals={refusals}>
          {input}
        </More>
      </fieldset>
    </>
  );
}

interface MoreProps {
  name: string;
  fields: readonly Field[];
  values: Values;
  refusals: Record<string, string>;
  children: (field: Field) => preact.JSX.Element;
}

function More({ name, fields, values, refusals, children }: MoreProps) {
  const touched = fields.filter(({ path }) => path in values).length;
  const refused = fields.some(({ path }) => path in refusals);
  return (
    <details class="more-options" open={touched > 0 || refused}>
      <summary>
        {name}
        {touched > 0 && <span class="count">{touched} changed</span>}
      </summary>
      <div class="fields">{fields.map(children)}</div>
    </details>
  );
}
