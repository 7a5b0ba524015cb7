// The models that were uploaded: what each is, how long it is kept, adding, using and deleting one.
import { api, body } from "../api/client";
import type { UploadedModel } from "../api/types";
import { bytes, moment, plural } from "../lib/format";
import { hrefTo } from "../router";
import { attempt, notify } from "../state/notices";
import { useResource } from "../state/resource";
import { confirm } from "../ui/dialog";
import { Card, CopyButton, Empty, ErrorBox, Facts, Loading, PageHead } from "../ui/parts";
import { KeepControls, KeptFact } from "./keeping";
import { ModelZone } from "./model-zone";

export function ModelsView() {
  const { data, error, reload } = useResource("uploaded models", (signal) => body(api.GET("/v1/uploaded-models", { signal })));
  return (
    <>
      <PageHead title="Uploaded models" lead="For models that are neither on the hub nor in a folder that the service can read." />
      <ModelZone
        stored={(model) => {
          notify(`${model.name} is stored`);
          reload();
        }}
      />
      {error && <ErrorBox error={error} retry={reload} />}
      {!data && !error && <Loading rows={3} />}
      {data?.data.length === 0 && (
        <Empty title="No model is uploaded.">
          <p class="quiet">Jobs take models of the hub and of the service’s folders as well.</p>
        </Empty>
      )}
      <div class="cards">
        {data?.data.map((model) => (
          <ModelCard model={model} changed={reload} key={model.id} />
        ))}
      </div>
    </>
  );
}

function ModelCard({ model, changed }: { model: UploadedModel; changed: () => void }) {
  const path = { uploaded_model_id: model.id };
  const remove = async (): Promise<void> => {
    if (!(await confirm(`Delete ${model.name}?`, "Jobs on it stay with their files, but cannot be retried.", "Delete for good"))) return;
    if (await attempt(() => body(api.DELETE("/v1/uploaded-models/{uploaded_model_id}", { params: { path } })))) {
      notify("Deleted");
      changed();
    }
  };
  return (
    <Card title={model.name} aside={<span class="quiet">{model.model_type}</span>}>
      <Facts
        rows={[
          ["Size", `${bytes(model.size_bytes)} in ${plural(model.files, "file")}`],
          ["Stored", moment(model.created_at)],
          ["Kept", <KeptFact kept={model} />],
          [
            "Id",
            <span class="id-copy">
              <code class="id">{model.id.slice(-8)}</code>
              <CopyButton text={model.id} label={`Copy the id of ${model.name}`} />
            </span>,
          ],
        ]}
      />
      <p class="card-foot actions">
        <a class="button small" href={hrefTo("new", { model: model.id })} aria-description={model.name}>
          New job
        </a>
        <KeepControls
          kept={model}
          words="Until"
          name={model.name}
          change={(changes) => body(api.PATCH("/v1/uploaded-models/{uploaded_model_id}", { params: { path }, body: changes as never }))}
          changed={changed}
        />
        <button type="button" class="button small danger" aria-description={model.name} onClick={() => void remove()}>
          Delete
        </button>
      </p>
    </Card>
  );
}
