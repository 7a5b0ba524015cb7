// One field of the form, by its kind, with its words below it and what the service says against it.
import type { ComponentChildren } from "preact";
import { useId } from "preact/hooks";

import { words } from "../lib/format";
import { type Field, type Values, readInput, withValue, writeInput } from "../lib/fields";
import { Glyph } from "./icons";

export interface FieldProps {
  field: Field;
  values: Values;
  refused: string | undefined;
  onChange: (values: Values) => void;
}

/** Shows `code` in plain words of the document. */
export function Prose({ text }: { text: string }) {
  return (
    <>
      {text.split("`").map((part, at) => (at % 2 ? <code key={at}>{part}</code> : part))}
    </>
  );
}

export function FieldInput(props: FieldProps) {
  const { field, values, onChange } = props;
  const value = values[field.path] ?? field.default;
  const set = (next: unknown): void => onChange(withValue(values, field, next));
  switch (field.kind) {
    case "flag":
      return field.optional ? <Choice {...props} options={[true, false]} value={values[field.path]} set={set} /> : <Flag {...props} value={Boolean(value)} set={set} />;
    case "choice":
      return <Choice {...props} options={field.options} value={value} set={set} />;
    case "choices":
      return <Choices {...props} value={(value ?? []) as unknown[]} set={set} />;
    case "group":
      return (
        <fieldset class="group">
          <legend>{words(field.name)}</legend>
          <div class="fields">
            {field.fields.map((one) => (
              <FieldInput {...props} field={one} key={one.path} />
            ))}
          </div>
        </fieldset>
      );
    default:
      return <Typed {...props} value={value} set={set} />;
  }
}

interface ValueProps extends FieldProps {
  value: unknown;
  set: (value: unknown) => void;
}

/** The words under a field and the refusal that belongs to it. */
function Below({ id, field, refused, children }: { id: string; field: Field; refused: string | undefined; children?: ComponentChildren }) {
  return (
    <small id={id}>
      {refused && (
        <span class="refused">
          <Glyph name="warning" />
          {refused}
        </span>
      )}
      <Prose text={field.hint} /> {children}
    </small>
  );
}

function Typed({ field, refused, value, set }: ValueProps) {
  const id = useId();
  const told = /\d to \d/.test(field.hint);
  const range = field.low !== undefined && field.high !== undefined && !told ? `${field.low} to ${field.high}` : "";
  const shared = {
    "aria-describedby": `${id}-hint`,
    "aria-invalid": refused !== undefined,
    placeholder: field.example !== undefined ? writeInput(field, field.example) : field.optional ? "not set" : "",
    spellcheck: false,
    autocomplete: "off" as const,
    value: writeInput(field, value),
  };
  return (
    <label class={`field ${field.kind}`} data-path={field.path}>
      <span>{words(field.name)}</span>
      {field.kind === "json" ? (
        <textarea {...shared} rows={2} onInput={(event) => set(readInput(field, event.currentTarget.value))} />
      ) : (
        <input {...shared} inputMode={field.kind === "number" ? (field.whole && (field.low ?? 0) >= 0 ? "numeric" : "text") : "text"} onInput={(event) => set(readInput(field, event.currentTarget.value))} />
      )}
      <Below id={`${id}-hint`} field={field} refused={refused}>
        {field.kind === "number" && range && <span class="range">{range}</span>}
      </Below>
    </label>
  );
}

function Flag({ field, refused, value, set }: ValueProps) {
  const id = useId();
  return (
    <label class="check" data-path={field.path}>
      <input type="checkbox" checked={Boolean(value)} aria-describedby={`${id}-hint`} onChange={(event) => set(event.currentTarget.checked)} />
      <span>
        {words(field.name)}
        <Below id={`${id}-hint`} field={field} refused={refused} />
      </span>
    </label>
  );
}

const FEW = 4;

function Choice({ field, refused, value, set, options }: ValueProps & { options: readonly unknown[] }) {
  const id = useId();
  const few = options.length <= FEW && !field.optional && options.every((option) => String(option).length <= 12);
  if (few)
    return (
      <fieldset class="field" data-path={field.path} aria-describedby={`${id}-hint`}>
        <legend>{words(field.name)}</legend>
        <div class="segments">
          {options.map((option) => (
            <label key={String(option)}>
              <input type="radio" name={id} checked={option === value} onChange={() => set(option)} />
              <span>{String(option)}</span>
            </label>
          ))}
        </div>
        <Below id={`${id}-hint`} field={field} refused={refused} />
      </fieldset>
    );
  return (
    <label class="field" data-path={field.path}>
      <span>{words(field.name)}</span>
      <select aria-describedby={`${id}-hint`} value={value === undefined ? "" : String(value)} onChange={(event) => set(options.find((option) => String(option) === event.currentTarget.value))}>
        {field.optional && <option value="">not set</option>}
        {options.map((option) => (
          <option value={String(option)} key={String(option)}>
            {typeof option === "boolean" ? (option ? "yes" : "no") : String(option)}
          </option>
        ))}
      </select>
      <Below id={`${id}-hint`} field={field} refused={refused} />
    </label>
  );
}

function Choices({ field, refused, value, set }: ValueProps & { value: unknown[] }) {
  const id = useId();
  const flip = (option: unknown): void => {
    const next = value.includes(option) ? value.filter((one) => one !== option) : [...value, option];
    set(next.length === 0 && field.default === undefined ? undefined : next);
  };
  return (
    <fieldset class="field" data-path={field.path} aria-describedby={`${id}-hint`}>
      <legend>{words(field.name)}</legend>
      <div class="chips">
        {field.options.map((option) => (
          <label class="chip" key={String(option)}>
            <input type="checkbox" checked={value.includes(option)} onChange={() => flip(option)} />
            {String(option)}
          </label>
        ))}
      </div>
      <Below id={`${id}-hint`} field={field} refused={refused} />
    </fieldset>
  );
}
