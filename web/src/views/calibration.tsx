// Which text a job is calibrated on: built-in, stored, dropped here, a data set of the hub, or the model's own words.
import type { ComponentChildren } from "preact";
import { useRef, useState } from "preact/hooks";

import { api, body, fetchPath } from "../api/client";
import type { CalibrationSet } from "../api/types";
import type { Values } from "../lib/fields";
import { bytes, number, plural } from "../lib/format";
import { announce } from "../state/notices";
import { useResource } from "../state/resource";
import { Glyph } from "../ui/icons";
import { ErrorBox, Warnings } from "../ui/parts";

const SET = "calibration/set";
/** English in a byte-pair vocabulary; told as a rough number, because the model's tokenizer is with the worker. */
const BYTES_PER_TOKEN = 4;

interface Props {
  /** Sources that the service names as examples: built-in, of the hub, the model itself. */
  known: readonly unknown[];
  values: Values;
  refused: string | undefined;
  onChange: (values: Values) => void;
}

export async function upload(file: File): Promise<CalibrationSet> {
  const form = new FormData();
  form.append("file", file, file.name);
  return (await fetchPath("/v1/calibration-sets", { method: "POST", body: form })).json() as Promise<CalibrationSet>;
}

export const describe = (set: CalibrationSet): string =>
  `${plural(set.documents, "document")}, ${bytes(set.size_bytes)}, roughly ${number(set.size_bytes / BYTES_PER_TOKEN)} tokens`;

const BUILTIN = "builtin";
const HUB = "hub:";

const NAMES: Readonly<Record<string, string>> = { [BUILTIN]: "Built-in: English and code", self: "Written by the model itself" };
const HINTS: Readonly<Record<string, string>> = {
  [BUILTIN]: "Text of your own field gives a better model for that field.",
  self: "The float model writes its own text first, which takes time and the memory of the whole model.",
};

export function CalibrationSource({ known, values, refused, onChange }: Props) {
  const { data, reload } = useResource("calibration sets", (signal) => body(api.GET("/v1/calibration-sets", { signal })));
  const [fresh, setFresh] = useState<CalibrationSet>();
  const [error, setError] = useState<Error>();
  const [busy, setBusy] = useState(false);
  const chosen = (values[SET] as string | undefined) ?? BUILTIN;
  const sets = data?.data ?? [];
  const named = known.map(String);
  const ofHub = chosen.startsWith(HUB);
  const otherOfHub = ofHub && !named.includes(chosen);
  const choose = (id: string): void => {
    const { [SET]: _old, ...rest } = values;
    onChange(id === BUILTIN ? rest : { ...rest, [SET]: id });
  };
  const take = async (file: File | undefined): Promise<void> => {
    if (!file) return;
    setBusy(true);
    setError(undefined);
    try {
      const stored = await upload(file);
      setFresh(stored);
      choose(stored.id);
      reload();
      announce(`${stored.name}: ${describe(stored)}`);
    } catch (problem) {
      setError(problem as Error);
    }
    setBusy(false);
  };
  const shown = [fresh, ...sets].find((set) => set?.id === chosen);
  return (
    <div class="calibration">
      <label class="field" data-path={SET}>
        <span>Text</span>
        <select value={otherOfHub ? HUB : chosen} onChange={(event) => choose(event.currentTarget.value)}>
          <option value={BUILTIN}>{NAMES[BUILTIN]}</option>
          {!named.includes(chosen) && !ofHub && !sets.some(({ id }) => id === chosen) && <option value={chosen}>{fresh?.id === chosen ? fresh.name : chosen}</option>}
          {sets.map((set) => (
            <option value={set.id} key={set.id}>
              {set.name}
            </option>
          ))}
          {named
            .filter((name) => name !== BUILTIN)
            .map((name) => (
              <option value={name} key={name}>
                {NAMES[name] ?? `Hub: ${name.replace(HUB, "")}`}
              </option>
            ))}
          <option value={HUB}>Hub: another data set …</option>
        </select>
        <small>{shown ? describe(shown) : (HINTS[chosen] ?? (ofHub ? "Fetched by the worker." : ""))}</small>
      </label>
      {otherOfHub && (
        <label class="field">
          <span>Data set</span>
          <input placeholder="owner/dataset" spellcheck={false} autocomplete="off" aria-invalid={refused !== undefined} value={chosen.slice(HUB.length)} onInput={(event) => choose(`${HUB}${event.currentTarget.value.trim()}`)} />
          <small>
            <code>owner/dataset</code>, with <code>@revision</code>, <code>:file-pattern</code> and <code>#column</code> where they are needed.
          </small>
        </label>
      )}
      <TextZone busy={busy} onFile={(file) => void take(file)} />
      {refused && <p class="refused">{refused}</p>}
      {error && <ErrorBox error={error} />}
      {fresh && fresh.id === chosen && <Warnings texts={fresh.warnings ?? []} />}
    </div>
  );
}

export function TextZone({ busy, onFile }: { busy: boolean; onFile: (file: File | undefined) => void }) {
  return (
    <DropZone
      busy={busy ? "Uploading …" : undefined}
      words="Drop a text here, or choose a file"
      hint="Plain text, or JSON Lines with a field “text”"
      accept=".txt,.jsonl,.json,.md,text/plain"
      onFile={onFile}
    />
  );
}

interface DropZoneProps {
  /** What is being done; undefined: a file may come. */
  busy: string | undefined;
  words: string;
  hint: string;
  accept: string;
  onFile: (file: File | undefined) => void;
  children?: ComponentChildren;
}

export function DropZone({ busy, words, hint, accept, onFile, children }: DropZoneProps) {
  const [over, setOver] = useState(false);
  const input = useRef<HTMLInputElement>(null);
  return (
    <label
      class={`drop ${over ? "over" : ""}`}
      onDragOver={(event) => {
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={() => setOver(false)}
      onDrop={(event) => {
        event.preventDefault();
        setOver(false);
        if (!busy) onFile(event.dataTransfer?.files[0]);
      }}
    >
      <Glyph name="upload" />
      <span>{busy ?? words}</span>
      <small>{hint}</small>
      {children}
      <input
        ref={input}
        type="file"
        class="visually-hidden"
        accept={accept}
        disabled={busy !== undefined}
        onChange={(event) => {
          onFile(event.currentTarget.files?.[0]);
          event.currentTarget.value = "";
        }}
      />
    </label>
  );
}
