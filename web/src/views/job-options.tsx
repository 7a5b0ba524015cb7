// The options of a job as cards: what the chosen methods have, the calibration, the result.
import { type Field, type Sections, type Values, appliesTo } from "../lib/fields";
import { FieldInput } from "../ui/field";
import { CalibrationSource } from "./calibration";

interface Props {
  title: string;
  sections: Sections;
  /** Chosen methods: what none of them has is not shown. */
  methods: readonly unknown[];
  values: Values;
  refusals: Record<string, string>;
  onChange: (values: Values) => void;
}

export function OptionCards({ title, sections, methods, values, refusals, onChange }: Props) {
  const input = (field: Field) => <FieldInput key={field.path} field={field} values={values} refused={refusals[field.path]} onChange={onChange} />;
  const shown = (fields: readonly Field[]): Field[] => fields.filter((field) => methods.some((method) => appliesTo(field, method)));
  const calibration = shown(sections.calibration);
  const source = calibration.find(({ name }) => name === "set");
  return (
    <>
      <fieldset class="card form-section">
        <legend>{title}</legend>
        <div class="fields">{shown(sections.basics).map(input)}</div>
        <More name={`All options of the ${methods.length > 1 ? "methods" : "method"}`} fields={shown(sections.method)} values={values} refusals={refusals}>
          {input}
        </More>
      </fieldset>
      {calibration.length > 0 && (
        <fieldset class="card form-section">
          <legend>Calibration</legend>
          <CalibrationSource known={source?.examples ?? []} values={values} refused={refusals["calibration/set"]} onChange={onChange} />
          <div class="fields">{calibration.filter((field) => field !== source).map(input)}</div>
        </fieldset>
      )}
      <fieldset class="card form-section">
        <legend>Result</legend>
        <div class="fields">{shown(sections.result).map(input)}</div>
        <More name="Deadline, labels, needs and the rest" fields={shown(sections.job)} values={values} refusals={refusals}>
          {input}
        </More>
      </fieldset>
    </>
  );
}

interface MoreProps {
  name: string;
  fields: readonly Field[];
  values: Values;
  refusals: Record<string, string>;
  children: (field: Field) => preact.JSX.Element;
}

function More({ name, fields, values, refusals, children }: MoreProps) {
  const paths = fields.flatMap((field) => [field, ...field.fields]).map(({ path }) => path);
  const touched = paths.filter((path) => path in values).length;
  const refused = paths.some((path) => path in refusals);
  return (
    <details class="more-options" open={touched > 0 || refused}>
      <summary>
        {name}
        {touched > 0 && <span class="count">{touched} changed</span>}
      </summary>
      <div class="fields">{fields.map(children)}</div>
    </details>
  );
}
