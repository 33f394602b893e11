/** Cancels: which way worked, what is final, what is not known. */

import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { fileStatusWord, hasReason, newTraceparent } from "../src/index.js";
import type { Upload, UploadClient } from "../src/index.js";
import { clientOf, CountingWebSocket, eventually, faultyFetch, fileOf, MiB, observer, Proxy, TestServer } from "./support.js";
import type { Fault } from "./support.js";

let server: TestServer;
let proxy: Proxy;
before(async () => {
  server = await TestServer.start();
  proxy = await Proxy.to(server.httpPort);
  proxy.bytesPerSecond = 8 * MiB;
});
after(async () => {
  proxy.stop();
  await server.stop();
});
beforeEach(() => CountingWebSocket.reset());

/** An upload that is under way and would take seconds more. */
async function underWay(client: UploadClient, signal?: AbortSignal): Promise<Upload> {
  const { onProgress, until } = observer();
  const upload = client.upload(fileOf(48 * MiB).file, signal ? { onProgress, signal } : { onProgress });
  await until((progress) => progress.bytesReceived > 0);
  return upload;
}

const isCancelled = (error: unknown) => hasReason(error, "UPLOAD_CANCELLED");

test("a cancel half-way: pending, then cancelled over HTTP, and the bytes are gone", async () => {
  const client = clientOf(proxy.url);
  const upload = await underWay(client);
  assert.ok((await server.storedBytes()) > 0);
  const cancel = client.cancel(upload.fileId!, { reason: "the wrong file" });
  assert.ok(cancel.pending);
  assert.equal(upload.state, "cancelling");
  const outcome = await cancel.outcome;
  assert.ok(!cancel.pending);
  assert.equal(outcome.state === "cancelled" && outcome.by, "http");
  await assert.rejects(upload.done, isCancelled);
  assert.equal(upload.state, "cancelled");
  const file = await client.api.getFile(upload.fileId!);
  assert.deepEqual([file.cancelledBy, file.cancelReason], ["user", "the wrong file"]);
  await eventually(async () => (await server.storedBytes()) === 0);
});

test("an AbortSignal cancels on the server", async () => {
  const abort = new AbortController();
  const upload = await underWay(clientOf(proxy.url), abort.signal);
  abort.abort("changed my mind");
  await assert.rejects(upload.done, isCancelled);
  const file = await clientOf(server.url).api.getFile(upload.fileId!);
  assert.deepEqual([fileStatusWord(file.status), file.cancelReason], ["cancelled", "changed my mind"]);
});

test("aborted before it begins, the server never hears of it", async () => {
  const upload = clientOf(server.url).upload(fileOf(10).file, { signal: AbortSignal.abort() });
  await assert.rejects(upload.done, isCancelled);
  assert.equal(upload.fileId, undefined);
});

for (const fault of ["refused", "500", "502 of a proxy", "silent"] satisfies Fault[]) {
  test(`HTTP that fails (${fault}): the socket is closed, and that cancels all the same`, async () => {
    const faulty = await faultyFetch(fault);
    const client = clientOf(proxy.url, { fetch: faulty.fetch });
    const upload = await underWay(client);
    const began = Date.now();
    const cancel = client.cancel(upload.fileId!, { reason: "enough" });
    const outcome = await cancel.outcome;
    faulty.stop();
    assert.deepEqual([outcome.state, cancel.trying], ["cancelled", "websocket"]);
    assert.equal(outcome.state === "cancelled" && outcome.by, "websocket");
    if (fault === "silent") assert.ok(Date.now() - began >= 2_000);
    assert.ok(Date.now() - began < 4_500);
    await assert.rejects(upload.done, isCancelled);
    const file = await clientOf(server.url).api.getFile(upload.fileId!);
    assert.deepEqual([file.cancelledBy, file.cancelReason], ["websocket_close", "enough"]);
  });
}

