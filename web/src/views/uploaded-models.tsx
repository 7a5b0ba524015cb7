// The models that were uploaded to the service, to choose among, and another one as an archive.
import { api, body } from "../api/client";
import { useResource } from "../state/resource";
import { ErrorBox } from "../ui/parts";
import { ModelZone, describe } from "./model-zone";

interface Props {
  isChosen: (id: string) => boolean;
  choose: (id: string) => void;
}

export function UploadedModels({ isChosen, choose }: Props) {
  const { data, error, reload } = useResource("uploaded models", (signal) => body(api.GET("/v1/uploaded-models", { signal })));
  return (
    <>
      {error && <ErrorBox error={error} retry={reload} />}
      <ul class="folders" aria-label="Uploaded models">
        {data?.data.map((model) => (
          <li key={model.id}>
            <button type="button" aria-pressed={isChosen(model.id)} onClick={() => choose(model.id)}>
              <b>{model.name}</b>
              <small>{describe(model)}</small>
            </button>
          </li>
        ))}
      </ul>
      <ModelZone
        stored={(model) => {
          if (!isChosen(model.id)) choose(model.id);
          reload();
        }}
      />
    </>
  );
}
