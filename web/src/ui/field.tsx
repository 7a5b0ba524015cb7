// One field of the form, by its kind, with its words below it and what the service says against it.
import type { ComponentChildren, TargetedInputEvent } from "preact";
import { useId, useState } from "preact/hooks";

import { localOf, words } from "../lib/format";
import { type Field, type Values, nameWithoutUnit, readInput, unitOf, withValue, writeInput } from "../lib/fields";
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
    case "moment":
      return <Moment {...props} value={value} set={set} />;
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
      return field.units.length > 0 ? <Measured {...props} value={value} set={set} /> : <Typed {...props} value={value} set={set} />;
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

interface Typing {
  value: string;
  onInput: (event: TargetedInputEvent<HTMLInputElement | HTMLTextAreaElement>) => void;
  onBlur: () => void;
}

/** While one types, the text stays as it is typed (`0.`, or nothing yet), whatever value it stands for. */
function useTyping(value: unknown, fallback: unknown, read: (text: string) => unknown, write: (value: unknown) => string, set: (value: unknown) => void): Typing {
  const [typed, setTyped] = useState<string>();
  const stands = typed !== undefined && JSON.stringify(read(typed) ?? fallback) === JSON.stringify(value);
  return {
    value: stands ? typed : write(value),
    onInput(event) {
      const text = event.currentTarget.value;
      setTyped(text);
      set(read(text));
    },
    onBlur: () => setTyped(undefined),
  };
}

function placeholderOf(field: Field): string {
  if (field.examples.length > 0) return writeInput(field, field.examples[0]);
  if (field.kind === "pairs") return "key:value, key:value";
  return field.optional ? "not set" : "";
}

function Typed({ field, refused, value, set }: ValueProps) {
  const id = useId();
  const told = /\d to \d/.test(field.hint);
  const range = field.low !== undefined && field.high !== undefined && !told ? `${field.low} to ${field.high}` : "";
  const shared = {
    "aria-describedby": `${id}-hint`,
    "aria-invalid": refused !== undefined,
    placeholder: placeholderOf(field),
    spellcheck: false,
    autocomplete: "off" as const,
    ...useTyping(value, field.default, (text) => readInput(field, text), (one) => writeInput(field, one), set),
  };
  return (
    <label class={`field ${field.kind}`} data-path={field.path}>
      <span>{words(field.name)}</span>
      {field.kind === "json" ? (
        <textarea {...shared} rows={2} />
      ) : (
        <input {...shared} inputMode={field.kind === "number" ? (field.whole && (field.low ?? 0) >= 0 ? "numeric" : "text") : "text"} />
      )}
      <Below id={`${id}-hint`} field={field} refused={refused}>
        {field.kind === "number" && range && <span class="range">{range}</span>}
      </Below>
    </label>
  );
}

/** A number with the unit that it is written in; the service gets it in its own. */
function Measured({ field, refused, value, set }: ValueProps) {
  const id = useId();
  const [chosen, setChosen] = useState(() => unitOf(field, value) ?? field.units[0]!);
  const read = (text: string): unknown => {
    const amount = readInput(field, text);
    return typeof amount === "number" ? Math.round(amount * chosen.size) : amount;
  };
  const write = (one: unknown): string => writeInput(field, typeof one === "number" ? one / chosen.size : one);
  const typing = useTyping(value, field.default, read, write, set);
  const change = (name: string): void => {
    const unit = field.units.find((one) => one.name === name)!;
    if (typeof value === "number") set(Math.round((value / chosen.size) * unit.size));
    setChosen(unit);
  };
  const title = words(nameWithoutUnit(field));
  const sent = typeof value === "number" && chosen !== field.units[0] ? `${value.toLocaleString("en-US")} ${field.units[0]!.name}` : "";
  return (
    <div class="field" data-path={field.path} role="group" aria-labelledby={`${id}-title`}>
      <span id={`${id}-title`}>{title}</span>
      <div class="measured">
        <input aria-label={title} aria-describedby={`${id}-hint`} aria-invalid={refused !== undefined} inputMode="decimal" placeholder={field.optional ? "not set" : ""} spellcheck={false} autocomplete="off" {...typing} />
        <select aria-label={`${title}: unit`} value={chosen.name} onChange={(event) => change(event.currentTarget.value)}>
          {field.units.map(({ name }) => (
            <option key={name}>{name}</option>
          ))}
        </select>
      </div>
      <Below id={`${id}-hint`} field={field} refused={refused}>
        {sent && <span class="range">This is {sent}.</span>}
      </Below>
    </div>
  );
}

function Moment({ field, refused, value, set }: ValueProps) {
  const id = useId();
  const chosen = typeof value === "string" ? localOf(value) : "";
  return (
    <label class="field" data-path={field.path}>
      <span>{words(field.name)}</span>
      <input type="datetime-local" aria-describedby={`${id}-hint`} aria-invalid={refused !== undefined} value={chosen} onChange={({ currentTarget }) => set(currentTarget.value ? new Date(currentTarget.value).toISOString() : undefined)} />
      <Below id={`${id}-hint`} field={field} refused={refused} />
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
