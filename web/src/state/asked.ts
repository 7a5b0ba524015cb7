// A question to the service that changes while one types: asked soon after, and only the newest answer counts.
import { useEffect, useState } from "preact/hooks";

const TYPING_MS = 350;

export interface Asked<A> {
  checking: boolean;
  answer: A | undefined;
  refusal: Error | undefined;
}

const NOTHING = { checking: false, answer: undefined, refusal: undefined };

/** Asks whenever the question is another object; without a question there is no answer. What was answered stays until then. */
export function useAsked<Q, A>(question: Q | undefined, ask: (question: Q, signal: AbortSignal) => Promise<A>): Asked<A> {
  const [state, setState] = useState<Asked<A>>(NOTHING);
  useEffect(() => {
    if (question === undefined) {
      setState(NOTHING);
      return undefined;
    }
    const abort = new AbortController();
    const put = (changes: Partial<Asked<A>>): void => {
      if (!abort.signal.aborted) setState({ ...NOTHING, ...changes });
    };
    setState((old) => ({ ...old, checking: true }));
    const timer = setTimeout(() => {
      ask(question, abort.signal).then(
        (answer) => put({ answer }),
        (refusal: Error) => put({ refusal }),
      );
    }, TYPING_MS);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [question]);
  return state;
}
