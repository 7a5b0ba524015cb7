// The frame of a preflight, of a job's as of a batch's: the verdict, what there is to say of it, the button that submits.
import type { ComponentChildren } from "preact";
import type { Asked } from "../state/asked";
import { Glyph } from "../ui/icons";

export type Verdict = "idle" | "no" | "yes";

/** ready: whether enough is filled in to ask the service. */
export const verdictOf = ({ refusal, answer }: Asked<unknown>, ready: boolean): Verdict => (!ready ? "idle" : refusal ? "no" : answer ? "yes" : "idle");

interface FrameProps {
  verdict: Verdict;
  checking: boolean;
  ready: boolean;
  sending: boolean;
  /** What is to be done where nothing can be asked yet. */
  before: string;
  /** On the button. */
  submit: string;
  children: ComponentChildren;
}

export function VerdictFrame({ verdict, checking, ready, sending, before, submit, children }: FrameProps) {
  return (
    <aside class={`card preflight ${verdict}`} aria-label="Preflight">
      <div class="verdict" role="status">
        <Glyph name={verdict === "no" ? "warning" : verdict === "yes" ? "check" : "overview"} />
        <h2>{verdict === "no" ? "This cannot run" : verdict === "yes" ? "Ready to run" : ready ? "Checking …" : before}</h2>
        {checking && <span class="spinner" aria-hidden="true" />}
      </div>
      {children}
      <button class="button primary wide" disabled={sending || !ready || verdict === "no"}>
        {sending ? "Submitting …" : submit}
      </button>
    </aside>
  );
}
