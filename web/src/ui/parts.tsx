// Small pieces of every view.
import type { ComponentChildren, TargetedEvent } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

import { RefusedError } from "../api/client";
import type { JobState } from "../api/types";
import { percent, words } from "../lib/format";
import { announce } from "../state/notices";
import { Glyph, type IconName, StateShape } from "./icons";

export function StateBadge({ state }: { state: JobState }) {
  return (
    <span class={`state ${state}`}>
      <StateShape state={state} />
      {words(state)}
    </span>
  );
}

interface CardProps {
  title?: ComponentChildren;
  aside?: ComponentChildren;
  children: ComponentChildren;
  class?: string;
  id?: string;
}

export function Card({ title, aside, children, class: extra = "", id }: CardProps) {
  return (
    <section class={`card ${extra}`} id={id}>
      {title !== undefined && (
        <header class="card-head">
          <h2>{title}</h2>
          {aside}
        </header>
      )}
      {children}
    </section>
  );
}

let moved = false;

/** Says that the place has changed: the next heading takes the focus, so that a reader hears where it is. */
export function expectHeading(): void {
  moved = true;
}

export function PageHead({ title, lead, children }: { title: ComponentChildren; lead?: ComponentChildren; children?: ComponentChildren }) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    document.title = `${heading.current!.textContent} · Bitmill`;
  }, [title]);
  useEffect(() => {
    if (moved) heading.current!.focus({ preventScroll: true });
    moved = false;
  }, []);
  return (
    <header class="page-head">
      <div>
        <h1 tabIndex={-1} ref={heading}>{title}</h1>
        {lead !== undefined && <p class="lead">{lead}</p>}
      </div>
      {children !== undefined && <div class="actions">{children}</div>}
    </header>
  );
}

export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <p class="empty-title">{title}</p>
      {children}
    </div>
  );
}

export function ErrorBox({ error, retry }: { error: Error; retry?: () => void }) {
  const hint = error instanceof RefusedError ? error.problem.hint : undefined;
  return (
    <div class="error-box" role="alert">
      <Glyph name="warning" />
      <div>
        <p>{error.message}</p>
        {hint && <p class="quiet">{hint}</p>}
        {retry && (
          <button type="button" class="button small" onClick={retry}>
            Try again
          </button>
        )}
      </div>
    </div>
  );
}

/** Holds the place of what is loading, after a moment, so that quick answers do not flicker. */
export function Loading({ rows = 3 }: { rows?: number }) {
  return (
    <div class="loading" role="status">
      <span class="visually-hidden">Loading …</span>
      {Array.from({ length: rows }, (_, row) => (
        <span class="bone" key={row} />
      ))}
    </div>
  );
}

export function CopyButton({ text, label = "Copy" }: { text: string; label?: string }) {
  const [done, setDone] = useState(false);
  useEffect(() => {
    if (!done) return undefined;
    const timer = setTimeout(() => setDone(false), 1600);
    return () => clearTimeout(timer);
  }, [done]);
  const copy = async (): Promise<void> => {
    await navigator.clipboard.writeText(text);
    setDone(true);
    announce("Copied");
  };
  return (
    <button type="button" class="button icon-only" aria-label={done ? "Copied" : label} title={label} onClick={() => void copy()}>
      <Glyph name={done ? "check" : "copy"} />
    </button>
  );
}

/** Lines to take away: scrolls inside, reachable by keyboard. */
export function Snippet({ text, label }: { text: string; label: string }) {
  return (
    <div class="snippet">
      <pre tabIndex={0} role="region" aria-label={label}>
        <code>{text}</code>
      </pre>
      <CopyButton text={text} label={`Copy: ${label}`} />
    </div>
  );
}

export function Facts({ rows }: { rows: readonly (readonly [string, ComponentChildren])[] }) {
  return (
    <dl class="facts">
      {rows.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

export function InlineFacts({ rows }: { rows: readonly (readonly [string, ComponentChildren])[] }) {
  return (
    <dl class="inline-facts">
      {rows.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

interface TableProps {
  label: string;
  head: readonly ComponentChildren[];
  rows: readonly (readonly ComponentChildren[])[];
  numeric?: readonly number[];
}

/** A table that scrolls inside its place; numeric: the columns that hold numbers. */
export function DataTable({ label, head, rows, numeric = [] }: TableProps) {
  const align = (column: number): string => (numeric.includes(column) ? "num" : "");
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label={label}>
      <table>
        <thead>
          <tr>
            {head.map((cell, column) => (
              <th scope="col" class={align(column)} key={column}>
                {cell}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((cells, row) => (
            <tr key={row}>
              {cells.map((cell, column) => (
                <td class={align(column)} key={column}>
                  {cell}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** The same numbers as a chart's, made only when they are asked for. */
export function TableBehind({ rows, ...rest }: Omit<TableProps, "rows"> & { rows: () => TableProps["rows"] }) {
  const [open, setOpen] = useState(false);
  const toggle = (event: TargetedEvent<HTMLDetailsElement>): void => setOpen(event.currentTarget.open);
  return (
    <details class="table-behind" onToggle={toggle}>
      <summary>As a table</summary>
      {open && <DataTable {...rest} rows={rows()} />}
    </details>
  );
}

const CELLS_MAX = 48;

/** The model's blocks as cells that fill up; many blocks share a cell. */
export function BlockStrip({ done, total, fraction, state }: { done: number; total: number; fraction: number; state: JobState }) {
  const cells = Math.min(Math.max(total, 1), CELLS_MAX);
  const filled = total > 0 ? Math.floor((done / total) * cells) : 0;
  const active = state === "running" || state === "cancelling";
  return (
    <div
      class={`strip ${state}`}
      role="progressbar"
      aria-label="Progress"
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={Math.floor(fraction * 100)}
      aria-valuetext={`${percent(fraction)}${total > 0 ? `, block ${done} of ${total}` : ""}`}
    >
      {total === 0 ? (
        <span class="strip-plain" style={{ width: `${fraction * 100}%` }} />
      ) : (
        Array.from({ length: cells }, (_, cell) => (
          <i key={cell} class={cell < filled ? "done" : cell === filled && active ? "now" : ""} />
        ))
      )}
    </div>
  );
}

export function IconLink({ href, icon, children, primary = false }: { href: string; icon: IconName; children: ComponentChildren; primary?: boolean }) {
  return (
    <a class={`button ${primary ? "primary" : ""}`} href={href}>
      <Glyph name={icon} />
      {children}
    </a>
  );
}

export function Warnings({ texts }: { texts: readonly string[] }) {
  if (texts.length === 0) return null;
  return (
    <ul class="warnings">
      {texts.map((text) => (
        <li key={text}>
          <Glyph name="warning" />
          <span>{text}</span>
        </li>
      ))}
    </ul>
  );
}
