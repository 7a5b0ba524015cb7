// Keys of the page. They rest while something is typed or a dialog is open; rows say by `data-row` that they are rows.
import { go, hrefTo } from "./router";
import { helpOpen } from "./ui/frame";

type Action = () => void;
const actions = new Map<string, Action>();

/** Gives a key to a view until the function that it returns is called. */
export function onKey(key: string, action: Action): () => void {
  actions.set(key, action);
  return () => {
    if (actions.get(key) === action) actions.delete(key);
  };
}

const isTyping = (target: EventTarget | null): boolean =>
  target instanceof HTMLElement && target.matches("input:not([type=checkbox], [type=radio]), select, textarea, [contenteditable]");

/** Returns the row that holds the focus. */
export const focusedRow = (): HTMLElement | null => document.activeElement?.closest<HTMLElement>("[data-row]") ?? null;

function step(by: number): void {
  const rows = [...document.querySelectorAll<HTMLElement>("[data-row]")];
  const here = focusedRow();
  const next = here ? rows.indexOf(here) + by : by > 0 ? 0 : rows.length - 1;
  const row = rows[Math.min(Math.max(next, 0), rows.length - 1)];
  row?.querySelector<HTMLElement>("a.row-link")?.focus();
  row?.scrollIntoView({ block: "nearest" });
}

function act(key: string): boolean {
  const own = actions.get(key);
  if (own) own();
  else if (key === "j") step(1);
  else if (key === "k") step(-1);
  else if (key === "n") go(hrefTo("new"));
  else if (key === "?") helpOpen.value = true;
  else if (key === "/") {
    const search = document.querySelector<HTMLElement>("[data-search]");
    if (search) search.focus();
    else go(hrefTo("jobs"));
  } else return false;
  return true;
}

export function startKeyboard(): void {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (event.key === "Escape" && isTyping(event.target) && !document.querySelector("dialog[open]")) {
      (event.target as HTMLElement).blur();
      return;
    }
    if (isTyping(event.target) || document.querySelector("dialog[open]")) return;
    if (act(event.key)) event.preventDefault();
  });
}
