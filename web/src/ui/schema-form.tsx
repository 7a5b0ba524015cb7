// A form for one of the document's request bodies: its fields, what is said against them, one button.
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";

import { type Document, type Values, completed, fieldsOf, nested, valuesOf } from "../lib/fields";
import { refusalsByPath } from "../lib/refusals";
import { useResource } from "../state/resource";
import { loadDocument } from "../views/methods";
import { FieldInput } from "./field";
import { ErrorBox, Loading } from "./parts";

interface Props {
  /** Name of the body in the document's schemas. */
  schema: string;
  action: string;
  /** What is to be changed: the form starts with it and sends all of it. Without it, what differs from the defaults is sent. */
  from?: Record<string, unknown>;
  onSubmit: (body: Record<string, unknown>) => Promise<void>;
  children?: ComponentChildren;
}

export function SchemaForm(props: Props) {
  const { data, error } = useResource("openapi", loadDocument);
  if (error) return <ErrorBox error={error} />;
  return data ? <Loaded {...props} document={data} /> : <Loading rows={2} />;
}

function Loaded({ document, schema, action, from, onSubmit, children }: Props & { document: Document }) {
  const fields = fieldsOf(document, document.components.schemas[schema] ?? {});
  const [values, setValues] = useState<Values>(() => (from ? valuesOf(fields, from) : {}));
  const [refused, setRefused] = useState<Error>();
  const [busy, setBusy] = useState(false);
  const byPath = refusalsByPath(refused);
  const submit = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    setBusy(true);
    try {
      await onSubmit(nested(from ? completed(fields, values) : values));
    } catch (error) {
      setRefused(error as Error);
      setBusy(false);
    }
  };
  return (
    <form onSubmit={(event) => void submit(event)} noValidate class="schema-form">
      {refused && <ErrorBox error={refused} />}
      {fields.map((field) => (
        <FieldInput key={field.path} field={field} values={values} refused={byPath[field.path]} onChange={setValues} />
      ))}
      {children}
      <footer>
        <button class="button primary" disabled={busy}>
          {action}
        </button>
      </footer>
    </form>
  );
}
