/** A lost connection: the page tries, and the server waits, for as long; and what people read when it was too long. */

import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { hasReason } from "../src/index.js";
import { WebSocket as NodeWebSocket } from "ws";
import { clientOf, CountingWebSocket, eventually, fileOf, MiB, observer, Proxy, TestServer } from "./support.js";

let server: TestServer;
// Its own grace is shorter than anybody asks for, and its longest shorter than the client's patience.
before(async () => (server = await TestServer.start("--websocket-grace", "300ms", "--max-websocket-grace", "2m")));
after(() => server.stop());
beforeEach(() => CountingWebSocket.reset());

test("the server is asked to wait as long as the page tries", async () => {
  await clientOf(server.url).upload(fileOf(1000).file, { offlineMs: 90_000 }).done;
  assert.deepEqual(CountingWebSocket.urls.map((url) => new URL(url).searchParams.get("grace")), ["90000ms"]);
});

test("a server that waits less is believed", async () => {
  await clientOf(server.url).upload(fileOf(1000).file).done;
  const asked = CountingWebSocket.urls.map((url) => new URL(url).searchParams.get("grace"));
  assert.deepEqual(asked, ["300000ms", "120000ms"]);
});

test("a network that was away for longer than the server would wait by itself ends nothing", async () => {
  const proxy = await Proxy.to(server.httpPort);
  proxy.bytesPerSecond = 4 * MiB;
  const { file, sha256 } = fileOf(8 * MiB);
  const { onProgress, until } = observer();
  const upload = clientOf(proxy.url).upload(file, { onProgress, offlineMs: 60_000 });
  await until((progress) => progress.bytesReceived > 0);
  proxy.down = true;
  proxy.cut();
  await new Promise((resolve) => setTimeout(resolve, 2_000));
  proxy.down = false;
  upload.wake();
  assert.equal((await upload.done).sha256, sha256);
  proxy.stop();
});

test("what people read of a page that was closed or lost is a sentence", async () => {
  for (const [end, said] of [
    [(socket: NodeWebSocket) => socket.close(1001), "the page was closed"],
    [(socket: NodeWebSocket) => socket.terminate(), "the connection was lost for more than 0.3 s"],
    [(socket: NodeWebSocket) => socket.close(4000, "not wanted"), "not wanted"],
  ] as const) {
    const client = clientOf(server.url);
    const { file } = fileOf(1000);
    const { file: announced } = await client.api.initiateUpload({ filename: "a.bin", sizeBytes: 1000n });
    const socket = new NodeWebSocket(`${server.url.replace("http", "ws")}/api/v1/upload/ws/${announced!.fileId}`);
    await new Promise((resolve) => socket.once("message", resolve));
    socket.send(new Uint8Array(10));
    await eventually(async () => (await client.api.getFile(announced!.fileId)).bytesReceived === 10n);
    end(socket);
    await eventually(async () => (await client.api.getFile(announced!.fileId)).cancelledBy === "websocket_close");
    const upload = client.upload(file, { fileId: announced!.fileId });
    await assert.rejects(upload.done, (error) => hasReason(error, "UPLOAD_CANCELLED"));
    assert.match(upload.error!.message, /^The upload was cancelled with its page's connection \(/);
    assert.ok(upload.error!.message.includes(said) && !upload.error!.message.includes("websocket_close"), upload.error!.message);
  }
});