test("an upload that keeps its file on disconnect is cancelled over its socket in so many words", async () => {
  const faulty = await faultyFetch("refused");
  const { onProgress, until } = observer();
  const client = clientOf(proxy.url, { fetch: faulty.fetch });
  const upload = client.upload(fileOf(48 * MiB).file, { onProgress, keepOnDisconnect: true });
  await until((progress) => progress.bytesReceived > 0);
  const outcome = await upload.cancel();
  assert.equal(outcome?.state, "cancelled");
  await assert.rejects(upload.done, isCancelled);
});

test("too late is an answer, and final: nothing is closed and nothing shown as cancelled", async () => {
  const client = clientOf(server.url);
  const upload = client.upload(fileOf(1000).file);
  const { fileId } = await upload.done;
  const outcome = await client.cancel(fileId).outcome;
  assert.equal(outcome.state, "refused");
  if (outcome.state !== "refused") return;
  assert.deepEqual([outcome.error.reason, outcome.error.status, outcome.error.httpStatus], ["FILE_NOT_CANCELLABLE", "completed", 400]);
  assert.match(outcome.error.message, /^Too late to cancel: the upload is completed already/);
  assert.equal(upload.state, "completed");
});

test("an unknown id is an answer too", async () => {
  const outcome = await clientOf(server.url).cancel("no-such-file").outcome;
  assert.equal(outcome.state === "refused" && outcome.error.reason, "FILE_NOT_FOUND");
  const batch = await clientOf(server.url).cancelBatch("no-such-batch").outcome;
  assert.equal(batch.state === "refused" && batch.error.reason, "BATCH_NOT_FOUND");
});

test("cancelled before by somebody else is told as that; the same request id gets the first answer again", async () => {
  const client = clientOf(server.url);
  const { file } = await client.api.initiateUpload({ filename: "x", sizeBytes: 5n });
  const requestId = "cancel-once";
  const first = await client.cancel(file!.fileId, { requestId }).outcome;
  assert.deepEqual(await client.cancel(file!.fileId, { requestId }).outcome, first);
  const other = await client.cancel(file!.fileId).outcome;
  assert.equal(other.state === "cancelled" && other.by, "other");
  assert.deepEqual(other.state === "cancelled" && other.cancelledAt, first.state === "cancelled" && first.cancelledAt);
});

test("content is let go of once, by whom is told, and a cancel is one trace with all it asks", async () => {
  const sent: (string | null)[] = [];
  const traced: typeof fetch = async (url, init) => {
    sent.push(new Headers(init?.headers).get("traceparent"));
    const response = await fetch(url, init);
    // The first answer is lost.
    return sent.length === 1 ? new Response("", { status: 503 }) : response;
  };
  const client = clientOf(server.url, { fetch: traced, traceparent: newTraceparent, sleep: () => Promise.resolve() });
  const { fileId } = await clientOf(server.url).put(fileOf(10).file);
  const file = await client.deleteContent(fileId, { reason: "fetched" });
  assert.deepEqual([fileStatusWord(file.status), file.contentDeletedBy], ["completed", "user"]);
  await assert.rejects(client.deleteContent(fileId), (error) => hasReason(error, "CONTENT_DELETED"));
  await assert.rejects(client.deleteContent("none"), (error) => hasReason(error, "FILE_NOT_FOUND"));
  const { events } = await client.api.listAuditEvents({ fileId, orderBy: "event_id desc", pageSize: 1 });
  assert.equal(events[0]!.reason, "fetched");
  assert.match(sent[0]!, /^00-[0-9a-f]{32}-[0-9a-f]{16}-01$/);
  assert.equal(sent[1], sent[0], "a repetition");
  assert.equal(new Set(sent).size, 4);
  const asked = sent.splice(0).length;
  assert.equal(asked, 5);
  const outcome = await client.cancel(fileId).outcome;
  assert.equal(outcome.state, "refused");
  assert.ok(sent.length > 1 && new Set(sent).size < sent.length);
});

test("cancelled by somebody else under way: the upload says by whom", async () => {
  const upload = await underWay(clientOf(proxy.url));
  await clientOf(server.url).cancel(upload.fileId!, { reason: "quota" }).outcome;
  await assert.rejects(upload.done, isCancelled);
  assert.deepEqual([upload.error?.metadata["cancelled_by"], upload.error?.metadata["cancel_reason"]], ["user", "quota"]);
});

