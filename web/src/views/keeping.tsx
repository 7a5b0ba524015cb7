// How long a thing stays: pinned, until a day that was set here, or by the service's rule.
import type { CalibrationSet, Job, UploadedModel } from "../api/types";
import { dayOf, endOfDay, moment } from "../lib/format";
import { attempt, notify } from "../state/notices";

export type Kept = Pick<Job | CalibrationSet | UploadedModel, "pinned" | "expires_at" | "expiry_warned_at">;
export type Changes = { pinned?: boolean; expires_at?: string | null };

/** Returns the words of a fact; what goes soon stands out. */
export function KeptFact({ kept: { pinned, expires_at, expiry_warned_at } }: { kept: Kept }) {
  if (pinned) return <>until it is deleted</>;
  if (!expires_at) return <>no day is set</>;
  return expiry_warned_at ? <b class="going">goes on {moment(expires_at)}</b> : <>until {moment(expires_at)}</>;
}

interface Props {
  kept: Kept;
  /** Before the day. */
  words: string;
  /** What is kept, for those who hear buttons one by one. */
  name: string;
  change: (changes: Changes) => Promise<unknown>;
  changed: () => void;
}

export function KeepControls({ kept, words, name, change, changed }: Props) {
  const keep = async (changes: Changes, says: string): Promise<void> => {
    if (!(await attempt(() => change(changes)))) return;
    notify(says);
    changed();
  };
  const setDay = (day: string): void => {
    if (day) void keep({ expires_at: endOfDay(day) }, "Kept until then");
    else void keep({ expires_at: null }, "Kept by the service’s rule");
  };
  return (
    <>
      <button type="button" class="button small" aria-pressed={kept.pinned} aria-description={name} onClick={() => void keep({ pinned: !kept.pinned }, kept.pinned ? "No longer pinned" : "Pinned")}>
        {kept.pinned ? "Unpin" : "Pin"}
      </button>
      <label class="keep-day">
        <span>{words}</span>
        <input type="date" value={kept.expires_at ? dayOf(kept.expires_at) : ""} min={dayOf(new Date().toISOString())} aria-description={name} onChange={(event) => setDay(event.currentTarget.value)} />
      </label>
    </>
  );
}
