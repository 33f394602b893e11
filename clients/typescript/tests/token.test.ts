/** A token that says who calls: on each call and watch, followed by another one, never shown, never in plain text. */

import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { inspect } from "node:util";
import { fileStatusWord, hasReason, UploadClient, UploadError } from "../src/index.js";
import type { ClientOptions, WatchEvent } from "../src/index.js";
import { clientOf, CountingWebSocket, eventually, fileOf, MiB, observer, Proxy, TestServer } from "./support.js";

/** The tokens that the server believes; `lines` by token. */
class Tokens {
  private readonly lines = new Map<string, string>();
  folder = "";

  get path(): string {
    return join(this.folder, "tokens");
  }

  async make(principal: string): Promise<string> {
    const id = randomBytes(4).toString("hex");
    const token = `upl_${id}_${randomBytes(32).toString("base64url")}`;
    this.lines.set(token, `${id} sha256:${createHash("sha256").update(token).digest("hex")} ${principal} user`);
    await this.write();
    return token;
  }

  async revoke(token: string): Promise<void> {
    this.lines.delete(token);
    await this.write();
  }

  private async write(): Promise<void> {
    await writeFile(`${this.path}.new`, [...this.lines.values(), ""].join("\n"), { mode: 0o600 });
    await rename(`${this.path}.new`, this.path);
  }
}

const tokens = new Tokens();
const WRONG = `upl_aaaaaaaa_${"b".repeat(43)}`;
let ada = "";
let bob = "";
let eve = "";
let server: TestServer;
before(async () => {
  tokens.folder = await mkdtemp(join(tmpdir(), "upload-tokens-"));
  [ada, bob, eve] = [await tokens.make("ada"), await tokens.make("bob"), await tokens.make("eve")];
  const quotas = ["--quota-open-files", "4", "--quota-calls", "5"];
  server = await TestServer.start("--auth", "required", "--tokens-file", tokens.path, ...quotas);
});
after(async () => {
  await server.stop();
  await rm(tokens.folder, { recursive: true });
});

/** A client to which these tokens are given one after the other, and the last of them from then on. */
function calling(url: string, given: string[], options: ClientOptions = {}): { client: UploadClient; asked: () => number; sent: string[] } {
  const sent: string[] = [];
  let asked = 0;
  const client = clientOf(url, {
    token: async () => given[Math.min(asked++, given.length - 1)]!,
    EventSource: undefined as unknown as typeof EventSource,
    fetch: (input, init) => {
      sent.push(new Headers(init?.headers).get("authorization") ?? "");
      return fetch(input, init);
    },
    ...options,
  });
  return { client, asked: () => asked, sent };
}

test("each call says who calls; a token that is refused is asked for anew, and the call repeated once", async () => {
  const known = calling(server.url, [WRONG, ada]);
  assert.equal((await known.client.api.getCaller()).principal, "ada");
  assert.deepEqual(known.sent, [`Bearer ${WRONG}`, `Bearer ${ada}`]);
  await Promise.all([known.client.api.listFiles(), known.client.api.listFiles()]);
  assert.equal(known.asked(), 2, "a token that is good is asked for once");

  const unknown = calling(server.url, [WRONG]);
  await assert.rejects(unknown.client.api.getCaller(), (error) => hasReason(error, "CREDENTIAL_INVALID"));
  assert.deepEqual([unknown.asked(), unknown.sent.length], [2, 2]);

  await assert.rejects(clientOf(server.url).api.getCaller(), (error) => hasReason(error, "CREDENTIAL_MISSING"));
});

test("calls at once that are refused ask for one other token", async () => {
  const { client, asked } = calling(server.url, [WRONG, bob]);
  await Promise.all(Array.from({ length: 4 }, () => client.api.getCaller()));
  assert.equal(asked(), 2);
});

test("no token travels in plain text beyond this machine", async () => {
  let asked = 0;
  const token = async (): Promise<string> => (asked++, ada);
  for (const baseUrl of ["http://uploads.example", "http://127.0.0.1.example", "http://localhost.example", "http://10.0.0.1:8080"]) {
    assert.throws(() => new UploadClient({ baseUrl, token }), (error) => hasReason(error, "TOKEN_EXPOSED") && /https/.test(error.message));
  }
  for (const baseUrl of ["https://uploads.example", "http://127.0.0.2:8080", "http://[::1]:8080", "http://a.localhost"]) {
    new UploadClient({ baseUrl, token });
  }
  assert.equal(asked, 0);
});

test("a token follows no redirect", async () => {
  const heard: unknown[] = [];
  const elsewhere = createServer((request, response) => {
    heard.push(request.headers.authorization);
    response.end("{}");
  });
  const listen = (one: typeof elsewhere): Promise<string> =>
    new Promise((resolve) => one.listen(0, "127.0.0.1", () => resolve(`http://127.0.0.1:${(one.address() as AddressInfo).port}`)));
  const there = await listen(elsewhere);
  const here = createServer((_, response) => response.writeHead(307, { location: there }).end());
  const { client } = calling(await listen(here), [ada]);
  await assert.rejects(client.api.getCaller({ retries: 0 }), (error) => hasReason(error, "NO_ANSWER"));
  assert.deepEqual(heard, []);
  for (const one of [here, elsewhere]) one.close();
});

test("no error shows a token, not even one that no header can carry", async () => {
  for (const given of [`${ada}\nx`, `${ada} `.repeat(2), ""]) {
    const error: unknown = await calling(server.url, [given]).client.api.getCaller().catch((found: unknown) => found);
    assert.ok(hasReason(error, "CREDENTIAL_MISSING"), inspect(error));
    assert.ok(!inspect(error, { depth: 9 }).includes(ada));
  }
  assert.equal((await calling(server.url, [` ${bob}\n`]).client.api.getCaller()).principal, "bob");
});

