// What quantization cost, measured against the float model: the measures in words, then both models' answers.
import type { Evaluation } from "../api/types";
import { bytes, number, percentOf } from "../lib/format";
import { figuresOf } from "../lib/evaluation";
import { Card, Facts } from "../ui/parts";

export function EvaluationCard({ evaluation }: { evaluation: Evaluation }) {
  const figures = figuresOf(evaluation);
  const facts = factsOf(evaluation);
  return (
    <Card title="Against the float model" aside={<span class="quiet">{measuredOn(evaluation)}</span>}>
      {figures.length > 0 && (
        <div class="figures">
          {figures.map(({ value, name }) => (
            <div key={name}>
              <b>{value}</b>
              <span>{name}</span>
            </div>
          ))}
        </div>
      )}
      {evaluation.sample && <Answers sample={evaluation.sample} />}
      {facts.length > 0 && <Facts rows={facts} />}
    </Card>
  );
}

function measuredOn({ tokens, text }: Evaluation): string {
  if (tokens == null) return "";
  return `${tokens.toLocaleString("en-US")} tokens${text ? ` of ${text.startsWith("builtin:") ? "built-in text" : text}` : ""}`;
}

function Answers({ sample }: { sample: NonNullable<Evaluation["sample"]> }) {
  return (
    <section class="answers" aria-labelledby="answers-title">
      <h3 id="answers-title">Asked: {sample.prompt}</h3>
      <div class="answer-pair">
        <Answer name="Float" text={sample.float} />
        <Answer name="Quantized" text={sample.quantized} />
      </div>
    </section>
  );
}

function Answer({ name, text }: { name: string; text: string | null | undefined }) {
  return (
    <figure>
      <figcaption>{name}</figcaption>
      <blockquote>{text || "It said nothing."}</blockquote>
    </figure>
  );
}

const KERNELS: Readonly<Record<string, string>> = {
  expanded: "weights expanded to floats: a loader’s packed kernel has another rate",
  torch_int4pack: "torch’s kernel on packed weights: a loader’s kernel has a rate of its own",
};

function factsOf(evaluation: Evaluation): (readonly [string, string])[] {
  const { bytes_float: before, bytes_quantized: after, peak_rss_bytes: peak } = evaluation;
  const decode = evaluation.sample?.decode;
  const rows: (readonly [string, string])[] = [];
  if (before && after) rows.push(["Weights", `${bytes(before)} as floats, ${bytes(after)} quantized: ${percentOf(after / before)}`]);
  if (decode?.tokens_per_second_quantized != null) {
    const float = decode.tokens_per_second_float == null ? "" : `, float ${number(decode.tokens_per_second_float)}`;
    const kernel = KERNELS[decode.kernel ?? ""] ?? `kernel ${decode.kernel ?? "not told"}`;
    rows.push(["Decoding", `${number(decode.tokens_per_second_quantized)} tokens per second${float} (${decode.device ?? "device not told"}, ${kernel})`]);
  }
  if (decode?.resident_bytes != null) rows.push(["Memory while decoding", `${bytes(decode.resident_bytes)} of weights and scales, packed`]);
  const nf4 = evaluation.nf4;
  if (nf4?.missing) rows.push(["NF4 beside it", nf4.missing]);
  else if (nf4?.perplexity != null) rows.push(["NF4 beside it", nf4Words(nf4)]);
  if (peak != null) rows.push(["Peak memory", `${bytes(peak)} of the process that quantized and measured`]);
  return rows;
}

function nf4Words({ perplexity, kl_divergence: kl, top1_agreement: same, bytes: size }: NonNullable<Evaluation["nf4"]>): string {
  const told = [`perplexity ${number(perplexity!, 4)}`];
  if (kl != null) told.push(`KL divergence ${number(kl)}`);
  if (same != null) told.push(`${percentOf(same)} same next token`);
  if (size != null) told.push(bytes(size));
  return `by bitsandbytes: ${told.join(", ")}`;
}
