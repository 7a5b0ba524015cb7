// Follows the service's events on one connection and connects again where the last one ended. It draws nothing.
//
// Read with fetch, not with EventSource, which can carry no key.

import { openStream } from "./client.js";

const PATH = "/v1/events/stream";
const PAUSE_MS = 2000;
const PAUSE_MAX_MS = 30_000;

export class EventFeed {
  /** onEvent: called with (kind, data); onState: with whether the feed is live, so that the caller can poll otherwise. */
  constructor({ onEvent, onState }) {
    this.onEvent = onEvent;
    this.onState = onState;
    this.lastId = null;
    this.pause = PAUSE_MS;
    this.abort = null;
  }

  /** Starts following; does nothing where that is under way. */
  start() {
    if (this.abort) return;
    this.abort = new AbortController();
    this.run(this.abort.signal);
  }

  /** Gives the connection back, as a hidden page should; `start` goes on behind the last event. */
  stop() {
    this.abort?.abort();
    this.abort = null;
    this.onState(false);
  }

  async run(signal) {
    while (!signal.aborted) {
      try {
        await this.read(signal);
      } catch {
        // Whatever it was, polling goes on and shows it; here only the next try matters.
      }
      if (signal.aborted) return;
      this.onState(false);
      await new Promise((resolve) => setTimeout(resolve, this.pause));
      this.pause = Math.min(this.pause * 2, PAUSE_MAX_MS);
    }
  }

  async read(signal) {
    const response = await openStream(PATH, this.lastId, signal);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let waiting = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done || signal.aborted) return;
      const blocks = (waiting + value).split("\n\n");
      waiting = blocks.pop();
      blocks.forEach((block) => this.take(block));
    }
  }

  take(block) {
    const fields = Object.fromEntries(block.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]));
    if (fields.id) this.lastId = fields.id;
    if (fields.event === "open") {
      this.pause = PAUSE_MS;
      this.onState(true);
    } else if (fields.data) {
      this.onEvent(fields.event, JSON.parse(fields.data));
    }
  }
}
