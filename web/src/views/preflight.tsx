// What the service says of a job before it is one: whether it runs, what it needs, how large the result is.
import { RefusedError, api, body } from "../api/client";
import type { Estimate, Inspection, Preflight } from "../api/types";
import { bytes, duration, parameters, plural } from "../lib/format";
import { type Asked, useAsked } from "../state/asked";
import { Facts, Warnings } from "../ui/parts";
import { VerdictFrame, verdictOf } from "./verdict";

type Facts_ = Inspection["facts"];

export interface PreflightState extends Asked<Preflight> {
  facts: Facts_ | undefined;
}

interface Question {
  model?: unknown;
}

const check = async (request: Question, signal: AbortSignal): Promise<Preflight> =>
  (await body(api.POST("/v1/jobs", { body: request as never, params: { query: { validate_only: true } }, signal }))) as unknown as Preflight;

const inspect = async (model: string, signal: AbortSignal): Promise<Facts_> =>
  (await body(api.POST("/v1/models:inspect", { body: { model: JSON.parse(model) as never, configs: [] }, signal }))).facts;

/** Asks the service about the request and, where the model is another one, about that. */
export function usePreflight(request: Question | undefined): PreflightState {
  const checked = useAsked(request, check);
  const { answer } = useAsked(request?.model === undefined ? undefined : JSON.stringify(request.model), inspect);
  return { ...checked, facts: answer };
}

interface PanelProps extends PreflightState {
  sending: boolean;
  ready: boolean;
  /** Takes another group size, where the one that is chosen is what stands in the way. */
  regroup: ((size: number) => void) | undefined;
}

export function PreflightPanel({ facts, sending, ready, regroup, ...asked }: PanelProps) {
  const { checking, answer, refusal } = asked;
  const verdict = verdictOf(asked, ready);
  return (
    <VerdictFrame verdict={verdict} checking={checking} ready={ready} sending={sending} before="Name a model first" submit="Submit">
      {verdict === "no" && <Refusal error={refusal!} />}
      {verdict === "no" && regroup && facts && <Regroup sizes={facts.group_sizes} choose={regroup} />}
      {answer?.estimate && <Needs estimate={answer.estimate} before={facts?.total_bytes} />}
      {answer && !answer.estimate && <p class="quiet">The worker fetches this model; its size is known then, and checked before its weights come.</p>}
      {answer && <Warnings texts={answer.warnings} />}
      {facts && <ModelFacts facts={facts} />}
    </VerdictFrame>
  );
}

function Refusal({ error }: { error: Error }) {
  const hint = error instanceof RefusedError ? error.problem.hint : undefined;
  return (
    <div class="refusal">
      <p>{error.message}</p>
      {hint && <p class="hint">{hint}</p>}
    </div>
  );
}

function Regroup({ sizes, choose }: { sizes: readonly number[]; choose: (size: number) => void }) {
  return (
    <div class="regroup">
      <p>Group sizes that fit this model:</p>
      <p class="actions">
        {sizes.map((size) => (
          <button type="button" class="button small" key={size} onClick={() => choose(size)}>
            {size < 0 ? "a whole row" : size}
          </button>
        ))}
      </p>
    </div>
  );
}

function Needs({ estimate, before }: { estimate: Estimate; before: number | undefined }) {
  const { artifact_bytes, ram_bytes, disk_bytes, seconds } = estimate;
  const share = before ? Math.min(artifact_bytes / before, 1) : undefined;
  return (
    <>
      {before !== undefined && share !== undefined && (
        <div class="sizes">
          <div class="size-row">
            <span>Now</span>
            <b>{bytes(before)}</b>
            <i class="size-bar" style={{ width: "100%" }} />
          </div>
          <div class="size-row after">
            <span>After</span>
            <b>{bytes(artifact_bytes)}</b>
            <i class="size-bar" style={{ width: `${share * 100}%` }} />
          </div>
        </div>
      )}
      <Facts
        rows={[
          ...(before === undefined ? [["Size after", bytes(artifact_bytes)] as const] : []),
          ["Memory, at most", bytes(ram_bytes)],
          ["Disk, at most", bytes(disk_bytes)],
          ["Time", seconds === null ? "not known yet on this machine" : `about ${duration(seconds)}`],
        ]}
      />
    </>
  );
}

function ModelFacts({ facts }: { facts: NonNullable<Facts_> }) {
  return (
    <>
      <h3>The model</h3>
      <Facts
        rows={[
          ["Architecture", facts.architecture],
          ["Parameters", parameters(facts.parameters)],
          ["Size", `${plural(facts.blocks, "block")}, ${plural(facts.linears, "linear")}`],
          ["Stored as", facts.dtype],
          ["Group sizes", facts.group_sizes.map((size) => (size < 0 ? "row" : size)).join(", ")],
        ]}
      />
    </>
  );
}
