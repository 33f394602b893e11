/** How callers' texts are shown. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { parts, quoted, visible } from "../src/visible.js";

// `uploadctl` shows the same texts in the same way.
const CASES = JSON.parse(readFileSync("../../tests/clients/visible.json", "utf8")) as [string, string][];

test("what is invisible, or turns what follows around, is escaped; what people write is not", () => {
  for (const [text, shown] of CASES) assert.equal(visible(text), shown, JSON.stringify(text));
});

test("a quoted text ends where it ends, whatever it says", () => {
  const sentence = `${quoted("a\u2069b\u2068")} was cancelled: “${quoted("\u202e")}”`;
  assert.deepEqual(parts(sentence), [
    { text: "a\\u2069b\\u2068", quoted: true },
    { text: " was cancelled: “", quoted: false },
    { text: "\\u202e", quoted: true },
    { text: "”", quoted: false },
  ]);
});
