// One job on the page: keeps its elements and writes only what has changed, so that nothing jumps while it runs.

import { drawChart, drawTable } from "./chart.js";
import { followLink, getJson, postJson } from "./client.js";
import { age, bytes, duration, gridName, modelName, percent, seconds, significant } from "./text.js";

const ACTIVE = new Set(["queued", "running", "cancelling"]);
const RETRYABLE = new Set(["failed", "cancelled"]);
const LINEAR_PAGES_MAX = 4;
// A running job changes with every linear; its open details follow at this pace.
const DETAILS_MS = 5000;

export const isActive = (job) => ACTIVE.has(job.state);

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export class JobCard {
  /** onState: called with the job when its state has changed; onAction: after a button; onProblem: with the error. */
  constructor(template, { onState, onAction, onProblem }) {
    this.element = template.content.firstElementChild.cloneNode(true);
    this.onState = onState;
    this.onAction = onAction;
    this.onProblem = onProblem;
    this.detailsVersion = null;
    this.detailsAt = 0;
    this.find(".cancel").addEventListener("click", () => this.act("cancel"));
    this.find(".retry").addEventListener("click", () => this.act("retry"));
    this.find(".archive").addEventListener("click", (event) => this.download(event));
    this.find(".toggle").addEventListener("click", () => this.toggleDetails());
  }

  find(selector) {
    return this.element.querySelector(selector);
  }

  /** Shows a job; the same card is always given the same job's newer versions. */
  update(job) {
    const before = this.job;
    this.job = job;
    if (before && before.version === job.version) return;
    this.element.dataset.state = job.state;
    this.element.setAttribute("aria-label", `${modelName(job.spec.model)}, ${job.state}`);
    this.find(".state use").setAttribute("href", `#s-${job.state}`);
    setText(this.find(".state-text"), job.state);
    setText(this.find(".model"), modelName(job.spec.model));
    setText(this.find(".grid"), gridName(job.spec));
    this.showLabels();
    this.showProgress();
    this.showError();
    this.find(".cancel").hidden = !(job.state === "queued" || job.state === "running");
    this.find(".retry").hidden = !RETRYABLE.has(job.state);
    const archive = this.find(".archive");
    archive.hidden = job.state !== "succeeded";
    archive.href = job.links.archive;
    archive.download = `${job.id}.zip`;
    this.tick();
    if (before && before.state !== job.state) this.onState(job);
  }

  /** Shows what a stream tells of a running job between two answers of the list. */
  advance(progress) {
    if (!this.job || progress.version <= this.job.version) return;
    const { version, state, stage, attempt, heartbeat_at } = progress;
    const shown = Object.fromEntries(Object.keys(this.job.progress).map((name) => [name, progress[name]]));
    this.update({ ...this.job, version, state, stage, attempt, heartbeat_at, progress: shown });
  }

  toggleDetails() {
    const details = this.find(".details");
    details.hidden = !details.hidden;
    this.find(".toggle").setAttribute("aria-expanded", String(!details.hidden));
    this.refreshDetails();
  }

  /** Writes what depends on the clock alone. */
  tick() {
    const { job } = this;
    const time = this.find(".age");
    time.dateTime = job.created_at;
    time.title = new Date(job.created_at).toLocaleString();
    setText(time, this.ageText());
    const left = job.progress.eta_at && job.state === "running" ? seconds(new Date().toISOString(), job.progress.eta_at) : null;
    setText(this.find(".eta"), left === null ? "" : left > 0 ? `about ${duration(left)} left` : "almost done");
    this.refreshDetails();
  }

  ageText() {
    const { job } = this;
    if (job.finished_at && job.started_at) return `took ${duration(seconds(job.started_at, job.finished_at))}, ${age(job.finished_at)}`;
    return age(job.created_at);
  }

  showLabels() {
    const texts = Object.entries(this.job.labels).map(([key, value]) => (value ? `${key}: ${value}` : key));
    const labels = texts.map((text) => Object.assign(document.createElement("span"), { textContent: text }));
    this.find(".labels").replaceChildren(...labels);
  }

  showProgress() {
    const { progress, state, stage } = this.job;
    this.find(".progress").hidden = !isActive(this.job);
    const bar = this.find("progress");
    bar.value = progress.fraction;
    bar.setAttribute("aria-label", `Progress of ${modelName(this.job.spec.model)}`);
    setText(this.find(".percent"), state === "queued" ? "" : percent(progress.fraction));
    setText(this.find(".doing"), state === "queued" ? "waiting for a worker" : this.doing(stage, progress));
  }

  doing(stage, progress) {
    const parts = [stage || "starting"];
    if (progress.blocks_total) parts.push(`block ${progress.blocks_done} of ${progress.blocks_total}`);
    if (progress.last_loss !== null) parts.push(`loss ${significant(progress.last_loss)}`);
    return parts.join(" · ");
  }

  showError() {
    const { error } = this.job;
    this.find(".error").hidden = !error;
    if (!error) return;
    const block = error.block === null ? null : `block ${error.block}`;
    const place = [error.stage, block, error.linear].filter((part) => part && !error.message.includes(part)).join(", ");
    setText(this.find(".message"), place ? `${error.message} (${place})` : error.message);
    setText(this.find(".error .hint"), error.hint);
  }

  async act(verb) {
    const button = this.find(`.${verb}`);
    button.disabled = true;
    try {
      this.update(await postJson(`${this.job.links.self}:${verb}`));
      this.onAction();
    } catch (error) {
      this.onProblem(error);
    } finally {
      button.disabled = false;
    }
  }

  async download(event) {
    try {
      await followLink(event);
    } catch (error) {
      this.onProblem(error);
    }
  }

  async refreshDetails() {
    if (this.find(".details").hidden || this.detailsVersion === this.job.version) return;
    if (this.job.state === "running" && Date.now() - this.detailsAt < DETAILS_MS) return;
    this.detailsVersion = this.job.version;
    this.detailsAt = Date.now();
    this.showNumbers();
    this.showWarnings();
    try {
      await Promise.all([this.showFiles(), this.showLosses()]);
    } catch (error) {
      this.onProblem(error);
    }
  }

  showNumbers() {
    const { job } = this;
    const calibration = job.spec.calibration;
    const rows = [
      ["Job", job.id],
      ["Order", job.spec.order],
      ["Calibration", calibration && `${calibration.samples} × ${calibration.seq_len} tokens, seed ${calibration.seed}`],
      ["Attempt", job.attempt ? `${job.attempt}, ${job.failures} of ${job.max_attempts} failures` : null],
      ["Memory", job.progress.rss_bytes && bytes(job.progress.rss_bytes)],
      ...Object.entries(job.evaluation || {}).map(([name, value]) => [name.replaceAll("_", " "), evaluationText(value)]),
    ];
    const items = rows.filter(([, value]) => value).map(([name, value]) => {
      const pair = document.createElement("div");
      pair.className = name === "Job" ? "wide" : "";
      pair.append(Object.assign(document.createElement("dt"), { textContent: name }));
      pair.append(Object.assign(document.createElement("dd"), { textContent: value }));
      return pair;
    });
    this.find(".numbers").replaceChildren(...items);
  }

  showWarnings() {
    const items = this.job.warnings.map((warning) => Object.assign(document.createElement("li"), { textContent: warning.message || warning.code }));
    const list = this.find(".warnings");
    list.hidden = items.length === 0;
    list.replaceChildren(...items);
  }

  async showFiles() {
    if (this.job.state !== "succeeded") return;
    const { data } = await getJson(this.job.links.artifacts);
    this.find(".files").hidden = data.length === 0;
    this.find(".files ul").replaceChildren(...data.map((file) => this.fileLine(file)));
  }

  fileLine(file) {
    const line = document.createElement("li");
    const link = Object.assign(document.createElement("a"), { href: file.content, textContent: file.name, download: file.name });
    link.addEventListener("click", (event) => this.download(event));
    const size = Object.assign(document.createElement("span"), { className: "size", textContent: bytes(file.size_bytes) });
    const hash = Object.assign(document.createElement("code"), { textContent: `sha256 ${file.sha256.slice(0, 12)}…`, title: file.sha256 });
    line.append(link, size, hash);
    return line;
  }

  async showLosses() {
    const rows = [];
    let token = null;
    for (let page = 0; page < LINEAR_PAGES_MAX; page += 1) {
      const query = token ? `?page_size=1000&page_token=${encodeURIComponent(token)}` : "?page_size=1000";
      const answer = await getJson(this.job.links.linears + query);
      rows.push(...answer.data);
      token = answer.next_page_token;
      if (!token) break;
    }
    // Shown first: the chart is drawn for the width that it has.
    this.find(".loss").hidden = false;
    this.find(".loss").hidden = drawChart(this.find(".chart"), rows) === 0;
    drawTable(this.find(".chart-table .scroll"), rows);
  }
}

function evaluationText(value) {
  if (typeof value === "number") return significant(value);
  return typeof value === "string" ? value : JSON.stringify(value);
}
