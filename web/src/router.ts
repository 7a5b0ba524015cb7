// The address behind `#` as a place in the page. It works behind any path prefix and needs no rule in a server.
import { computed, signal } from "@preact/signals";

export interface Place {
  path: readonly string[];
  query: URLSearchParams;
}

export function parsePlace(hash: string): Place {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?");
  return { path: path.split("/").filter(Boolean).map(decodeURIComponent), query: new URLSearchParams(query) };
}

export function hrefTo(path: string, query?: Record<string, string | readonly string[] | undefined>): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {}))
    for (const one of typeof value === "string" ? [value] : (value ?? [])) if (one) search.append(name, one);
  const text = search.toString();
  return `#/${path.replace(/^\//, "")}${text && `?${text}`}`;
}

const hash = signal(location.hash);
addEventListener("hashchange", () => (hash.value = location.hash));

export const place = computed(() => parsePlace(hash.value));

export function go(href: string): void {
  location.hash = href.replace(/^#/, "");
}

/** Changes the address without a step in the history, for filters that are typed. */
export function replacePlace(href: string): void {
  history.replaceState(null, "", href);
  hash.value = location.hash;
}