test("nobody answers at all: not known, and never shown as cancelled", async () => {
  const own = await TestServer.start();
  const client = clientOf(own.url);
  const { file } = await client.api.initiateUpload({ filename: "x", sizeBytes: 5n });
  own.signal("SIGSTOP");
  const cancel = client.cancel(file!.fileId, { httpPatienceMs: 200, giveUpMs: 600 });
  const outcome = await cancel.outcome;
  own.signal("SIGCONT");
  assert.equal(outcome.state, "unconfirmed");
  assert.match(outcome.state === "unconfirmed" ? outcome.error.message : "", /not known whether/);
  await own.stop();
});

test("the answer is lost on the way: the same request id finds the truth, and it was HTTP that worked", async () => {
  const client = clientOf(server.url);
  const { file } = await client.api.initiateUpload({ filename: "x", sizeBytes: 5n });
  let lost = 0;
  const losing: typeof fetch = async (input, init) => {
    const response = await fetch(input, init);
    if (init?.method !== "POST" || lost++ > 0) return response;
    await response.text();
    throw new TypeError("the connection broke after the server had answered");
  };
  const outcome = await clientOf(server.url, { fetch: losing }).cancel(file!.fileId).outcome;
  assert.deepEqual([outcome.state, outcome.state === "cancelled" && outcome.by], ["cancelled", "http"]);
});

test("a batch whose signal was aborted before it began is not announced", async () => {
  const files = [fileOf(10), fileOf(10)].map(({ file }) => ({ blob: file }));
  const batch = clientOf(server.url).uploadBatch(files, { signal: AbortSignal.abort() });
  await assert.rejects(batch.done, isCancelled);
  assert.equal(batch.batchId, undefined);
  await Promise.allSettled(batch.uploads.map(({ done }) => done));
  assert.deepEqual(batch.uploads.map(({ state }) => state), ["cancelled", "cancelled"]);
});

test("a batch is cancelled by one call, with its counts; what was complete stays so", async () => {
  const client = clientOf(proxy.url, { concurrency: 2 });
  const small = { blob: new Blob(["small"]), filename: "small" };
  const blob = fileOf(48 * MiB).file;
  const big = Array.from({ length: 4 }, (_, index) => ({ blob, filename: `big ${index}` }));
  const batch = client.uploadBatch([small, ...big]);
  await batch.uploads[0]!.done;
  await eventually(() => batch.uploads.some((upload) => upload.bytesReceived > 0 && upload.state === "sending"));
  const outcome = await client.cancelBatch(batch.batchId!, { reason: "all of it" }).outcome;
  assert.equal(outcome.state, "cancelled");
  if (outcome.state !== "cancelled") return;
  assert.deepEqual([outcome.cancelledFilesCount, outcome.totalFilesInBatch], [4, 5]);
  await batch.done;
  assert.deepEqual(batch.uploads.map(({ state }) => state), ["completed", ...Array<string>(4).fill("cancelled")]);
});

test("a batch cancelled while HTTP fails: its sockets are closed, and it is never said that all is cancelled", async () => {
  const faulty = await faultyFetch("refused");
  const client = clientOf(proxy.url, { fetch: faulty.fetch, concurrency: 2 });
  const blob = fileOf(48 * MiB).file;
  const files = Array.from({ length: 3 }, (_, index) => ({ blob, filename: `${index}` }));
  const batch = client.uploadBatch(files);
  await eventually(() => batch.uploads.filter((upload) => upload.bytesReceived > 0).length === 2);
  const outcome = await batch.cancel({ giveUpMs: 500 });
  assert.equal(outcome.state === "unconfirmed" && outcome.socketsClosed, 2);
  const fileIds = batch.uploads.map(({ fileId }) => fileId!);
  const { api } = clientOf(server.url);
  await eventually(async () => {
    const words = await Promise.all(fileIds.map(async (id) => fileStatusWord((await api.getFile(id)).status)));
    return words.filter((word) => word === "cancelled").length === 2;
  });
});
