// The frame around every view: where one can go, whether the service lives, notices, keys.
import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";

import { useEffect, useRef, useState } from "preact/hooks";

import { api, body, keyWanted, session, signIn, signOut } from "../api/client";
import { hrefTo, place } from "../router";
import { live, restartLive } from "../state/live";
import { announced, attempt, dismiss, notices } from "../state/notices";
import { useResource } from "../state/resource";
import { nextTheme, theme } from "../state/theme";
import { Confirmation, Dialog } from "./dialog";
import { Glyph, type IconName } from "./icons";

export const helpOpen = signal(false);

const PLACES: readonly { path: string; name: string; icon: IconName }[] = [
  { path: "", name: "Overview", icon: "overview" },
  { path: "jobs", name: "Jobs", icon: "jobs" },
  { path: "compare", name: "Compare", icon: "compare" },
  { path: "models", name: "Models", icon: "models" },
  { path: "texts", name: "Texts", icon: "texts" },
  { path: "workers", name: "Workers", icon: "workers" },
  { path: "keys", name: "API keys", icon: "keys" },
  { path: "webhooks", name: "Webhooks", icon: "webhooks" },
];

export function Frame({ children }: { children: ComponentChildren }) {
  const here = place.value.path[0] ?? "";
  const menu = useRef<HTMLElement>(null);
  useEffect(() => {
    // On a narrow screen the menu is one line that scrolls.
    menu.current?.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
  }, [here]);
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => (event.preventDefault(), document.getElementById("main")?.focus())}>
        Skip to the content
      </a>
      <div class="frame">
        <header class="rail">
          <a class="brand" href={hrefTo("")}>
            <img src="./icon.svg" alt="" width="28" height="28" />
            Bitmill
          </a>
          <nav aria-label="Main" ref={menu}>
            {PLACES.map(({ path, name, icon }) => (
              <a key={path} href={hrefTo(path)} aria-current={here === path ? "page" : undefined}>
                <Glyph name={icon} />
                {name}
              </a>
            ))}
          </nav>
          <a class="button primary new-job" href={hrefTo("new")}>
            <Glyph name="plus" />
            New job
          </a>
          <SignedIn />
          <div class="rail-foot">
            <Health />
            <ThemeButton />
            <button type="button" class="button icon-only" aria-label="Keyboard and help" title="Keyboard and help (?)" onClick={() => (helpOpen.value = true)}>
              <kbd>?</kbd>
            </button>
          </div>
        </header>
        <main id="main" tabIndex={-1}>
          {children}
        </main>
      </div>
      <Notices />
      <div class="visually-hidden" role="status" aria-live="polite">
        {announced.value}
      </div>
      <Confirmation />
      {helpOpen.value && <Help />}
      {keyWanted.value && <KeyDialog />}
    </>
  );
}

const SAYS = { ready: "Ready", degraded: "Degraded", unavailable: "Unavailable", unreachable: "Not reachable" } as const;

function Health() {
  const { data } = useResource("health", async (signal) => {
    try {
      return (await body(api.GET("/readyz", { signal }))).status;
    } catch {
      return "unreachable" as const;
    }
  });
  const status = live.value === "lost" && data === "ready" ? "degraded" : data;
  const says = live.value === "lost" && data === "ready" ? "Connecting again …" : status ? SAYS[status] : "…";
  return (
    <span class={`health ${status ?? ""}`} title={live.value === "live" ? "Live: changes appear by themselves" : "Reads every few seconds"}>
      <i aria-hidden="true" />
      {says}
    </span>
  );
}

const THEME_ICONS = { system: "contrast", light: "sun", dark: "moon" } as const;

function ThemeButton() {
  return (
    <button type="button" class="button icon-only" aria-label={`Theme: ${theme.value}`} title={`Theme: ${theme.value}`} onClick={nextTheme}>
      <Glyph name={THEME_ICONS[theme.value]} />
    </button>
  );
}

function Notices() {
  return (
    <div class="notices" aria-live="polite">
      {notices.value.map((notice) => (
        <div class={`notice ${notice.bad ? "bad" : ""}`} key={notice.id}>
          <span>{notice.text}</span>
          <button type="button" class="button icon-only" aria-label="Dismiss" onClick={() => dismiss(notice.id)}>
            <Glyph name="close" />
          </button>
        </div>
      ))}
    </div>
  );
}

const KEYS = [
  ["/", "Search or filter"],
  ["j  k", "Next and previous row"],
  ["Enter", "Open the row"],
  ["x", "Select the row"],
  ["c", "Cancel the job"],
  ["n", "New job"],
  ["?", "This help"],
] as const;

function Help() {
  return (
    <Dialog title="Keyboard" onClose={() => (helpOpen.value = false)}>
      <dl class="keys">
        {KEYS.map(([key, does]) => (
          <div key={key}>
            <dt>
              {key.split("  ").map((one) => (
                <kbd key={one}>{one}</kbd>
              ))}
            </dt>
            <dd>{does}</dd>
          </div>
        ))}
      </dl>
      <p class="quiet">
        Everything here is done through the public API, described in <a href="./openapi.json">openapi.json</a>.
      </p>
    </Dialog>
  );
}

function SignedIn() {
  const current = session.value;
  if (current?.by !== "cookie") return null;
  return (
    <p class="signed-in">
      <span title={current.scopes.join(", ")}>{current.name}</span>
      <button type="button" class="button small" onClick={() => void attempt(signOut)}>
        Sign out
      </button>
    </p>
  );
}

function KeyDialog() {
  const [error, setError] = useState<Error>();
  const submit = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    const form = new FormData(event.currentTarget as HTMLFormElement);
    try {
      await signIn(String(form.get("key")).trim());
      restartLive();
    } catch (problem) {
      setError(problem as Error);
    }
  };
  return (
    <Dialog title="Sign in" onClose={() => (keyWanted.value = false)}>
      <form onSubmit={(event) => void submit(event)}>
        <p>This service wants an API key. The page does not keep it: the service answers with a session of twelve hours.</p>
        <label class="field">
          <span>Key</span>
          <input name="key" type="password" autocomplete="off" placeholder="bm_…" required aria-invalid={error !== undefined} />
        </label>
        {error && (
          <p class="refused" role="alert">
            {error.message}
          </p>
        )}
        <footer>
          <button class="button primary">Sign in</button>
        </footer>
      </form>
    </Dialog>
  );
}
