// Short messages: on the screen for a while, and for screen readers, which are not told more than once in a few seconds.
import { signal } from "@preact/signals";

export interface Notice {
  id: number;
  text: string;
  bad: boolean;
}

export const notices = signal<readonly Notice[]>([]);
export const announced = signal("");

const SHOWN_MS = 6000;
const ANNOUNCE_MS = 3000;
let count = 0;
let waiting: string | undefined;
let timer: ReturnType<typeof setTimeout> | undefined;

export function notify(text: string, bad = false): void {
  count += 1;
  const id = count;
  notices.value = [...notices.value.slice(-2), { id, text, bad }];
  setTimeout(() => dismiss(id), SHOWN_MS);
}

export function dismiss(id: number): void {
  notices.value = notices.value.filter((notice) => notice.id !== id);
}

/** Says the newest of the texts that come within a few seconds. */
export function announce(text: string): void {
  if (timer !== undefined) {
    waiting = text;
    return;
  }
  announced.value = text;
  timer = setTimeout(() => {
    timer = undefined;
    const next = waiting;
    waiting = undefined;
    if (next !== undefined && next !== announced.value) announce(next);
  }, ANNOUNCE_MS);
}

/** Runs what a button does and shows a refusal as a notice. */
export async function attempt(action: () => Promise<unknown>): Promise<boolean> {
  try {
    await action();
    return true;
  } catch (error) {
    notify(error instanceof Error ? error.message : String(error), true);
    return false;
  }
}
