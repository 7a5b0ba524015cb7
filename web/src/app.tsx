// Chooses the view that the address names.
import { useEffect, useRef } from "preact/hooks";

import { place } from "./router";
import { Frame } from "./ui/frame";
import { Empty, PageHead, expectHeading } from "./ui/parts";
import { CompareView } from "./views/compare";
import { JobView } from "./views/job";
import { JobsView } from "./views/jobs";
import { KeysView } from "./views/keys";
import { ModelsView } from "./views/models";
import { NewBatchView } from "./views/new-batch";
import { NewJobView } from "./views/new-job";
import { OverviewView } from "./views/overview";
import { TextsView } from "./views/texts";
import { WebhooksView } from "./views/webhooks";
import { WorkersView } from "./views/workers";

function view() {
  const [first = "", second] = place.value.path;
  switch (first) {
    case "":
      return <OverviewView />;
    case "jobs":
      return second ? <JobView id={second} key={second} /> : <JobsView />;
    case "new":
      return <NewJobView key={place.value.query.toString()} />;
    case "batch":
      return <NewBatchView />;
    case "compare":
      return <CompareView />;
    case "models":
      return <ModelsView />;
    case "texts":
      return <TextsView />;
    case "workers":
      return <WorkersView />;
    case "keys":
      return <KeysView />;
    case "webhooks":
      return <WebhooksView />;
    default:
      return (
        <>
          <PageHead title="Not found" />
          <Empty title="There is no such page.">
            <a href="#/">Go to the overview</a>
          </Empty>
        </>
      );
  }
}

export function App() {
  const path = place.value.path.join("/");
  const shown = useRef(path);
  if (shown.current !== path) {
    shown.current = path;
    expectHeading();
  }
  useEffect(() => scrollTo(0, 0), [path]);
  return <Frame>{view()}</Frame>;
}
