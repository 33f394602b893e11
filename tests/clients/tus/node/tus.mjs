// A page with tus-js-client, all its defaults, driven by a test: `start` begins, `state` is how it stands.
import { Upload } from "tus-js-client";

globalThis.start = ({ endpoint, size, options = {} }) => {
  const state = (globalThis.state = { sent: 0, ended: null, answers: [] });
  const file = new File([new Uint8Array(size)], "from a browser.bin");
  const upload = (globalThis.upload = new Upload(file, {
    endpoint,
    metadata: { filename: file.name },
    ...options,
    onProgress: (sent) => (state.sent = sent),
    onAfterResponse: (request, response) => state.answers.push([request.getMethod(), response.getStatus()]),
    onSuccess: () => (state.ended = { event: "success" }),
    onError: (error) => (state.ended = { event: "error", text: error.message, body: error.originalResponse?.getBody() ?? "" }),
  }));
  upload.start();
};
// A person picks the same file again: what is known of it is taken up.
globalThis.again = async () => {
  state.ended = null;
  const [previous] = await upload.findPreviousUploads();
  if (previous) upload.resumeFromPreviousUpload(previous);
  upload.start();
};
