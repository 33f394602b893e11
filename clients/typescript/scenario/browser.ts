/** The scenario by the TypeScript client over HTTP and the WebSocket: `URL`. Reports in JSON lines. */

import { EventSource } from "eventsource";
import { WebSocket as NodeWebSocket } from "ws";
import { fileStatusWord, UploadClient, UploadError } from "../src/index.js";

const SIZE = 4 << 20;
const REASON = "only a demonstration";
const say = (step: string, more: object): void => console.log(JSON.stringify({ step, ...more }));

/** A file whose second half is long in coming. */
class HalfFile extends File {
  release: () => void = () => {};
  private readonly wait = new Promise<void>((resolve) => (this.release = resolve));

  override slice(from = 0, to = this.size): Blob {
    const part = super.slice(from, to);
    if (to <= SIZE / 2) return part;
    part.arrayBuffer = async () => {
      await this.wait;
      return new ArrayBuffer(to - from);
    };
    return part;
  }
}

const client = new UploadClient({
  baseUrl: process.argv[2]!,
  WebSocket: NodeWebSocket as unknown as typeof WebSocket,
  EventSource: EventSource as unknown as typeof globalThis.EventSource,
});
const file = new HalfFile([new Uint8Array(SIZE)], "matrix.bin");
let halfIsDurable = (): void => {};
const half = new Promise<void>((resolve) => (halfIsDurable = resolve));
const upload = client.upload(file, {
  onProgress: ({ bytesReceived }) => {
    if (bytesReceived === SIZE / 2) halfIsDurable();
  },
});
const failed = upload.done.then(() => undefined, (error: unknown) => error);
await half;
const fileId = upload.fileId!;
const announced = await client.api.getFile(fileId);
say("initiate", { file_id: fileId, filename: announced.filename, size_bytes: Number(announced.sizeBytes) });
say("half", { bytes_received: Number(announced.bytesReceived) });

const statuses: string[] = [];
let isWatched = (): void => {};
const watched = new Promise<void>((resolve) => (isWatched = resolve));
const watch = client.watch(
  { fileIds: [fileId], untilFinal: true },
  {
    onEvent: (event) => {
      if (event.type !== "file") return;
      statuses.push(fileStatusWord(event.file.status));
      isWatched();
    },
  },
);
await watched;
const first = await client.cancel(fileId, { reason: REASON, requestId: fileId }).outcome;
say("cancel", { result: first.state === "cancelled" && first.by === "http" ? "cancelled" : first });
const error = await failed;
file.release();
say("upload", error instanceof UploadError ? { reason: error.reason, by: error.metadata["cancelled_by"] } : { error });
await watch.done;
say("watch", { statuses });
const again = await client.cancel(fileId, { reason: REASON, requestId: fileId }).outcome;
const other = await client.cancel(fileId).outcome;
say("cancel again", {
  same_request: JSON.stringify(again) === JSON.stringify(first) ? "the same answer" : "another answer",
  new_request: other.state === "cancelled" && other.by === "other" ? "already cancelled" : other,
});
const unknown = await client.cancel("no-such-file").outcome;
say("unknown", { reason: unknown.state === "refused" ? unknown.error.reason : unknown });
