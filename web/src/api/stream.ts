// Follows the service's events on one connection and connects again where the last one ended. It draws nothing.
// Read with fetch, not with EventSource, which forgets the last event when it is closed.
import { type Frame, FrameCutter } from "../lib/frames";
import { fetchPath } from "./client";

const PATH = "/v1/events/stream";
const PAUSE_MS = 1000;
const PAUSE_MAX_MS = 15_000;

export interface FeedListener {
  /** kind: `event`, `progress` or `reset`. */
  onFrame(kind: string, data: unknown): void;
  onLive(live: boolean): void;
}

export class EventFeed {
  private lastId: string | undefined;
  private pause = PAUSE_MS;
  private abort: AbortController | undefined;

  constructor(private readonly listener: FeedListener) {}

  /** Starts following; does nothing where that is under way. */
  start(): void {
    if (this.abort) return;
    this.abort = new AbortController();
    void this.run(this.abort.signal);
  }

  /** Gives the connection back, as a hidden page should; `start` goes on behind the last event. */
  stop(): void {
    this.abort?.abort();
    this.abort = undefined;
  }

  private async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await this.read(signal);
      } catch {
        // Whatever it was shows in the page's own calls; here only the next try matters.
      }
      if (signal.aborted) return;
      this.listener.onLive(false);
      await new Promise((resolve) => setTimeout(resolve, this.pause));
      this.pause = Math.min(this.pause * 2, PAUSE_MAX_MS);
    }
  }

  private async read(signal: AbortSignal): Promise<void> {
    const headers: Record<string, string> = this.lastId ? { "Last-Event-ID": this.lastId } : {};
    const response = await fetchPath(PATH, { headers, signal, cache: "no-store" });
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
    const cutter = new FrameCutter();
    for (;;) {
      const { value, done } = await reader.read();
      if (done || signal.aborted) return;
      for (const frame of cutter.take(value)) this.take(frame);
    }
  }

  private take(frame: Frame): void {
    if (frame.id !== undefined) this.lastId = frame.id;
    if (frame.event === "open") {
      this.pause = PAUSE_MS;
      this.listener.onLive(true);
    } else if (frame.event && frame.data !== undefined) {
      this.listener.onFrame(frame.event, JSON.parse(frame.data));
    }
  }
}
