// The page: follows the service's events and reads the list of jobs again when one tells of a change; polls it with its
// ETag where no stream comes. Keeps one card per job, and leaves the service alone while hidden.

import { forget, getChanged, getJson, getKey, setKey } from "./client.js";
import { isActive, JobCard } from "./card.js";
import { SubmitForm } from "./form.js";
import { EventFeed } from "./stream.js";
import { modelName } from "./text.js";

const POLL_ACTIVE_MS = 1500;
const POLL_IDLE_MS = 8000;
// Beside a live stream: only what no event tells of, such as a deleted job.
const POLL_LIVE_MS = 30_000;
// Many events that come together are answered by one look at the list.
const GATHER_MS = 150;
const HEALTH_MS = 15_000;
const find = (selector) => document.querySelector(selector);

const cards = new Map();
let listed = [];
let older = [];
let nextToken = null;
let timer = null;
let live = false;
let gathering = null;

const filterQuery = () => {
  const state = find("#state-filter").value;
  return state ? `state=${state}` : "";
};
const listPath = () => `/v1/jobs?page_size=50${filterQuery() && `&${filterQuery()}`}`;

function showProblem(error) {
  const banner = find("#banner");
  if (error?.status === 401) {
    askForKey();
    return;
  }
  banner.hidden = !error;
  if (error) banner.textContent = error.problem ? `${error.message} ${error.problem.hint || ""}`.trim() : "The service does not answer. Trying again.";
}

function announce(job) {
  find("#announcer").textContent = `${modelName(job.spec.model)} is ${job.state}.`;
}

function draw() {
  const jobs = [...listed, ...older.filter((job) => !listed.some((newer) => newer.id === job.id))];
  const list = find("#job-list");
  jobs.forEach((job, index) => {
    let card = cards.get(job.id);
    if (!card) {
      card = new JobCard(find("#job-template"), { onState: announce, onAction: refresh, onProblem: showProblem });
      cards.set(job.id, card);
    }
    card.update(job);
    if (list.children[index] !== card.element) list.insertBefore(card.element, list.children[index] || null);
  });
  const shown = new Set(jobs.map((job) => job.id));
  for (const [id, card] of cards) {
    if (shown.has(id)) continue;
    card.element.remove();
    cards.delete(id);
  }
  find("#empty").hidden = jobs.length > 0;
  find("#more").hidden = !nextToken;
}

async function poll() {
  clearTimeout(timer);
  try {
    const path = listPath();
    const page = await getChanged(path);
    if (page && path === listPath()) {
      listed = page.data;
      if (older.length === 0) nextToken = page.next_page_token;
      draw();
    }
    showProblem(null);
  } catch (error) {
    showProblem(error);
  }
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(poll, pollDelay());
}

function pollDelay() {
  if (live) return POLL_LIVE_MS;
  return listed.some(isActive) ? POLL_ACTIVE_MS : POLL_IDLE_MS;
}

function takeEvent(kind, data) {
  if (kind === "progress") {
    cards.get(data.id)?.advance(data);
    return;
  }
  gathering ??= setTimeout(() => {
    gathering = null;
    poll();
  }, GATHER_MS);
}

const feed = new EventFeed({
  onEvent: takeEvent,
  onState: (now) => {
    if (now === live) return;
    live = now;
    if (!document.hidden) poll();
  },
});

function follow() {
  if (document.hidden) {
    clearTimeout(timer);
    feed.stop();
    return;
  }
  feed.start();
  poll();
}

function refresh() {
  forget(listPath());
  return poll();
}

async function showOlder() {
  try {
    const page = await getJson(`${listPath()}&page_token=${encodeURIComponent(nextToken)}`);
    older = older.concat(page.data);
    nextToken = page.next_page_token;
    draw();
  } catch (error) {
    showProblem(error);
  }
}

async function checkHealth() {
  const health = find("#health");
  let status = "unavailable";
  try {
    status = (await (await fetch("/readyz", { cache: "no-store" })).json()).status;
  } catch {
    // No answer at all is what "unavailable" stands for.
  }
  health.dataset.status = status;
  health.querySelector(".text").textContent = status;
}

function askForKey() {
  const dialog = find("#key-dialog");
  if (dialog.open) return;
  if (getKey()) dialog.querySelector("p").textContent = "This key is not accepted: unknown, expired or revoked. Give another one.";
  dialog.showModal();
}

function moveFocus(step) {
  const all = [...document.querySelectorAll(".job")];
  const here = all.indexOf(document.activeElement?.closest(".job"));
  all[Math.min(Math.max(here + step, 0), all.length - 1)]?.focus();
}

function handleKey(event) {
  const typing = event.target.closest("input, select, textarea, dialog");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const actions = { n: () => submitForm.open(), j: () => moveFocus(1), k: () => moveFocus(-1) };
  const action = actions[event.key];
  if (!action) return;
  event.preventDefault();
  action();
}

const submitForm = new SubmitForm(find("#submit-dialog"), refresh);
find("#new-job").addEventListener("click", () => submitForm.open());
find("#more").addEventListener("click", showOlder);
find("#state-filter").addEventListener("change", () => {
  older = [];
  refresh();
});
find("#key-form").addEventListener("submit", (event) => {
  setKey(new FormData(event.target).get("key").trim());
  event.target.reset();
  feed.stop();
  refresh();
  follow();
});
document.addEventListener("keydown", handleKey);
document.addEventListener("visibilitychange", follow);
setInterval(() => cards.forEach((card) => card.tick()), 1000);
setInterval(() => document.hidden || checkHealth(), HEALTH_MS);
checkHealth();
follow();
