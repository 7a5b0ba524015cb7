// A form's request on its way: sent under a key of its own, so that sending it again stores it once.
import { useEffect, useMemo, useState } from "preact/hooks";

import { go } from "../router";
import { announce, notify } from "./notices";

export interface Sending {
  sending: boolean;
  /** What went wrong, until the request is another one. */
  failed: Error | undefined;
  submit: (event: Event) => Promise<void>;
}

/** Sends on submit and goes where `send` says. */
export function useSending<R>(request: R, send: (request: R, key: string) => Promise<string>): Sending {
  const [sending, setSending] = useState(false);
  const [failed, setFailed] = useState<Error>();
  const key = useMemo(() => crypto.getRandomValues(new Uint32Array(4)).join("-"), [request]);
  useEffect(() => setFailed(undefined), [request]);
  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    setSending(true);
    try {
      const place = await send(request, key);
      notify("Submitted");
      go(place);
    } catch (error) {
      setFailed(error as Error);
      announce((error as Error).message);
      setSending(false);
    }
  };
  return { sending, failed, submit };
}
