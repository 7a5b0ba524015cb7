import { expect, test } from "vitest";

import { ago, bytes, duration, left, number, parameters, percent, words } from "../src/lib/format";

test.each([
  [0, "0 B"],
  [999, "999 B"],
  [1000, "1.0 kB"],
  [99_940, "99.9 kB"],
  [99_960, "100 kB"],
  [118_201_344, "118 MB"],
  [999_600_000, "1.0 GB"],
  [6.872e10, "68.7 GB"],
])("%d bytes are %s", (count, text) => expect(bytes(count)).toBe(text));

test.each([
  [0, "0 s"],
  [2.44, "2.4 s"],
  [59.4, "59 s"],
  [59.6, "1 min 00 s"],
  [125, "2 min 05 s"],
  [7260, "2 h 01 min"],
  [200_000, "2 d 7 h"],
])("%d seconds are %s", (seconds, text) => expect(duration(seconds)).toBe(text));

test("times are told from now", () => {
  const now = Date.parse("2026-11-24T09:01:30Z");
  expect(ago("2026-11-24T09:01:28Z", now)).toBe("just now");
  expect(ago("2026-11-24T09:01:31Z", now)).toBe("just now");
  expect(ago("2026-11-24T08:59:00Z", now)).toBe("2 min ago");
  expect(ago("2026-11-22T08:59:00Z", now)).toBe("2 d ago");
  expect(left("2026-11-24T09:02:30Z", now)).toBe("1 min 00 s left");
  expect(left("2026-11-24T09:01:00Z", now)).toBe("any moment");
});

test.each([
  [0, "0"],
  [0.01234, "0.0123"],
  [12.1499, "12.1"],
  [4012.4, "4,012"],
  [0.000031, "3.10e-5"],
])("the number %d is written %s", (value, text) => expect(number(value)).toBe(text));

test("a share never shows a percent that is not there yet", () => {
  expect(percent(0.999)).toBe("99%");
  expect(percent(1)).toBe("100%");
});

test("names become words, counts become short", () => {
  expect(words("desc_act_static")).toBe("Desc act static");
  expect(parameters(134_515_008)).toBe("135 M");
  expect(parameters(1.24e9)).toBe("1.2 B");
});
