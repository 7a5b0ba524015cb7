// What a job left: its files with their checksums, and the lines that fetch and load them.
import { addressOf, api, body, session } from "../api/client";
import type { Artifact, Job } from "../api/types";
import { bytes } from "../lib/format";
import { useResource } from "../state/resource";
import { Glyph } from "../ui/icons";
import { Card, CopyButton, Snippet } from "../ui/parts";
import { Keep } from "./job-keep";

function Download({ path, name, primary = false, children }: { path: string; name: string; primary?: boolean; children: preact.ComponentChildren }) {
  return (
    <a class={`button ${primary ? "primary" : "small"}`} href={addressOf(path)} download={name}>
      <Glyph name="download" />
      {children}
    </a>
  );
}

export function FilesCard({ job, changed }: { job: Job; changed: () => void }) {
  const path = { job_id: job.id };
  const { data } = useResource(`files ${job.id}`, (signal) => body(api.GET("/v1/jobs/{job_id}/artifacts", { params: { path }, signal })));
  if (!data || data.data.length === 0) return null;
  const files = data.data;
  const size = files.reduce((sum, file) => sum + file.size_bytes, 0);
  return (
    <Card
      title="Artifact"
      class="files-card"
      aside={
        <Download path={job.links.archive} name={`${job.id}.zip`} primary>
          Download zip, {bytes(size)}
        </Download>
      }
    >
      <ul class="files">
        {files.map((file) => (
          <FileLine file={file} key={file.id} />
        ))}
      </ul>
      <p class="files-foot">
        <Download path={job.links.checksums} name="SHA256SUMS">
          SHA256SUMS
        </Download>
      </p>
      <Keep job={job} changed={changed} />
      <Lines job={job} />
    </Card>
  );
}

function FileLine({ file }: { file: Artifact }) {
  return (
    <li>
      <span class="file-name">{file.name}</span>
      <span class="file-size">{bytes(file.size_bytes)}</span>
      <span class="file-hash">
        <code title={file.sha256}>{file.sha256.slice(0, 12)}…</code>
        <CopyButton text={file.sha256} label={`Copy the sha256 of ${file.name}`} />
      </span>
      <Download path={file.content} name={file.name.split("/").at(-1)!}>
        <span class="visually-hidden">Download {file.name}</span>
      </Download>
    </li>
  );
}

/** Returns the lines that fetch and load an artifact, for what its format is loaded by. */
export function loaderLines(job: Job, hasKey: boolean): (readonly [string, string])[] {
  const formats = (job.spec["formats"] ?? ["gptq"]) as string[];
  const key = hasKey ? ' -H "Authorization: Bearer $BITMILL_API_KEY"' : "";
  const lines: (readonly [string, string])[] = [
    ["curl", `curl -sSf${key} ${addressOf(job.links.archive)} -o artifact.zip\npython3 -m zipfile -e artifact.zip artifact && cd artifact/*\nsha256sum -c SHA256SUMS`],
    ["transformers", 'from transformers import AutoModelForCausalLM, AutoTokenizer\n\nmodel = AutoModelForCausalLM.from_pretrained(".")\ntokenizer = AutoTokenizer.from_pretrained(".")'],
    ["vLLM", "vllm serve ."],
  ];
  if (formats[0] === "gptq") lines.push(["GPTQModel", 'from gptqmodel import GPTQModel\n\nmodel = GPTQModel.load(".")']);
  return lines;
}

function Lines({ job }: { job: Job }) {
  return (
    <div class="loader-lines">
      {loaderLines(job, session.value !== undefined && session.value.by !== "loopback").map(([name, text]) => (
        <section key={name}>
          <h3>{name}</h3>
          <Snippet label={name} text={text} />
        </section>
      ))}
    </div>
  );
}
