// tus-js-client, driven by a test: lines of JSON out, lines of text in ("resume", "terminate").
import { createHash } from "node:crypto";
import { createInterface } from "node:readline";
import { Upload } from "tus-js-client";

const { endpoint, size, pauseAt = Infinity, options = {} } = JSON.parse(process.argv[2]);
const say = (event, more = {}) => console.log(JSON.stringify({ event, ...more }));

const data = Buffer.alloc(size, "The quick brown fox jumps over the lazy dog. ");
let paused = false;
let last = 0;
const upload = new Upload(data, {
  endpoint,
  metadata: { filename: "from node.bin", filetype: "application/octet-stream" },
  retryDelays: Array(200).fill(100),
  ...options,
  onProgress: (sent) => {
    if (sent >= last + size / 20) say("progress", { sent: (last = sent) });
    if (sent < pauseAt || paused) return;
    paused = true;
    upload.abort().then(() => say("paused", { url: upload.url }));
  },
  onAfterResponse: (request, response) =>
    say("answer", { method: request.getMethod(), status: response.getStatus(), offset: response.getHeader("Upload-Offset") }),
  onSuccess: () => say("success", { url: upload.url, sha256: createHash("sha256").update(data).digest("hex") }),
  onError: (error) => say("error", { text: error.message, body: error.originalResponse?.getBody() ?? "" }),
});

const lines = createInterface({ input: process.stdin });
lines.on("line", async (line) => {
  if (line === "resume") upload.start();
  if (line === "terminate") {
    try {
      await upload.abort(true);
      say("terminated", { url: upload.url });
    } catch (error) {
      say("error", { text: error.message });
    }
  }
});
upload.start();
