// The submit form: its defaults come from the OpenAPI document, its errors go beside the fields that the API names.

import { getJson, postJson, submitJob, upload, ProblemError } from "./client.js";
import { bytes } from "./text.js";

const NUMBERS = ["group_size"];
const CALIBRATION_NUMBERS = ["samples", "seq_len", "seed"];
const ORDER_WORDS = {
  desc_act_static: "by activation, static groups",
  desc_act: "by activation",
  natural_static: "natural, static groups",
  natural: "natural",
};

export class SubmitForm {
  /** onSubmitted: called with the new job. */
  constructor(dialog, onSubmitted) {
    this.dialog = dialog;
    this.form = dialog.querySelector("form");
    this.onSubmitted = onSubmitted;
    this.uploaded = null;
    this.ready = false;
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.run(() => this.submit());
    });
    this.form.addEventListener("change", () => this.arrange());
    dialog.querySelector("#check").addEventListener("click", () => this.run(() => this.check()));
    dialog.querySelector("#submit-close").addEventListener("click", () => dialog.close());
  }

  async open() {
    this.clearProblems();
    this.dialog.showModal();
    if (!this.ready) await this.run(() => this.loadDefaults());
    this.arrange();
    this.form.elements.model.focus();
  }

  async loadDefaults() {
    const { schemas } = (await getJson("/openapi.json")).components;
    const fields = this.form.elements;
    const options = schemas.JobRequest.properties;
    const calibration = schemas.CalibrationOptions.properties;
    for (const name of NUMBERS) fields[name].value = options[name].default;
    for (const name of CALIBRATION_NUMBERS) fields[name].value = calibration[name].default;
    fields.bits.value = options.bits.default;
    fields.sym.checked = options.sym.default;
    const orders = schemas.Order.enum.map((value) => new Option(ORDER_WORDS[value] || value, value, false, value === options.order.default));
    fields.order.replaceChildren(...orders);
    this.ready = true;
  }

  arrange() {
    const fields = this.form.elements;
    const local = fields.source.value === "path";
    const gptq = fields.method.value === "gptq";
    const label = fields.model.closest("label");
    label.querySelector("span").textContent = local ? "Folder" : "Repository";
    label.querySelector("small").textContent = local
      ? "Under one of the allowed model roots: an absolute path, or relative to a root."
      : "owner/name, with @revision if you like; the worker fetches it.";
    fields.order.closest("label").hidden = !gptq;
    this.form.querySelector(".calibration").hidden = !gptq;
    this.form.querySelector(".upload").hidden = fields.calibration.value !== "upload";
  }

  body(calibrationSet) {
    const fields = this.form.elements;
    const body = {
      model: this.model(),
      method: fields.method.value,
      bits: Number(fields.bits.value),
      group_size: number(fields.group_size),
      sym: fields.sym.checked,
      targets: [...fields.targets].filter((box) => box.checked).map((box) => box.value),
      evaluate: fields.evaluate.checked,
    };
    if (body.method !== "gptq") return body;
    const calibration = Object.fromEntries(CALIBRATION_NUMBERS.map((name) => [name, number(fields[name])]));
    return { ...body, order: fields.order.value, calibration: { set: calibrationSet, ...calibration } };
  }

  model() {
    const fields = this.form.elements;
    const text = fields.model.value.trim();
    if (fields.source.value === "path") return { source: "path", path: text };
    const [repo, revision] = text.split("@");
    return revision ? { source: "hub", repo, revision } : { source: "hub", repo };
  }

  /** Returns the set's id; a file is uploaded once, however often the form is sent. */
  async calibrationSet() {
    const fields = this.form.elements;
    if (fields.method.value !== "gptq" || fields.calibration.value === "builtin") return "builtin";
    const [file] = fields.file.files;
    if (!file) throw new ProblemError(0, { detail: "Choose a calibration file.", errors: [{ pointer: "#/file", detail: "no file is chosen" }] });
    if (this.uploaded?.file !== file) this.uploaded = { file, id: (await upload(file)).id };
    return this.uploaded.id;
  }

  async check() {
    const answer = await postJson("/v1/jobs?validate_only=true", this.body(await this.calibrationSet()));
    const panel = this.form.querySelector(".preflight");
    const { estimate } = answer;
    const line = document.createElement("p");
    line.textContent = estimate
      ? `Fits. Artifact at most ${bytes(estimate.artifact_bytes)}; memory up to ${bytes(estimate.ram_bytes)}, disk up to ${bytes(estimate.disk_bytes)}.`
      : "The options are fine. The model is checked once a worker has fetched it.";
    const list = document.createElement("ul");
    list.append(...answer.warnings.map((warning) => Object.assign(document.createElement("li"), { textContent: warning })));
    panel.replaceChildren(line, list);
    panel.hidden = false;
  }

  async submit() {
    const job = await submitJob(this.body(await this.calibrationSet()));
    this.dialog.close();
    this.onSubmitted(job);
  }

  async run(action) {
    this.clearProblems();
    const buttons = this.form.querySelectorAll("footer .button");
    buttons.forEach((button) => { button.disabled = true; });
    try {
      await action();
    } catch (error) {
      this.showProblem(error);
    } finally {
      buttons.forEach((button) => { button.disabled = false; });
    }
  }

  clearProblems() {
    this.form.querySelector(".form-error").hidden = true;
    this.form.querySelector(".preflight").hidden = true;
    this.form.querySelectorAll(".problem").forEach((note) => note.remove());
    this.form.querySelectorAll(".invalid").forEach((field) => field.classList.remove("invalid"));
    this.form.querySelectorAll("[aria-invalid]").forEach((input) => input.removeAttribute("aria-invalid"));
  }

  showProblem(error) {
    const problem = error.problem || {};
    const unplaced = (problem.errors || []).filter((item) => !this.place(item));
    const summary = this.form.querySelector(".form-error");
    const texts = [problem.hint || error.message, ...unplaced.map((item) => `${item.pointer || item.parameter || item.header}: ${item.detail}`)];
    summary.textContent = texts.join(" ");
    summary.hidden = false;
    const first = this.form.querySelector(".invalid input, .invalid select");
    (first || summary).scrollIntoView({ block: "nearest" });
    first?.focus();
  }

  /** Puts one of the API's field errors beside its field; returns whether there is such a field. */
  place(item) {
    const fields = [...this.form.querySelectorAll("[data-pointer]")];
    const field = fields.find((one) => item.pointer === one.dataset.pointer || item.pointer?.startsWith(`${one.dataset.pointer}/`));
    if (!field) return false;
    field.classList.add("invalid");
    field.querySelector("input, select")?.setAttribute("aria-invalid", "true");
    field.append(Object.assign(document.createElement("span"), { className: "problem", textContent: item.detail }));
    return true;
  }
}

/** An empty or odd text is sent as it stands, so that the API says what is wrong with it. */
function number(input) {
  const text = input.value.trim().replace("−", "-");
  return /^-?\d+$/.test(text) ? Number(text) : text;
}
