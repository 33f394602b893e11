// A page with Uppy, driven by a test: `start` begins, `events` is what Uppy said.
import Uppy from "@uppy/core";
import Tus from "@uppy/tus";

const events = (globalThis.events = []);
const hex = (buffer) => [...new Uint8Array(buffer)].map((byte) => byte.toString(16).padStart(2, "0")).join("");

globalThis.start = async (endpoint, size, options = {}) => {
  const data = new Uint8Array(size);
  for (let at = 0; at < size; at += 65536) crypto.getRandomValues(data.subarray(at, Math.min(size, at + 65536)));
  const uppy = (globalThis.uppy = new Uppy());
  uppy.use(Tus, { endpoint, retryDelays: Array(200).fill(100), ...options });
  uppy.on("upload-progress", (file, { bytesUploaded }) => (globalThis.sent = bytesUploaded));
  uppy.on("upload-success", (file, { uploadURL }) => events.push({ event: "success", url: uploadURL }));
  uppy.on("upload-error", (file, error, response) =>
    events.push({ event: "error", text: error.message, status: response?.status, body: response?.body?.xhr?.responseText }),
  );
  uppy.on("complete", ({ successful, failed }) =>
    events.push({ event: "complete", successful: successful.length, failed: failed.length }),
  );
  globalThis.sent = 0;
  globalThis.fileId = uppy.addFile({ name: "from uppy.bin", type: "application/octet-stream", data: new Blob([data]) });
  uppy.upload();
  return hex(await crypto.subtle.digest("SHA-256", data));
};
