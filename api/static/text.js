// Turns numbers and times into short words.

export function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let value = count;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toFixed(value < 10 ? 1 : 0)} ${units[unit]}`;
}

export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

export function age(iso) {
  const seconds = (Date.now() - Date.parse(iso)) / 1000;
  if (seconds < 10) return "just now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  return new Date(iso).toLocaleDateString();
}

export const seconds = (from, to) => (Date.parse(to) - Date.parse(from)) / 1000;
export const significant = (value) => (value === null ? "–" : Number(value.toPrecision(4)).toString());
export const percent = (fraction) => `${Math.floor(fraction * 100)} %`;

export function modelName(model) {
  if (model.source === "hub") return model.revision ? `${model.repo}@${model.revision.slice(0, 8)}` : model.repo;
  return model.path === "." ? model.root : model.path;
}

export function gridName(spec) {
  const group = spec.group_size === -1 ? "per row" : `group ${spec.group_size}`;
  return `${spec.method.toUpperCase()} · ${spec.bits} bit · ${group}${spec.sym ? "" : " · asymmetric"}`;
}
