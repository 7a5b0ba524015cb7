// The measures of an evaluation, as figures with their names. A measure that an older job lacks has no figure.
import type { Evaluation } from "../api/types";
import { number, percentOf } from "./format";

export interface Figure {
  value: string;
  name: string;
}

export function figuresOf(evaluation: Evaluation): Figure[] {
  const { perplexity_float: before, perplexity_quantized: after, perplexity_ratio: ratio, kl_divergence: kl, top1_agreement: same } = evaluation;
  const figures: Figure[] = [];
  if (before != null) figures.push({ value: number(before, 4), name: "perplexity, float" });
  if (after != null) figures.push({ value: number(after, 4), name: "perplexity, quantized" });
  if (ratio != null) figures.push({ value: `× ${ratio.toFixed(3)}`, name: "ratio; 1 is no loss" });
  if (kl != null) figures.push({ value: number(kl), name: "KL divergence, nats; 0 is no loss" });
  if (same != null) figures.push({ value: percentOf(same), name: "same likeliest next token" });
  return figures;
}
