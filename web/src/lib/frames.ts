// Server-sent events as text: cut into frames, and read (HTML, section 9.2).

export interface Frame {
  id?: string;
  event?: string;
  data?: string;
}

/** Reads one block of a stream: the lines up to an empty one. */
export function readFrame(block: string): Frame {
  const frame: Frame = {};
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    if (colon < 1) continue;
    const value = line.slice(colon + 1).replace(/^ /, "");
    const name = line.slice(0, colon);
    if (name === "id" || name === "event") frame[name] = value;
    else if (name === "data") frame.data = frame.data === undefined ? value : `${frame.data}\n${value}`;
  }
  return frame;
}

/** Cuts text that arrives in any pieces into frames. */
export class FrameCutter {
  private waiting = "";

  take(text: string): Frame[] {
    const blocks = (this.waiting + text).replaceAll("\r\n", "\n").split("\n\n");
    this.waiting = blocks.pop() ?? "";
    return blocks.map(readFrame);
  }
}