test("a token that cannot be had now may be had later, and one that never comes holds up no call", async () => {
  let asked = 0;
  const token = async (): Promise<string> => {
    if (asked++ === 0) throw new Error("the network is away");
    return bob;
  };
  assert.equal((await clientOf(server.url, { token }).api.getCaller()).principal, "bob");
  const hanging = clientOf(server.url, { token: () => new Promise(() => {}) });
  await assert.rejects(hanging.api.getCaller({ timeoutMs: 100, retries: 0 }), (error) => hasReason(error, "NO_ANSWER"));
});

test("a watch says who calls, outlives breaks and its token, and goes on where it was", async () => {
  const first = await tokens.make("carol");
  const second = await tokens.make("carol");
  const proxy = await Proxy.to(server.httpPort);
  const { client, asked } = calling(proxy.url, [first, second]);
  const other = calling(server.url, [second]).client;
  await eventually(() => other.api.getCaller().then(() => true, () => false));
  const cancelNew = async (): Promise<void> => {
    const { file } = await other.api.initiateUpload({ filename: "näme", sizeBytes: 1n });
    await other.cancel(file!.fileId).outcome;
  };
  const events: WatchEvent[] = [];
  const cancels = (): number =>
    events.filter((event) => event.type === "file" && fileStatusWord(event.file.status) === "cancelled").length;
  const watch = client.watch({ all: true }, { onEvent: (event) => events.push(event) });
  await eventually(() => watch.state === "live");
  await cancelNew();
  await eventually(() => cancels() === 1);
  proxy.down = true;
  proxy.cut();
  await cancelNew();
  proxy.down = false;
  await eventually(() => cancels() === 2);
  assert.equal(asked(), 1);
  await tokens.revoke(first);
  await eventually(() => asked() === 2 && watch.state === "live");
  await cancelNew();
  await eventually(() => cancels() === 3);
  const told = events.flatMap((event) => (event.type === "file" ? [`${event.file.fileId} ${event.file.revision}`] : []));
  assert.equal(new Set(told).size, told.length, "nothing came twice");
  watch.stop();
  await watch.done;
  proxy.stop();
});

test("a watch that is refused ends with its reason, and one with nothing left with none", async () => {
  const { client, sent } = calling(server.url, [bob]);
  const unknown = client.watch({ fileIds: ["no-such-file"] }, { onEvent: () => {} });
  await assert.rejects(unknown.done, (error) => hasReason(error, "FILE_NOT_FOUND"));
  const stranger = calling(server.url, [WRONG]).client.watch({ all: true }, { onEvent: () => {} });
  await assert.rejects(stranger.done, (error) => hasReason(error, "CREDENTIAL_INVALID"));
  const { file } = await client.api.initiateUpload({ filename: "x", sizeBytes: 1n });
  await client.cancel(file!.fileId).outcome;
  const before = sent.length;
  const watch = client.watch({ fileIds: [file!.fileId], untilFinal: true }, { onEvent: () => {} });
  await watch.done;
  assert.equal(sent.length, before + 1, "its end was heard");
  await client.watch({ fileIds: [file!.fileId], untilFinal: true, resumeToken: watch.resumeToken }, { onEvent: () => {} }).done;
});

test("a socket says who calls by a ticket; an upload outlives its token, and a cancel of it holds", async () => {
  const first = await tokens.make("dan");
  const second = await tokens.make("dan");
  const proxy = await Proxy.to(server.httpPort);
  proxy.bytesPerSecond = 4 * MiB;
  const { client, asked } = calling(proxy.url, [first, second]);
  await eventually(() => calling(server.url, [second]).client.api.getCaller().then(() => true, () => false));
  const { file, sha256 } = fileOf(6 * MiB);
  const { onProgress, until, seen } = observer();
  const upload = client.upload(file, { onProgress });
  await until(({ bytesReceived }) => bytesReceived > 0);
  await tokens.revoke(first);
  const stored = await upload.done;
  assert.deepEqual([stored.sha256, stored.owner], [sha256, "dan"]);
  assert.ok(asked() === 2 && seen.some(({ state }) => state === "interrupted"));
  const unwanted = client.upload(file);
  await eventually(() => unwanted.state === "sending");
  assert.equal((await client.cancel(unwanted.fileId!).outcome).state, "cancelled");
  await assert.rejects(unwanted.done, (error) => hasReason(error, "UPLOAD_CANCELLED"));
  assert.ok(!CountingWebSocket.urls.some((url) => url.includes("ticket")), "no ticket stands in a URL");
  proxy.stop();
});

test("a quota is final at once and says which; a rate is waited for", async () => {
  const { client, sent } = calling(server.url, [eve]);
  await client.api.initiateBatch({ files: [..."abcd"].map((filename) => ({ filename, sizeBytes: 1n })) });
  const more = client.upload(new File(["x"], "y"));
  await assert.rejects(more.done, (error) => hasReason(error, "QUOTA_EXCEEDED") && /open files: 4 of 4/.test(error.message));
  assert.equal(sent.length, 2);
  const before = performance.now();
  for (let call = 0; call < 10; call++) await client.api.getCaller({ retries: 3 });
  assert.ok(sent.length > 12, "some were refused");
  assert.ok(sent.length < 22, `none was asked again before its time: ${sent.length} in ${performance.now() - before} ms`);
  const { message } = await client.api.cancelFile({ fileId: "x" }).catch((error: UploadError) => error) as UploadError;
  assert.match(message, /no such upload/);
});
