// What quantization cost, measured against the float model. The known measures come first and in words; others follow.
import { number, words } from "../lib/format";
import { Card, Facts } from "../ui/parts";

type Evaluation = Record<string, unknown>;

const HEADLINES = ["perplexity_float", "perplexity_quantized", "perplexity_ratio"];

function show(value: unknown): string {
  if (typeof value === "number") return number(value, 4);
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

export function EvaluationCard({ evaluation }: { evaluation: Evaluation }) {
  const float = evaluation["perplexity_float"];
  const quantized = evaluation["perplexity_quantized"];
  const ratio = evaluation["perplexity_ratio"];
  const rest = Object.entries(evaluation).filter(([name, value]) => !HEADLINES.includes(name) && value !== null);
  return (
    <Card title="Against the float model">
      {typeof float === "number" && typeof quantized === "number" && (
        <div class="figures">
          <div>
            <b>{number(float, 4)}</b>
            <span>perplexity, float</span>
          </div>
          <div>
            <b>{number(quantized, 4)}</b>
            <span>perplexity, quantized</span>
          </div>
          {typeof ratio === "number" && (
            <div>
              <b>× {ratio.toFixed(3)}</b>
              <span>ratio; 1 is no loss</span>
            </div>
          )}
        </div>
      )}
      <Facts rows={rest.map(([name, value]) => [words(name), <span class="wrap">{show(value)}</span>] as const)} />
    </Card>
  );
}
