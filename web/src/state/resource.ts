// Data of the API in a view: loaded, kept on the screen while it is loaded again, reloaded when an event says so.
import { useCallback, useEffect, useRef, useState } from "preact/hooks";

import type { StreamedEvent } from "../api/types";
import { epoch, live, onEvent } from "./live";

export interface Resource<T> {
  data: T | undefined;
  error: Error | undefined;
  reload: () => void;
}

const POLL_MS = 5000;

/** Loads with a key; a new key drops what was there. */
export function useResource<T>(key: string, load: (signal: AbortSignal) => Promise<T>): Resource<T> {
  const [answer, setAnswer] = useState<{ key: string; data?: T; error?: Error }>({ key });
  const latest = useRef(load);
  latest.current = load;
  const abort = useRef<AbortController | undefined>(undefined);
  const reload = useCallback(() => {
    abort.current?.abort();
    const controller = new AbortController();
    abort.current = controller;
    latest.current(controller.signal).then(
      (data) => !controller.signal.aborted && setAnswer({ key, data }),
      (error: Error) => !controller.signal.aborted && setAnswer((old) => (old.key === key ? { ...old, error } : { key, error })),
    );
  }, [key]);
  const generation = epoch.value;
  useEffect(() => {
    reload();
    return () => abort.current?.abort();
  }, [reload, generation]);
  const lost = live.value === "lost";
  useEffect(() => {
    if (!lost) return undefined;
    const timer = setInterval(reload, POLL_MS);
    return () => clearInterval(timer);
  }, [lost, reload]);
  const current = answer.key === key ? answer : { key };
  return { data: current.data, error: current.error, reload };
}

/** Calls back soon after events that matter, once for many of them. */
export function useEvents(matters: (event: StreamedEvent) => boolean, callback: () => void, pauseMs = 300): void {
  const latest = useRef({ matters, callback });
  latest.current = { matters, callback };
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const stop = onEvent((event) => {
      if (timer !== undefined || !latest.current.matters(event)) return;
      timer = setTimeout(() => {
        timer = undefined;
        latest.current.callback();
      }, pauseMs);
    });
    return () => {
      stop();
      clearTimeout(timer);
    };
  }, [pauseMs]);
}
