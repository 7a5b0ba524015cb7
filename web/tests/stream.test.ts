import { afterEach, beforeEach, expect, test, vi } from "vitest";

import { FrameCutter, readFrame } from "../src/lib/frames";

test("a frame has id, event and data", () => {
  expect(readFrame('id: 7\nevent: event\ndata: {"a": 1}')).toEqual({ id: "7", event: "event", data: '{"a": 1}' });
});

test("a comment alone says nothing, one with an id moves the place", () => {
  expect(readFrame(": ")).toEqual({});
  expect(readFrame(": \nid: abc")).toEqual({ id: "abc" });
});

test("several lines of data are one text", () => {
  expect(readFrame("data: a\ndata: b").data).toBe("a\nb");
});

test("frames come whole, however the text is cut", () => {
  const text = "retry: 2000\nevent: open\ndata: {}\n\nid: 1\nevent: event\ndata: x\n\nid: 2\nevent: ev";
  for (let at = 0; at <= text.length; at += 1) {
    const cutter = new FrameCutter();
    const frames = [...cutter.take(text.slice(0, at)), ...cutter.take(text.slice(at))];
    expect(frames).toEqual([
      { event: "open", data: "{}" },
      { id: "1", event: "event", data: "x" },
    ]);
  }
});

test("carriage returns are line ends too", () => {
  expect(new FrameCutter().take("id: 1\r\ndata: x\r\n\r\n")).toEqual([{ id: "1", data: "x" }]);
});

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

test("announcements are throttled to the newest of a few seconds", async () => {
  const { announce, announced } = await import("../src/state/notices");
  for (const text of ["10%", "20%", "30%"]) announce(text);
  expect(announced.value).toBe("10%");
  vi.advanceTimersByTime(2900);
  expect(announced.value).toBe("10%");
  vi.advanceTimersByTime(200);
  expect(announced.value).toBe("30%");
});
