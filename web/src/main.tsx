// Starts the page: the stream of events, the keys, the view that the address names.
import { render } from "preact";

import { loadSession } from "./api/client";
import { App } from "./app";
import { startKeyboard } from "./keyboard";
import { startLive } from "./state/live";
import "./styles/tokens.css";
import "./styles/base.css";
import "./styles/controls.css";
import "./styles/frame.css";
import "./styles/views.css";

loadSession().catch(() => undefined); // what is wrong shows in the calls that follow
startLive();
startKeyboard();
render(<App />, document.getElementById("app")!);
