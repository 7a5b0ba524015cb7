// How long a job's files stay.
import { api, body } from "../api/client";
import type { Job } from "../api/types";
import { moment } from "../lib/format";
import { KeepControls } from "./keeping";

function words({ pinned, expires_at, expiry_warned_at }: Job): string {
  if (pinned) return "Pinned: the files stay until they are deleted.";
  if (!expires_at) return "No day is set on which the files go.";
  return `The files go on ${moment(expires_at)}${expiry_warned_at ? ": pin them, or choose a later day" : ""}.`;
}

export function Keep({ job, changed }: { job: Job; changed: () => void }) {
  const path = { job_id: job.id };
  return (
    <section class="keep" aria-labelledby="keep-title">
      <h3 id="keep-title">How long it is kept</h3>
      <p class={!job.pinned && job.expiry_warned_at ? "going" : ""}>{words(job)}</p>
      <div class="actions">
        <KeepControls kept={job} words="Keep until the end of" name="The files" change={(changes) => body(api.PATCH("/v1/jobs/{job_id}", { params: { path }, body: changes as never }))} changed={changed} />
      </div>
    </section>
  );
}
