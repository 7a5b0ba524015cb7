// What the service says of a batch before there is one: which of its jobs cannot run, how large and how long the others get.
import { RefusedError, api, body } from "../api/client";
import type { BatchPreflight } from "../api/types";
import { type BatchQuestion, type Cell, refusalsByCell } from "../lib/batch";
import { bytes, duration, plural } from "../lib/format";
import { summaryOf } from "../lib/jobs";
import { type Asked, useAsked } from "../state/asked";
import { Warnings } from "../ui/parts";
import { VerdictFrame, verdictOf } from "./verdict";

const askFor = async (question: BatchQuestion, signal: AbortSignal): Promise<BatchPreflight> =>
  (await body(api.POST("/v1/batches", { body: question as never, params: { query: { validate_only: true } }, signal }))) as unknown as BatchPreflight;

export const useBatchPreflight = (question: BatchQuestion | undefined): Asked<BatchPreflight> => useAsked(question, askFor);

interface PanelProps extends Asked<BatchPreflight> {
  request: BatchQuestion;
  sending: boolean;
  ready: boolean;
}

export function BatchPanel({ request, sending, ready, ...asked }: PanelProps) {
  const { checking, answer, refusal } = asked;
  const verdict = verdictOf(asked, ready);
  const total = request.models.length * request.configs.length;
  const submit = ready ? `Submit ${plural(total, "job")}` : "Submit";
  return (
    <VerdictFrame verdict={verdict} checking={checking} ready={ready} sending={sending} before="Choose a model first" submit={submit}>
      {ready && (
        <p>
          {plural(request.models.length, "model")} by {plural(request.configs.length, "config")}: <b>{plural(total, "job")}</b>
        </p>
      )}
      {verdict === "no" && <Refusals error={refusal!} request={request} />}
      {verdict === "yes" && answer && <Estimates answer={answer} request={request} />}
    </VerdictFrame>
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
