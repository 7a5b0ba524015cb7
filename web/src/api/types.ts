// Short names for what the API says, out of the types that are generated from its document.
import type { components } from "./schema";

type Schemas = components["schemas"];

export type Job = Schemas["JobView"];
export type JobState = Job["state"];
export type Evaluation = Schemas["EvaluationView"];
export type HubToken = Schemas["HubTokenView"];
export type JobError = Schemas["JobErrorView"];
export type Progress = Schemas["JobProgressView"];
export type JobEvent = Schemas["EventView"];
/** The data of an `event` of the stream, which the document describes in words. */
export type StreamedEvent = JobEvent & { job_id: string };
export type LogLine = Schemas["LogLineView"];
export type Attempt = Schemas["AttemptView"];
export type Linear = Schemas["LinearView"];
export type Artifact = Schemas["ArtifactView"];
export type Publication = Schemas["PublicationView"];
export type Preflight = Schemas["PreflightView"];
export type Estimate = Schemas["EstimateView"];
export type ModelFolder = Schemas["ModelFolderView"];
export type ModelFolders = Schemas["ModelFolderList"];
export type Inspection = Schemas["InspectionView"];
export type UploadedModel = Schemas["UploadedModelView"];
export type CalibrationSet = Schemas["CalibrationSetView"];
export type Batch = Schemas["BatchView"];
export type BatchSummary = Schemas["BatchSummaryView"];
export type BatchPreflight = Schemas["BatchPreflightView"];
export type BudgetPlan = Schemas["BudgetView"];
export type BatchRow = Schemas["BatchRow"];
export type ApiKey = Schemas["KeyView"];
export type Webhook = Schemas["WebhookView"];
export type Delivery = Schemas["DeliveryView"];
export type Worker = Schemas["WorkerView"];
export type WorkerPage = Schemas["WorkerList"];

export const STATES: readonly JobState[] = ["queued", "running", "cancelling", "succeeded", "failed", "cancelled"];
export const STAGES = [
  "preflight",
  "downloading",
  "calibrating",
  "quantizing",
  "packing",
  "evaluating",
  "uploading",
  "publishing",
] as const satisfies readonly NonNullable<Job["stage"]>[];

export const isOver = (state: JobState): boolean => state === "succeeded" || state === "failed" || state === "cancelled";
