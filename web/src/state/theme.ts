// The theme: the system's, or the one that was chosen here. Charts draw anew when it changes.
import { signal } from "@preact/signals";

export type Theme = "system" | "light" | "dark";
const NAME = "bitmill-theme";
const system = matchMedia("(prefers-color-scheme: dark)");

function stored(): Theme {
  const value = document.documentElement.dataset["theme"];
  return value === "light" || value === "dark" ? value : "system";
}

export const theme = signal<Theme>(stored());
/** Grows when colours change. */
export const painted = signal(0);

system.addEventListener("change", () => (painted.value += 1));

export function nextTheme(): void {
  const order: readonly Theme[] = ["system", "light", "dark"];
  theme.value = order[(order.indexOf(theme.value) + 1) % order.length]!;
  if (theme.value === "system") {
    delete document.documentElement.dataset["theme"];
    localStorage.removeItem(NAME);
  } else {
    document.documentElement.dataset["theme"] = theme.value;
    localStorage.setItem(NAME, theme.value);
  }
  painted.value += 1;
}

/** Returns a colour of the style sheet, for canvases. */
export const colour = (name: string): string => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
