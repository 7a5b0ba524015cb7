// The one way to the API: typed calls, the session, refusals as values of one class. It draws nothing.
import { signal } from "@preact/signals";
import createClient, { type Middleware } from "openapi-fetch";

import type { components, paths } from "./schema";

/** Where the page is served, with a slash at its end: the API's paths begin here, behind whatever prefix a proxy adds. */
export const ORIGIN = new URL(".", document.baseURI).href;

export interface Problem {
  code?: string;
  title?: string;
  detail?: string;
  hint?: string | null;
  request_id?: string;
  errors?: { pointer?: string | null; header?: string | null; parameter?: string | null; detail: string }[];
}

/** What the API refused; status 0: it could not be reached. */
export class RefusedError extends Error {
  constructor(
    readonly status: number,
    readonly problem: Problem,
  ) {
    super(problem.detail ?? problem.title ?? (status ? `The service answered ${status}.` : "The service cannot be reached."));
  }
}

export type Session = components["schemas"]["SessionView"];

/** Who is calling; undefined until the service has said so. The key itself is in a cookie that no script can read. */
export const session = signal<Session | undefined>(undefined);
/** True where the service wants somebody to sign in. */
export const keyWanted = signal(false);

const SAFE = new Set(["GET", "HEAD"]);

/** A write with the session's cookie proves by this that it comes from this page. */
function proof(method: string): Record<string, string> {
  const token = session.value?.csrf_token;
  return token && !SAFE.has(method) ? { "X-CSRF-Token": token } : {};
}

/** Returns the address of an API path, such as a job's link. */
export const addressOf = (path: string): string => new URL(path.replace(/^\//, ""), ORIGIN).href;

async function refusalOf(response: Response): Promise<RefusedError> {
  const problem = (await response.json().catch(() => ({}))) as Problem;
  if (response.status === 401) keyWanted.value = true;
  return new RefusedError(response.status, problem);
}

const withProof: Middleware = {
  onRequest({ request }) {
    for (const [name, value] of Object.entries(proof(request.method))) request.headers.set(name, value);
    return request;
  },
  async onResponse({ response }) {
    if (!response.ok) throw await refusalOf(response);
    return response;
  },
  onError({ error }) {
    if (error instanceof RefusedError || (error instanceof DOMException && error.name === "AbortError")) return error;
    return new RefusedError(0, {});
  },
};

export const api = createClient<paths>({ baseUrl: ORIGIN.replace(/\/$/, "") });
api.use(withProof);

/** Returns the body of an answer; refusals were thrown on the way. */
export async function body<T>(call: Promise<{ data?: T }>): Promise<T> {
  return (await call).data as T;
}

/** Fetches a path of the API as it stands, for streams and uploads. */
export async function fetchPath(path: string, init: RequestInit = {}): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(addressOf(path), { ...init, headers: { ...proof(init.method ?? "GET"), ...init.headers } });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new RefusedError(0, {});
  }
  if (!response.ok) throw await refusalOf(response);
  return response;
}

/** Posts a file and tells the fraction that was sent, which `fetch` does not; it throws what `fetchPath` throws. */
export function postFile<T>(path: string, file: File, onSent: (fraction: number) => void): Promise<T> {
  const form = new FormData();
  form.append("file", file, file.name);
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", addressOf(path));
    request.responseType = "json";
    for (const [name, value] of Object.entries(proof("POST"))) request.setRequestHeader(name, value);
    request.upload.onprogress = ({ loaded, total }) => onSent(total ? loaded / total : 0);
    request.onerror = () => reject(new RefusedError(0, {}));
    request.onload = () => {
      if (request.status < 400) return resolve(request.response as T);
      if (request.status === 401) keyWanted.value = true;
      reject(new RefusedError(request.status, (request.response ?? {}) as Problem));
    };
    request.send(form);
  });
}

export async function loadSession(): Promise<void> {
  session.value = await body(api.GET("/v1/session"));
}

export async function signIn(key: string): Promise<void> {
  session.value = await body(api.POST("/v1/session", { body: { key } }));
  keyWanted.value = false;
}

export async function signOut(): Promise<void> {
  await body(api.DELETE("/v1/session"));
  session.value = undefined;
  keyWanted.value = true;
}
