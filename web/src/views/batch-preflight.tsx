// What the service says of a batch before there is one: which of its jobs cannot run, how large and how long the others get.
import { RefusedError, api, body } from "../api/client";
import type { BatchPreflight } from "../api/types";
import { type BatchQuestion, type Cell, refusalsByCell } from "../lib/batch";
import { bytes, duration, plural } from "../lib/format";
import { summaryOf } from "../lib/jobs";
import { type Asked, useAsked } from "../state/asked";
import { Glyph } from "../ui/icons";
import { Warnings } from "../ui/parts";

const askFor = async (question: BatchQuestion, signal: AbortSignal): Promise<BatchPreflight> =>
  (await body(api.POST("/v1/batches", { body: question as never, params: { query: { validate_only: true } }, signal }))) as unknown as BatchPreflight;

export const useBatchPreflight = (question: BatchQuestion | undefined): Asked<BatchPreflight> => useAsked(question, askFor);

interface PanelProps extends Asked<BatchPreflight> {
  request: BatchQuestion;
  sending: boolean;
  ready: boolean;
}

export function BatchPanel({ checking, answer, refusal, request, sending, ready }: PanelProps) {
  const verdict = !ready ? "idle" : refusal ? "no" : answer ? "yes" : "idle";
  const total = request.models.length * request.configs.length;
  return (
    <aside class={`card preflight ${verdict}`} aria-label="Preflight">
      <div class="verdict" role="status">
        <Glyph name={verdict === "no" ? "warning" : verdict === "yes" ? "check" : "overview"} />
        <h2>{verdict === "no" ? "This cannot run" : verdict === "yes" ? "Ready to run" : ready ? "Checking …" : "Choose a model first"}</h2>
        {checking && <span class="spinner" aria-hidden="true" />}
      </div>
      {ready && (
        <p>
          {plural(request.models.length, "model")} by {plural(request.configs.length, "config")}: <b>{plural(total, "job")}</b>
        </p>
      )}
      {verdict === "no" && <Refusals error={refusal!} request={request} />}
      {verdict === "yes" && answer && <Estimates answer={answer} request={request} />}
      <button class="button primary wide" disabled={sending || !ready || verdict === "no"}>
        {sending ? "Submitting …" : ready ? `Submit ${plural(total, "job")}` : "Submit"}
      </button>
    </aside>
  );
}

const nameOf = (request: BatchQuestion, { model_index, config_index }: Cell): string => {
  const model = request.models[model_index]!;
  const config = summaryOf({ method: "gptq", bits: 4, group_size: 128, ...request.configs[config_index] });
  return request.models.length > 1 ? `${model.repo ?? model.path}, ${config}` : config;
};

/** Says once what stands against several jobs. */
function Refusals({ error, request }: { error: Error; request: BatchQuestion }) {
  const hint = error instanceof RefusedError ? error.problem.hint : undefined;
  const told = refusalsByCell(error);
  return (
    <div class="refusal">
      {told.length === 0 && <p>{error.message}</p>}
      {told.map(({ detail, cells }) => (
        <div key={detail}>
          <p>{detail}</p>
          <p class="quiet">{cells.map((cell) => nameOf(request, cell)).join("; ")}</p>
        </div>
      ))}
      {hint && <p class="hint">{hint}</p>}
    </div>
  );
}

function Estimates({ answer, request }: { answer: BatchPreflight; request: BatchQuestion }) {
  const seconds = answer.cells.map(({ estimate }) => estimate?.seconds ?? null);
  const whole = seconds.every((one) => one !== null) ? seconds.reduce((sum, one) => sum! + one!, 0) : null;
  const warnings = [...new Set(answer.cells.flatMap((cell) => cell.warnings))];
  return (
    <>
      <ul class="cells">
        {answer.cells.map((cell) => (
          <li key={`${cell.model_index} ${cell.config_index}`}>
            <span>{nameOf(request, cell)}</span>
            <b>{cell.estimate ? bytes(cell.estimate.artifact_bytes) : "size not known yet"}</b>
          </li>
        ))}
      </ul>
      {whole !== null && <p class="quiet">About {duration(whole)} in all on one slot, evaluation not counted.</p>}
      <Warnings texts={warnings} />
    </>
  );
}
