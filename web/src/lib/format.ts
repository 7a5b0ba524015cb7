// Numbers, sizes and times as people read them. Pure functions; times are milliseconds since 1970 or RFC 3339 texts.

const UNITS = ["B", "kB", "MB", "GB", "TB"] as const;

export function bytes(count: number): string {
  let value = count;
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : 1;
  return `${value.toFixed(digits)} ${UNITS[unit]}`;
}

export function duration(seconds: number): string {
  const total = Math.max(0, Math.round(seconds));
  if (total < 60) return seconds > 0 && seconds < 10 ? `${seconds.toFixed(1)} s` : `${total} s`;
  const minutes = Math.floor(total / 60);
  if (minutes < 60) return `${minutes} min ${String(total % 60).padStart(2, "0")} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${String(minutes % 60).padStart(2, "0")} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export const seconds = (from: string, to: string | number): number => (new Date(to).getTime() - new Date(from).getTime()) / 1000;

export function ago(time: string, now: number): string {
  const age = Math.max(0, (now - new Date(time).getTime()) / 1000);
  if (age < 5) return "just now";
  if (age < 60) return `${Math.floor(age)} s ago`;
  if (age < 3600) return `${Math.floor(age / 60)} min ago`;
  if (age < 86_400) return `${Math.floor(age / 3600)} h ago`;
  return `${Math.floor(age / 86_400)} d ago`;
}

export function left(eta: string, now: number): string {
  const rest = (new Date(eta).getTime() - now) / 1000;
  return rest < 1 ? "any moment" : `${duration(Math.ceil(rest))} left`;
}

/** Significant digits without an exponent where it can be avoided: 0.0123, 12.15, 4,012, 3.1e-7. */
export function number(value: number, digits = 3): string {
  if (value === 0 || !Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  if (size < 1e-4) return value.toExponential(digits - 1);
  if (size >= 1000) return Math.round(value).toLocaleString("en-US");
  return String(Number(value.toPrecision(digits)));
}

export function parameters(count: number): string {
  if (count >= 1e9) return `${(count / 1e9).toFixed(1)} B`;
  if (count >= 1e6) return `${Math.round(count / 1e6)} M`;
  return `${Math.round(count / 1e3)} k`;
}

export const percent = (fraction: number): string => `${Math.floor(fraction * 100)}%`;
/** `91.3%`: a share with the digit in which good ones differ. */
export const percentOf = (share: number): string => `${(share * 100).toFixed(1)}%`;
export const plural = (count: number, one: string, many = `${one}s`): string => `${count.toLocaleString("en-US")} ${count === 1 ? one : many}`;

export function clock(time: string): string {
  return new Date(time).toLocaleTimeString(undefined, { hour12: false });
}

export function moment(time: string): string {
  const options = { dateStyle: "medium", timeStyle: "short" } as const;
  return new Date(time).toLocaleString(undefined, options);
}

const two = (part: number): string => String(part).padStart(2, "0");

/** Returns a time's day where the reader is, as a date field writes it. */
export function dayOf(time: string): string {
  const at = new Date(time);
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
}

/** Returns a time where the reader is, as a field for date and time writes it. */
export function localOf(time: string): string {
  const at = new Date(time);
  return `${dayOf(time)}T${two(at.getHours())}:${two(at.getMinutes())}`;
}

/** Returns the last second of a day where the reader is. */
export const endOfDay = (day: string): string => new Date(`${day}T23:59:59`).toISOString();

/** `desc_act_static` → `Desc act static`, `evaluate_nf4` → `Evaluate NF4`. */
export function words(name: string): string {
  const text = name.replaceAll("_", " ").replace(/\bnf4\b/, "NF4");
  return text.charAt(0).toUpperCase() + text.slice(1);
}
