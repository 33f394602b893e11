/** Uploads: whole, empty, interrupted, replaced, changed. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { openAsBlob } from "node:fs";
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import { fileStatusWord, hasReason, UploadError } from "../src/index.js";
import type { Upload } from "../src/index.js";
import { clientOf, CountingWebSocket, eventually, fileOf, KiB, MiB, observer, Proxy, TestServer } from "./support.js";

let server: TestServer;
before(async () => (server = await TestServer.start()));
after(() => server.stop());
beforeEach(() => CountingWebSocket.reset());

test("a file arrives whole, with progress that never shrinks and a full buffer never", async () => {
  const proxy = await Proxy.to(server.httpPort);
  proxy.bytesPerSecond = 24 * MiB;
  const client = clientOf(proxy.url);
  const { file, sha256 } = fileOf(24 * MiB, "näme 🎉.bin");
  const { onProgress, seen } = observer();
  const stored = await client.upload(file, { onProgress }).done;
  assert.equal(stored.sha256, sha256);
  assert.equal(stored.filename, "näme 🎉.bin");
  const received = seen.map((progress) => progress.bytesReceived);
  assert.deepEqual(received, [...received].sort((a, b) => a - b));
  assert.equal(seen.at(-1)?.state, "completed");
  assert.ok(CountingWebSocket.mostBuffered > 0 && CountingWebSocket.mostBuffered <= MiB, `${CountingWebSocket.mostBuffered}`);
  proxy.stop();
});

test("a file of 0 bytes is a file", async () => {
  const stored = await clientOf(server.url).upload(new File([], "empty")).done;
  assert.equal(fileStatusWord(stored.status), "completed");
  assert.equal(stored.sizeBytes, 0n);
});

test("a small file is put by one call, and comes back over a connection that is cut", async () => {
  const proxy = await Proxy.to(server.httpPort);
  const asked: string[] = [];
  const counting: typeof fetch = (input, init) => {
    asked.push(`${init?.method ?? "GET"} ${new URL(String(input)).pathname}`);
    return fetch(input, init);
  };
  const client = clientOf(proxy.url, { fetch: counting });
  const { file, sha256 } = fileOf(256 * KiB, "näme.bin");
  const small = await client.put(file);
  assert.deepEqual([fileStatusWord(small.status), small.sha256, small.filename], ["completed", sha256, "näme.bin"]);
  assert.deepEqual(asked, ["POST /api/v1/upload/put"]);
  await assert.rejects(client.put(fileOf(256 * KiB + 1).file), (error) => hasReason(error, "INVALID_FIELD"));

  const big = fileOf(16 * MiB);
  const { fileId } = await client.upload(big.file).done;
  const hash = createHash("sha256");
  let pieces = 0;
  for await (const bytes of client.download(fileId)) {
    hash.update(bytes);
    if (pieces++ === 0) proxy.cut();
  }
  assert.equal(hash.digest("hex"), big.sha256);
  assert.ok(asked.filter((call) => call.endsWith("/content")).length >= 2);
  const part: Uint8Array[] = [];
  for await (const bytes of client.download(fileId, { offset: MiB, length: 5 })) part.push(bytes);
  assert.deepEqual(Buffer.concat(part), Buffer.from(await big.file.slice(MiB, MiB + 5).arrayBuffer()));
  // As React Native has it: no streams.
  const whole: typeof fetch = async (input, init) => Object.defineProperty(await fetch(input, init), "body", { value: undefined });
  const streamless = clientOf(server.url, { fetch: whole });
  part.length = 0;
  for await (const bytes of streamless.download(fileId, { offset: MiB })) part.push(bytes);
  assert.deepEqual(Buffer.concat(part), Buffer.from(await big.file.slice(MiB).arrayBuffer()));
  const empty = await client.put(new File([], "empty"));
  for await (const bytes of streamless.download(empty.fileId)) assert.fail(`${bytes.length} bytes of none`);
  for await (const bytes of client.download(empty.fileId)) assert.fail(`${bytes.length} bytes of none`);
  const pending = await client.api.initiateUpload({ filename: "pending", sizeBytes: 1n });
  const next = client.download(pending.file!.fileId).next();
  await assert.rejects(next, (error) => hasReason(error, "FILE_NOT_COMPLETED"));
  proxy.stop();
});

test("small files are sent many at once, and a big one waits its turn before them", async () => {
  const client = clientOf(server.url);
  const sizes = [...Array<number>(20).fill(10), MiB, ...Array<number>(20).fill(10)];
  let most = 0;
  const onProgress = (): void => {
    const busy = [...client.active].filter(({ state, over }) => !over && state !== "queued");
    most = Math.max(most, busy.length);
  };
  const files = sizes.map((size, index) => ({ blob: new Blob([new Uint8Array(size)]), filename: `${index}` }));
  const batch = client.uploadBatch(files, { onProgress });
  await batch.done;
  assert.deepEqual(new Set(batch.uploads.map(({ state }) => state)), new Set(["completed"]));
  assert.ok(most > 4 && most <= 16, `${most}`);
});

test("a checksum that differs fails the upload", async () => {
  const upload = clientOf(server.url).upload(fileOf(1000).file, { sha256: "0".repeat(64) });
  await assert.rejects(upload.done, (error) => hasReason(error, "CHECKSUM_MISMATCH"));
  assert.equal(upload.state, "failed");
});

test("a connection that is cut is opened again where it was", async () => {
  const proxy = await Proxy.to(server.httpPort);
  proxy.bytesPerSecond = 12 * MiB;
  const { file, sha256 } = fileOf(24 * MiB);
  const { onProgress, until, seen } = observer();
  const upload = clientOf(proxy.url).upload(file, { onProgress });
  await until((progress) => progress.bytesReceived > 0);
  proxy.cut();
  const stored = await upload.done;
  proxy.stop();
  assert.equal(stored.sha256, sha256);
  assert.ok(seen.some((progress) => progress.state === "interrupted"));
  assert.equal(CountingWebSocket.urls.length, 2);
  assert.ok(Number(new URL(CountingWebSocket.urls[1]!).searchParams.get("offset")) > 0);
});

test("a server that is killed and comes back gets the rest", async () => {
  const own = await TestServer.start();
  const proxy = await Proxy.to(own.httpPort);
  proxy.bytesPerSecond = 12 * MiB;
  const { file, sha256 } = fileOf(24 * MiB);
  const { onProgress, until } = observer();
  const upload = clientOf(proxy.url).upload(file, { onProgress });
  await until((progress) => progress.bytesReceived > 0);
  await own.kill("SIGKILL");
  await until((progress) => progress.state === "interrupted");
  await own.run();
  assert.equal((await upload.done).sha256, sha256);
  proxy.stop();
  await own.stop();
});

test("a newer stream takes the file over, and the older one does not fight for it", async () => {
  const proxy = await Proxy.to(server.httpPort);
  proxy.bytesPerSecond = 4 * MiB;
  const { file } = fileOf(8 * MiB);
  const { onProgress, until } = observer();
  const first = clientOf(proxy.url).upload(file, { onProgress });
  await until((progress) => progress.bytesReceived > 0);
  const second = clientOf(server.url).upload(file, { fileId: first.fileId! });
  await assert.rejects(first.done, (error) => hasReason(error, "WRITER_REPLACED"));
  assert.equal(fileStatusWord((await second.done).status), "completed");
  proxy.stop();
});

test("a file that changes while it is uploaded is cancelled, and says so", async () => {
  const path = join(await mkdtemp(join(tmpdir(), "upload-ts-")), "changing");
  await writeFile(path, Buffer.alloc(32 * MiB, 1));
  const proxy = await Proxy.to(server.httpPort);
  proxy.bytesPerSecond = 8 * MiB;
  const { onProgress, until } = observer();
  const upload = clientOf(proxy.url).upload(await openAsBlob(path), { filename: "changing", onProgress });
  await until((progress) => progress.bytesReceived > 0);
  await writeFile(path, Buffer.alloc(32 * MiB + 1, 2));
  await assert.rejects(upload.done, (error) => hasReason(error, "FILE_CHANGED") && /choose the file again/.test(error.message));
  const file = await clientOf(server.url).api.getFile(upload.fileId!);
  assert.equal(fileStatusWord(file.status), "cancelled");
  assert.equal(file.cancelReason, "the file changed");
  proxy.stop();
});

test("a page may ask that a closed connection keeps the upload", async () => {
  const proxy = await Proxy.to(server.httpPort);
  proxy.bytesPerSecond = 4 * MiB;
  const { onProgress, until } = observer();
  const upload = clientOf(proxy.url).upload(fileOf(8 * MiB).file, { onProgress, keepOnDisconnect: true });
  await until((progress) => progress.bytesReceived > 0);
  assert.match(CountingWebSocket.urls[0]!, /on_disconnect=keep/);
  const outcome = await upload.cancel();
  assert.equal(outcome?.state, "cancelled");
  proxy.stop();
});

test("names that cannot be sent are refused here, in one sentence; composed letters are sent as one", async () => {
  const client = clientOf(server.url);
  const states: string[] = [];
  for (const name of ["", "a//b", "../x", "/x", "a\\b", "bell\u0007", "x".repeat(300), "half \ud83c emoji"]) {
    const upload: Upload = client.upload(new Blob(["x"]), { filename: name, onProgress: () => states.push(upload.state) });
    await assert.rejects(upload.done, (error) => hasReason(error, "INVALID_NAME") && /;.*\.$/.test(error.message), name);
    assert.equal(upload.fileId, undefined);
    assert.equal(states.at(-1), "failed");
  }
  const stored = await client.upload(new Blob(["x"]), { filename: "folder/e\u0301té" }).done;
  assert.equal(stored.filename, "folder/été");
});

test("the same request id announces the same file", async () => {
  const { api } = clientOf(server.url);
  const request = { filename: "twice", sizeBytes: 5n, requestId: "announce-twice" };
  const [first, second] = [await api.initiateUpload(request), await api.initiateUpload(request)];
  assert.equal(first.file?.fileId, second.file?.fileId);
  await assert.rejects(api.initiateUpload({ ...request, sizeBytes: 6n }), (error) => hasReason(error, "REQUEST_ID_REUSED"));
});

test("a server that is gone, or speaks no TLS, is told in one sentence", async () => {
  const silent = (url: string) => clientOf(url, { sleep: async () => {} }).upload(fileOf(10).file).done;
  const gone = (error: unknown) => hasReason(error, "NO_ANSWER") && /does not answer; check.*certificate/.test(error.message);
  await assert.rejects(silent("http://127.0.0.1:9"), gone);
  await assert.rejects(silent(server.url.replace("http", "https")), gone);
});

test("ten thousand files are announced at once, sent a few at a time, and one bad name stops no other", async () => {
  const client = clientOf(server.url, { concurrency: 3 });
  const files = Array.from({ length: 30 }, (_, index) => ({ blob: new Blob([`file ${index}`]), filename: `many/${index}` }));
  let most = 0;
  const onProgress = (): void => {
    const busy = [...client.active].filter(({ state, over }) => !over && state !== "queued");
    most = Math.max(most, busy.length);
  };
  const batch = client.uploadBatch([...files, { blob: new Blob(["x"]), filename: "bad\u0000name" }], { onProgress });
  assert.deepEqual(batch.refused.map(({ error }) => error.reason), ["INVALID_NAME"]);
  await batch.done;
  assert.deepEqual(new Set(batch.uploads.map(({ state }) => state)), new Set(["completed"]));
  assert.equal(most, 3);

  const tooMany = Array.from({ length: 10_001 }, (_, index) => ({ blob: new Blob(), filename: `${index}` }));
  const sentence = (error: unknown) => error instanceof UploadError && /10,001 files are too many/.test(error.message);
  await assert.rejects(client.uploadBatch(tooMany).done, sentence);
  await assert.rejects(client.uploadBatch([]).done, (error) => hasReason(error, "NO_FILES"));

  // More than a batch takes: one after the other …
  const mostlyBad = tooMany.map(({ blob }, index) => ({ blob, filename: index % 5_000 === 0 ? `${index}` : "\u0000" }));
  const seen: Upload[][] = [];
  for await (const { uploads } of client.uploadBatches(mostlyBad)) {
    assert.ok(seen.flat().every(({ over }) => over));
    seen.push([...uploads]);
  }
  assert.deepEqual(seen.map((uploads) => uploads.map(({ filename }) => filename)), [["0", "5000"], ["10000"]]);

  // … until one is cancelled here …
  const begun: number[] = [];
  for await (const full of client.uploadBatches(tooMany)) {
    begun.push(full.uploads.length);
    await full.announced;
    const outcome = await full.cancel({ reason: "too many" });
    assert.equal(outcome.state, "cancelled");
    if (outcome.state !== "cancelled") return;
    assert.equal(outcome.totalFilesInBatch, 10_000);
    await full.done;
    const states = new Map<string, number>();
    for (const { state } of full.uploads) states.set(state, (states.get(state) ?? 0) + 1);
    assert.equal(states.get("cancelled"), outcome.cancelledFilesCount, JSON.stringify([...states]));
    await eventually(() => client.active.size === 0);
  }
  assert.deepEqual(begun, [10_000]);

  // … and where somebody else cancels one, few of its files have to ask.
  CountingWebSocket.reset();
  for await (const { announced, uploads } of client.uploadBatches(tooMany)) {
    begun.push(uploads.length);
    if (uploads.length > 1) await clientOf(server.url).cancelBatch(await announced).outcome;
  }
  assert.deepEqual(begun, [10_000, 10_000, 1]);
  assert.ok(CountingWebSocket.urls.length < 1_000, `${CountingWebSocket.urls.length} sockets`);
});

test("one file does not wait for all files of a batch before it", async () => {
  const client = clientOf(server.url, { concurrency: 1 });
  const files = Array.from({ length: 40 }, (_, index) => ({ blob: new Blob([`${index}`]), filename: `before/${index}` }));
  const batch = client.uploadBatch(files);
  await batch.uploads[0]!.done;
  await client.upload(new Blob(["one"]), { filename: "one" }).done;
  assert.ok(batch.uploads.filter(({ over }) => over).length < 10);
  await batch.done;
});

test("the end of a batch lives while the batch is being sent, however long that takes", async () => {
  const impatient = await TestServer.start("--upload-ttl", "2s", "--expiry-grace", "0");
  const proxy = await Proxy.to(impatient.httpPort);
  proxy.bytesPerSecond = 350_000;
  const client = clientOf(proxy.url, { concurrency: 1 });
  const files = Array.from({ length: 5 }, (_, index) => ({ blob: fileOf(500_000).file, filename: `${index}.bin` }));
  const began = performance.now();
  const batch = client.uploadBatch(files);
  await batch.done;
  assert.deepEqual(batch.uploads.map(({ state }) => state), Array(5).fill("completed"));
  assert.ok(performance.now() - began > 2 * 2000);
  proxy.stop();
  await impatient.stop();
});
