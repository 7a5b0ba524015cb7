// Which model: of the hub, a folder on the service's machine among those that it finds, or an uploaded one.
import type { ModelFolder, ModelFolders } from "../api/types";
import { bytes } from "../lib/format";
import { Glyph } from "../ui/icons";
import { UploadedModels } from "./uploaded-models";

export interface Model {
  source: "path" | "hub" | "upload";
  path: string;
  root: string;
  repo: string;
  revision: string;
  id: string;
}

const SOURCES: Readonly<Record<Model["source"], string>> = { hub: "Hub", path: "Folder", upload: "Upload" };
const NONE: Model = { source: "hub", path: "", root: "", repo: "", revision: "", id: "" };

/** Returns a request's model, or an empty one that starts where there is something to choose. */
export function modelOfRequest(given: unknown, known: ModelFolders): Model {
  return { ...NONE, ...(known.data.length > 0 && { source: "path" }), ...(given as Partial<Model> | undefined) };
}

/** Returns the request's model; undefined while nothing is named. */
export function fullModel(model: Model): Record<string, string> | undefined {
  const { source, path, root, repo, revision, id } = model;
  if (source === "upload") return id ? { source, id } : undefined;
  if (source === "path") return path ? { source, path, ...(root && { root }) } : undefined;
  return repo ? { source, repo, ...(revision && { revision }) } : undefined;
}

interface Props {
  model: Model;
  known: ModelFolders;
  refused: Record<string, string>;
  onChange: (model: Model) => void;
}

export function ModelFields({ model, known, refused, onChange }: Props) {
  const set = (changes: Partial<Model>): void => onChange({ ...model, ...changes });
  const said = Object.entries(refused).find(([path]) => path === "model" || path.startsWith("model/"))?.[1];
  const text = (name: "path" | "root" | "repo" | "revision", title: string, hint: string, placeholder = "") => (
    <label class="field" data-path={`model/${name}`}>
      <span>{title}</span>
      <input
        name={name}
        placeholder={placeholder}
        value={model[name]}
        autocomplete="off"
        spellcheck={false}
        aria-invalid={said !== undefined && (name === "path" || name === "repo")}
        aria-describedby={`hint-${name}`}
        onInput={(event) => set({ [name]: event.currentTarget.value.trim() })}
      />
      <small id={`hint-${name}`}>{hint}</small>
    </label>
  );
  return (
    <>
      <div class="segments" role="radiogroup" aria-label="Where the model is">
        {(["hub", "path", "upload"] as const).map((source) => (
          <label key={source}>
            <input type="radio" name="source" checked={model.source === source} onChange={() => set({ source })} />
            <span>{SOURCES[source]}</span>
          </label>
        ))}
      </div>
      {model.source === "path" && <FolderList known={known} isChosen={({ root, path }) => model.root === root && model.path === path} choose={({ root, path }) => set({ root, path })} />}
      {model.source === "upload" && <UploadedModels isChosen={(id) => id === model.id} choose={(id) => set({ id })} />}
      <div class="fields pair">
        {model.source === "hub" && (
          <>
            {text("repo", "Hub id", "Fetched by the worker.", "HuggingFaceTB/SmolLM2-135M-Instruct")}
            {text("revision", "Revision", "A commit, tag or branch; the newest where it is left out.", "main")}
          </>
        )}
        {model.source === "path" && (
          <>
            {text("path", "Folder", "On the service's machine: absolute, or relative to the root. It must lie under one of the roots that the operator allows.", "/models/SmolLM2-135M-Instruct")}
            {text("root", "Root", "Name of the allowed root that a relative path starts from.", "models")}
          </>
        )}
      </div>
      {said && (
        <p class="refused">
          <Glyph name="warning" />
          {said}
        </p>
      )}
    </>
  );
}

interface FolderListProps {
  known: ModelFolders;
  isChosen: (folder: ModelFolder) => boolean;
  choose: (folder: ModelFolder) => void;
}

export function FolderList({ known, isChosen, choose }: FolderListProps) {
  if (known.data.length === 0)
    return (
      <p class="folders-none quiet">
        No model lies under the roots yet ({known.roots.join(", ") || "none is set"}). Put a folder with config.json, tokenizer and safetensors there, take one from the hub, or start with <code>bitmill up --demo-model</code> to try a small one.
      </p>
    );
  return (
    <>
      <ul class="folders" aria-label="Models of this service">
        {known.data.map((folder) => (
          <li key={`${folder.root}/${folder.path}`}>
            <button type="button" aria-pressed={isChosen(folder)} onClick={() => choose(folder)}>
              <b>{folder.path.split("/").at(-1)}</b>
              <small>
                {folder.root}/{folder.path}, {folder.model_type}, {bytes(folder.bytes)}
              </small>
            </button>
          </li>
        ))}
      </ul>
      {known.truncated && <p class="quiet">There may be more: the roots hold too much to look through.</p>}
    </>
  );
}
