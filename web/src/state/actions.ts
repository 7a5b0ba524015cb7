// What can be done to jobs, with the question before it and the words after it.
import { api, body } from "../api/client";
import type { Job } from "../api/types";
import { plural } from "../lib/format";
import { canCancel, shortModel } from "../lib/jobs";
import { confirm } from "../ui/dialog";
import { attempt, notify } from "./notices";

const at = (id: string) => ({ params: { path: { job_id: id } } });

/** Cancels jobs after a question; returns whether it was asked for. */
export async function cancelJobs(jobs: readonly Job[]): Promise<boolean> {
  const open = jobs.filter(canCancel);
  if (open.length === 0) return false;
  const what = open.length === 1 ? `the job on ${shortModel(open[0]!.spec)}` : plural(open.length, "job");
  const text = "Blocks that are finished are kept: a retry goes on behind them.";
  if (!(await confirm(`Cancel ${what}?`, text, open.length === 1 ? "Cancel the job" : `Cancel ${plural(open.length, "job")}`))) return false;
  const results = await Promise.allSettled(open.map((job) => body(api.POST("/v1/jobs/{job_id}:cancel", at(job.id)))));
  const refused = results.filter((result) => result.status === "rejected");
  if (refused.length > 0) notify(`${plural(refused.length, "job")} could not be cancelled: ${String((refused[0] as PromiseRejectedResult).reason.message)}`, true);
  else notify(open.length === 1 ? "Cancelling" : `Cancelling ${plural(open.length, "job")}`);
  return true;
}

export async function retryJob(job: Job): Promise<void> {
  if (await attempt(() => body(api.POST("/v1/jobs/{job_id}:retry", at(job.id))))) notify("Queued again");
}

/** Deletes a finished job after a question; returns whether it is gone. */
export async function deleteJob(job: Job): Promise<boolean> {
  const text = "Its history and its files go with it, for good. Files that another job shares stay.";
  if (!(await confirm(`Delete the job on ${shortModel(job.spec)}?`, text, "Delete for good"))) return false;
  return attempt(() => body(api.DELETE("/v1/jobs/{job_id}", at(job.id))));
}
