// Which field a refusal speaks of.
export interface Refusal extends Error {
  problem?: { errors?: readonly { pointer?: string | null; detail: string }[] };
}

/** Returns, by path, what is said against a field of the request. */
export function refusalsByPath(error: Refusal | undefined): Record<string, string> {
  const problems = error?.problem?.errors ?? [];
  return Object.fromEntries(problems.filter(({ pointer }) => pointer).map(({ pointer, detail }) => [pointer!.replace(/^#?\/?/, ""), detail]));
}
