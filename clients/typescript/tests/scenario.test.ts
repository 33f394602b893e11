/** The scenario that every client of the service plays: announce, upload half, watch, cancel, cancel again, unknown id. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { play } from "../examples/node-grpc/main.js";
import { fileStatusWord, hasReason } from "../src/index.js";
import { clientOf, eventually, fileOf, MiB, observer, Proxy, TestServer } from "./support.js";

let server: TestServer;
before(async () => (server = await TestServer.start()));
after(() => server.stop());

test("over HTTP and the WebSocket", async () => {
  const proxy = await Proxy.to(server.httpPort);
  proxy.bytesPerSecond = 8 * MiB;
  const client = clientOf(proxy.url);
  const { onProgress, until } = observer();
  const upload = client.upload(fileOf(48 * MiB).file, { onProgress });
  await until(({ bytesReceived }) => bytesReceived > 0);
  const words: string[] = [];
  const watch = client.watch(
    { fileIds: [upload.fileId!], untilFinal: true },
    { onEvent: (event) => event.type === "file" && words.push(fileStatusWord(event.file.status)) },
  );
  await eventually(() => words.length > 0);
  const requestId = "scenario";
  const first = await client.cancel(upload.fileId!, { reason: "only a demonstration", requestId }).outcome;
  assert.equal(first.state, "cancelled");
  await watch.done;
  assert.deepEqual(words, ["uploading", "cancelled"]);
  await assert.rejects(upload.done, (error) => hasReason(error, "UPLOAD_CANCELLED"));
  assert.deepEqual(await client.cancel(upload.fileId!, { reason: "only a demonstration", requestId }).outcome, first);
  const unknown = await client.cancel("no-such-file").outcome;
  assert.equal(unknown.state === "refused" && unknown.error.reason, "FILE_NOT_FOUND");
  proxy.stop();
});

test("over gRPC with the generated code", async () => {
  const lines: string[] = [];
  await play(`127.0.0.1:${server.grpcPort}`, (line) => lines.push(line));
  const expected = [
    "announced from node.bin",
    "Upload cancelled successfully",
    "upload: stopped by user: only a demonstration",
    "upload: ABORTED",
    "watch: cancelled",
    "the same request id: Upload cancelled successfully",
    "another: FAILED_PRECONDITION",
    "an unknown id: NOT_FOUND",
  ];
  for (const line of expected) assert.ok(lines.includes(line), `${line} is not in ${JSON.stringify(lines)}`);
});
