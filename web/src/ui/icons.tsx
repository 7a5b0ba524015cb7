// Our own line icons, 20 by 20, drawn with the text's colour. A state has a shape of its own beside its colour.
import type { ComponentChildren } from "preact";

import type { JobState } from "../api/types";

function Icon({ children, filled = false }: { children: ComponentChildren; filled?: boolean }) {
  const paint = filled ? { fill: "currentColor" } : { fill: "none", stroke: "currentColor", "stroke-width": "1.7" };
  return (
    <svg class="icon" viewBox="0 0 20 20" aria-hidden="true" stroke-linecap="round" stroke-linejoin="round" {...paint}>
      {children}
    </svg>
  );
}

const STROKES = {
  overview: "M3 10.5 10 4l7 6.5M5 9v7h10V9",
  jobs: "M4 5h12M4 10h12M4 15h8",
  compare: "M4 16V9m4 7V4m4 12v-5m4 5V7",
  models: "M10 3 16 6.5v7L10 17l-6-3.5v-7zM4 6.5l6 3.5 6-3.5M10 10v7",
  texts: "M5 3h7l3 3v11H5zM12 3v3h3M7.5 9.5h5M7.5 12.5h5",
  workers: "M4 5h12v4H4zM4 11h12v4H4zM7 7h.01M7 13h.01",
  keys: "M12.5 3.5a4 4 0 1 1-2.9 6.7L4 15.8V17h3v-2h2v-2l1.6-1.6M13.3 6.7h.01",
  webhooks: "M10 4v7m0 0-3 4m3-4 3 4M10 4a1.2 1.2 0 1 0 0-.01M6 16.5a1.2 1.2 0 1 0 0-.01M14 16.5a1.2 1.2 0 1 0 0-.01",
  plus: "M10 4v12M4 10h12",
  close: "M5 5l10 10M15 5 5 15",
  search: "M9 14A5 5 0 1 0 9 4a5 5 0 0 0 0 10ZM13 13l4 4",
  copy: "M7 7h9v9H7zM13 4H4v9",
  download: "M10 3v9m0 0-4-4m4 4 4-4M4 16h12",
  check: "M4 10.5 8.5 15 16 6",
  sun: "M10 13a3 3 0 1 0 0-6 3 3 0 0 0 0 6ZM10 2v1.5M10 16.5V18M2 10h1.5M16.5 10H18M4.3 4.3l1 1M14.7 14.7l1 1M4.3 15.7l1-1M14.7 5.3l1-1",
  moon: "M16 11.5A6.5 6.5 0 0 1 8.5 4 6.5 6.5 0 1 0 16 11.5Z",
  contrast: "M10 17a7 7 0 1 0 0-14 7 7 0 0 0 0 14ZM10 3v14",
  arrow: "M4 10h12m-4-4 4 4-4 4",
  retry: "M4 10a6 6 0 1 0 2-4.5M4 3v3.5h3.5",
  upload: "M10 14V5m0 0L6 9m4-4 4 4M4 16h12",
  warning: "M10 3.5 17.5 16h-15zM10 8.5v3.2M10 14h.01",
  clone: "M7 7h9v9H7zM13 4H4v9M11.5 9.5v4M9.5 11.5h4",
} as const;

export type IconName = keyof typeof STROKES;

export function Glyph({ name }: { name: IconName }) {
  return (
    <Icon>
      <path d={STROKES[name]} />
    </Icon>
  );
}

const CIRCLE = "M10 17a7 7 0 1 0 0-14 7 7 0 0 0 0 14Z";

export function StateShape({ state }: { state: JobState }) {
  switch (state) {
    case "queued":
      return (
        <Icon>
          <path d={CIRCLE} stroke-dasharray="3 3.3" />
        </Icon>
      );
    case "running":
      return (
        <Icon>
          <path d={CIRCLE} />
          <path d="M10 5.5a4.500 4.500 0 0 1 0 9z" fill="currentColor" />
        </Icon>
      );
    case "cancelling":
      return (
        <Icon>
          <path d="M10 3 17 10l-7 7-7-7zM10 7v6" />
        </Icon>
      );
    case "succeeded":
      return (
        <Icon filled>
          <path
            fill-rule="evenodd"
            d="M10 17.500a7.500 7.500 0 1 0 0-15 7.500 7.500 0 0 0 0 15Zm4.100-9.200-5 5.200a.9.9 0 0 1-1.300 0L5.500 11.100l1.300-1.300 1.600 1.700L12.800 7z"
          />
        </Icon>
      );
    case "failed":
      return (
        <Icon filled>
          <path
            fill-rule="evenodd"
            d="M6.900 2.500h6.200l4.400 4.400v6.200l-4.400 4.400H6.900l-4.400-4.400V6.900zM7.300 6 6 7.300 8.700 10 6 12.700 7.300 14l2.700-2.700 2.700 2.700 1.300-1.300-2.700-2.700L14 7.300 12.700 6 10 8.700z"
          />
        </Icon>
      );
    case "cancelled":
      return (
        <Icon>
          <path d={`${CIRCLE}M5.200 14.800l9.600-9.600`} />
        </Icon>
      );
  }
}
