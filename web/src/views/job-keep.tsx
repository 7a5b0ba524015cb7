// How long a job's files stay: pinned, until a day that was set here, or by the service's rule.
import { api, body } from "../api/client";
import type { Job } from "../api/types";
import { dayOf, endOfDay, moment } from "../lib/format";
import { attempt, notify } from "../state/notices";

function words({ pinned, expires_at }: Job): string {
  if (pinned) return "Pinned: the files stay until they are deleted.";
  return expires_at ? `The files go on ${moment(expires_at)}.` : "No day is set on which the files go.";
}

export function Keep({ job, changed }: { job: Job; changed: () => void }) {
  const change = async (changes: { pinned?: boolean; expires_at?: string | null }, says: string): Promise<void> => {
    const path = { job_id: job.id };
    if (!(await attempt(() => body(api.PATCH("/v1/jobs/{job_id}", { params: { path }, body: changes as never }))))) return;
    notify(says);
    changed();
  };
  const setDay = (day: string): void => {
    if (day) void change({ expires_at: endOfDay(day) }, "Kept until then");
    else void change({ expires_at: null }, "Kept by the service’s rule");
  };
  return (
    <section class="keep" aria-labelledby="keep-title">
      <h3 id="keep-title">How long it is kept</h3>
      <p>{words(job)}</p>
      <div class="actions">
        <button type="button" class="button small" aria-pressed={job.pinned} onClick={() => void change({ pinned: !job.pinned }, job.pinned ? "No longer pinned" : "Pinned")}>
          {job.pinned ? "Unpin" : "Pin"}
        </button>
        <label class="keep-day">
          <span>Keep until the end of</span>
          <input type="date" value={job.expires_at ? dayOf(job.expires_at) : ""} min={dayOf(new Date().toISOString())} onChange={(event) => setDay(event.currentTarget.value)} />
        </label>
      </div>
    </section>
  );
}
