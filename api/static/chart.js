// Draws the relative loss of each linear as dots on a log scale (plain SVG), and the same numbers as a table.

import { significant } from "./text.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH_MIN = 240;
const HEIGHT = 180;
const LEFT = 46;
const RIGHT = 8;
const TOP = 10;
const BOTTOM = 24;
// A dot is an outlier where its logarithm lies this many quartile distances above the upper quartile.
const OUTLIER_DISTANCES = 1.5;
// Below this spread (in decades) linears differ too little for any to stand out.
const SPREAD_MIN = 0.25;

function node(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function outlierLimit(logs) {
  const sorted = [...logs].sort((a, b) => a - b);
  const at = (share) => sorted[Math.floor(share * (sorted.length - 1))];
  return at(0.75) + OUTLIER_DISTANCES * Math.max(at(0.75) - at(0.25), SPREAD_MIN);
}

/** Fills `holder`; rows: linears as the API lists them. Returns how many could be drawn. */
export function drawChart(holder, rows) {
  const drawn = rows.filter((row) => row.relative_loss > 0);
  holder.replaceChildren();
  if (drawn.length === 0) return 0;
  const logs = drawn.map((row) => Math.log10(row.relative_loss));
  const low = Math.floor(Math.min(...logs));
  const high = Math.max(Math.ceil(Math.max(...logs)), low + 1);
  const limit = outlierLimit(logs);
  const width = Math.max(holder.clientWidth, WIDTH_MIN);
  const x = (index) => LEFT + ((index + 0.5) / drawn.length) * (width - LEFT - RIGHT);
  const y = (log) => TOP + ((high - log) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  const svg = node("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img" });
  svg.append(node("title", {}, `Relative loss of ${drawn.length} linears, from ${significant(10 ** Math.min(...logs))} to ${significant(10 ** Math.max(...logs))}`));
  for (let decade = low; decade <= high; decade += 1) {
    svg.append(node("line", { class: "rule", x1: LEFT, x2: width - RIGHT, y1: y(decade), y2: y(decade) }));
    svg.append(node("text", { x: LEFT - 8, y: y(decade) + 4, "text-anchor": "end" }, `1e${decade}`));
  }
  drawn.forEach((row, index) => svg.append(mark(row, x(index), y(logs[index]), logs[index] > limit)));
  const last = drawn.at(-1).block;
  svg.append(node("text", { x: LEFT, y: HEIGHT - 6 }, `block ${drawn[0].block}`));
  svg.append(node("text", { x: width - RIGHT, y: HEIGHT - 6, "text-anchor": "end" }, `block ${last}`));
  holder.append(svg);
  return drawn.length;
}

function mark(row, x, y, outlier) {
  const shape = outlier
    ? node("path", { class: "mark outlier", d: `M${x} ${y - 5}l5 9h-10z`, fill: "currentColor" })
    : node("circle", { class: "mark", cx: x, cy: y, r: 2.6, fill: "currentColor" });
  shape.append(node("title", {}, `block ${row.block}, ${row.linear}: ${significant(row.relative_loss)}`));
  return shape;
}

/** Fills `holder` with one line per linear. */
export function drawTable(holder, rows) {
  const table = document.createElement("table");
  const head = table.createTHead().insertRow();
  for (const name of ["linear", "block", "relative loss", "loss", "bits", "seconds"]) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = name;
    head.append(cell);
  }
  const body = table.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    for (const value of [row.linear, row.block, significant(row.relative_loss), significant(row.loss), row.bits, significant(row.seconds)]) {
      line.insertCell().textContent = value;
    }
  }
  holder.replaceChildren(table);
}
