// Talks to the API: JSON with ETags, the key of this tab, uploads and downloads. It draws nothing.

const KEY_NAME = "bitmill-key";
const JSON_TYPE = "application/json";
const versions = new Map();

/** What the API refused: `problem` is its RFC 9457 body. */
export class ProblemError extends Error {
  constructor(status, problem) {
    super(problem.detail || `The service answered ${status}.`);
    this.status = status;
    this.problem = problem;
  }
}

export const getKey = () => sessionStorage.getItem(KEY_NAME);
export const setKey = (key) => sessionStorage.setItem(KEY_NAME, key);

function headers(extra = {}) {
  const key = getKey();
  return key ? { Authorization: `Bearer ${key}`, ...extra } : extra;
}

async function checked(response) {
  if (response.ok || response.status === 304) return response;
  const body = await response.json().catch(() => ({}));
  throw new ProblemError(response.status, body);
}

/** Returns the JSON at a path, or null where it is still what the caller got from here the last time. */
export async function getChanged(path) {
  const etag = versions.get(path);
  const response = await checked(await fetch(path, { headers: headers(etag ? { "If-None-Match": etag } : {}), cache: "no-store" }));
  if (response.status === 304) return null;
  const tag = response.headers.get("ETag");
  if (tag) versions.set(path, tag);
  return response.json();
}

/** Makes the next `getChanged` of a path answer in full. */
export const forget = (path) => versions.delete(path);

export async function getJson(path) {
  return (await checked(await fetch(path, { headers: headers() }))).json();
}

/** Returns a response whose body goes on; lastId: of the last event that was seen. */
export async function openStream(path, lastId, signal) {
  return checked(await fetch(path, { headers: headers(lastId ? { "Last-Event-ID": lastId } : {}), cache: "no-store", signal }));
}

export async function postJson(path, body) {
  const options = { method: "POST", headers: headers() };
  if (body !== undefined) {
    options.headers["Content-Type"] = JSON_TYPE;
    options.body = JSON.stringify(body);
  }
  return (await checked(await fetch(path, options))).json();
}

export async function submitJob(body) {
  const options = {
    method: "POST",
    headers: headers({ "Content-Type": JSON_TYPE, "Idempotency-Key": randomId() }),
    body: JSON.stringify(body),
  };
  return (await checked(await fetch("/v1/jobs", options))).json();
}

export async function upload(file) {
  const form = new FormData();
  form.append("file", file, file.name);
  return (await checked(await fetch("/v1/calibration-sets", { method: "POST", headers: headers(), body: form }))).json();
}

/** With a key, a plain link could not carry it: the file is fetched here and handed over. Without one, the link works. */
export async function followLink(event) {
  if (!getKey()) return;
  event.preventDefault();
  const link = event.currentTarget;
  const response = await checked(await fetch(link.href, { headers: headers() }));
  const saved = document.createElement("a");
  saved.href = URL.createObjectURL(await response.blob());
  saved.download = fileName(response) || link.download;
  saved.click();
  setTimeout(() => URL.revokeObjectURL(saved.href), 60_000);
}

function fileName(response) {
  return /filename="([^"]+)"/.exec(response.headers.get("Content-Disposition") || "")?.[1];
}

function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
