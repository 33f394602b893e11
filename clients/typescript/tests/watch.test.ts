/** Watches: states, resumption, ends. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { fileStatusWord, hasReason } from "../src/index.js";
import { plainSleep } from "../src/pause.js";
import type { WatchEvent } from "../src/index.js";
import { clientOf, eventually, fileOf, Proxy, TestServer } from "./support.js";

let server: TestServer;
before(async () => (server = await TestServer.start()));
after(() => server.stop());

/** What a watch told, as `status` words of files. */
const words = (events: readonly WatchEvent[]): string[] =>
  events.flatMap((event) => (event.type === "file" ? [fileStatusWord(event.file.status)] : []));

test("current state, a bookmark, every change, and the end after the final state", async () => {
  const client = clientOf(server.url);
  const { file } = await client.api.initiateUpload({ filename: "x", sizeBytes: 1000n });
  const events: WatchEvent[] = [];
  const watch = client.watch({ fileIds: [file!.fileId], untilFinal: true }, { onEvent: (event) => events.push(event) });
  await eventually(() => events.some(({ type }) => type === "bookmark"));
  assert.deepEqual(words(events), ["pending"]);
  await client.upload(fileOf(1000).file, { fileId: file!.fileId }).done;
  await watch.done;
  assert.equal(words(events).at(-1), "completed");
  assert.equal(watch.state, "ended");

  const again: WatchEvent[] = [];
  const targets = { fileIds: [file!.fileId], untilFinal: true, resumeToken: watch.resumeToken };
  await client.watch(targets, { onEvent: (event) => again.push(event) }).done;
  assert.deepEqual(again, [], "nothing was left: 204 ended it");
});

test("an unknown id is refused with its reason", async () => {
  const watch = clientOf(server.url).watch({ fileIds: ["no-such-file"] }, { onEvent: () => {} });
  await assert.rejects(watch.done, (error) => hasReason(error, "FILE_NOT_FOUND"));
});

test("a cut connection and a restarted server leave no hole", async () => {
  const own = await TestServer.start();
  const proxy = await Proxy.to(own.httpPort);
  const events: WatchEvent[] = [];
  const states: string[] = [];
  const client = clientOf(proxy.url);
  const direct = clientOf(own.url);
  const watch = client.watch(
    { all: true },
    { onEvent: (event) => events.push(event), onState: (state) => states.push(state) },
  );
  await eventually(() => watch.state === "live");
  const cancelNew = async (): Promise<void> => {
    const { file } = await direct.api.initiateUpload({ filename: "x", sizeBytes: 1n });
    await direct.cancel(file!.fileId).outcome;
  };
  await cancelNew();
  await eventually(() => words(events).length === 2);
  proxy.down = true;
  proxy.cut();
  await cancelNew();
  proxy.down = false;
  await eventually(() => words(events).includes("cancelled") && words(events).filter((w) => w === "cancelled").length === 2);
  await own.kill("SIGTERM");
  await own.run();
  await cancelNew();
  await eventually(() => words(events).filter((word) => word === "cancelled").length === 3);
  assert.ok(states.filter((state) => state === "waiting").length >= 2);
  const revisions = events.flatMap((event) => (event.type === "file" ? [`${event.file.fileId} ${event.file.revision}`] : []));
  assert.equal(new Set(revisions).size, revisions.length, "no revision came twice");
  watch.stop();
  await watch.done;
  proxy.stop();
  await own.stop();
});

test("progress comes only when it is asked for", async () => {
  const client = clientOf(server.url);
  const events: WatchEvent[] = [];
  const { file } = await client.api.initiateUpload({ filename: "x", sizeBytes: 20n * 1024n * 1024n });
  const targets = { fileIds: [file!.fileId], untilFinal: true, progressIntervalMs: 100 };
  const watch = client.watch(targets, { onEvent: (event) => events.push(event) });
  await eventually(() => watch.state === "live");
  await client.upload(fileOf(20 * 1024 * 1024).file, { fileId: file!.fileId }).done;
  await watch.done;
  assert.ok(events.some(({ type }) => type === "progress"));
});

test("a watch makes way for a call without an answer, and comes back though the call hangs", async () => {
  const events: WatchEvent[] = [];
  const states: string[] = [];
  const hanging = new AbortController();
  const client = clientOf(server.url, {
    sleep: (milliseconds, signal) => plainSleep(milliseconds / 10, signal),
    fetch: (input, init) => {
      if (!String(input).includes("/api/v1/files")) return fetch(input, init);
      return new Promise((_, reject) => hanging.signal.addEventListener("abort", () => reject(new Error("over"))));
    },
  });
  const watch = client.watch(
    { all: true },
    { onEvent: (event) => events.push(event), onState: (state) => states.push(state) },
  );
  await eventually(() => watch.state === "live");
  const call = client.api.listFiles({}, { retries: 0 });
  await eventually(() => states.join() === "live,waiting,live");
  const { file } = await client.api.initiateUpload({ filename: "told all the same", sizeBytes: 1n });
  await eventually(() => events.some((event) => event.type === "file" && event.file.fileId === file!.fileId));
  hanging.abort();
  await assert.rejects(call, (error) => hasReason(error, "NO_ANSWER"));
  watch.stop();
  await watch.done;
});
