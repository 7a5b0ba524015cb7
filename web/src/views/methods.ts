// The service's own description: what the form is made of and which methods there are.
import { useResource } from "../state/resource";
import { fetchPath } from "../api/client";
import { type Document, resolve } from "../lib/fields";

let loaded: Promise<Document> | undefined;

/** Reads openapi.json once. */
export function loadDocument(): Promise<Document> {
  loaded ??= fetchPath("openapi.json")
    .then((response) => response.json() as Promise<Document>)
    .catch((error: unknown) => {
      loaded = undefined;
      throw error;
    });
  return loaded;
}

/** Returns the names of all methods; empty until they are known. */
export function useMethods(): readonly string[] {
  const { data } = useResource("openapi", loadDocument);
  return data ? (resolve(data, { $ref: "#/components/schemas/Method" }).enum ?? []).map(String) : [];
}
