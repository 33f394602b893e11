/**
 * One WebSocket of one upload: sends the bytes from an offset, never with more than 1 MiB waiting in the browser, and
 * tells how the socket ended. Must not know resuming or cancelling over HTTP.
 */

import { fromJson } from "@bufbuild/protobuf";
import type { JsonValue } from "@bufbuild/protobuf";
import { errorOfStatus, UploadError } from "./errors.js";
import type { ServiceError } from "./errors.js";
import { FileSchema } from "./gen/upload/v1/upload_pb.js";
import type { File as UploadedFile } from "./gen/upload/v1/upload_pb.js";
import { Bell } from "./pause.js";
import type { Sleep } from "./pause.js";

const CHUNK_BYTES = 256 * 1024;
// A close waits behind every byte that is queued: less waits, sooner the server hears of it.
const MOST_BUFFERED_BYTES = 1024 * 1024;
const READ_BYTES = 1024 * 1024;
// Browsers tell no one when their buffer has room, so it is looked at this often.
const ROOM_MS = 8;
/** Cancels the upload at once; the close's reason is recorded. */
const CLOSE_TO_CANCEL = 4000;
/** Means nothing to the server but "lost": the upload waits its grace for the socket that follows. */
const CLOSE_TO_RESUME = 4001;
const MAX_CLOSE_REASON_BYTES = 123;

/** How a socket ended. */
export type End =
  | { kind: "success"; file: UploadedFile }
  | { kind: "cancelled"; at: Date | undefined; by: string; reason: string }
  | { kind: "error"; error: ServiceError }
  | { kind: "unreadable"; error: UploadError }
  /** No last word came: the server, the network or this page closed it. */
  | { kind: "lost" };

export interface SessionOptions {
  url: string;
  /** Subprotocols: what says who calls. */
  protocols: string[];
  blob: Blob;
  offset: number;
  sha256: string;
  WebSocket: typeof WebSocket;
  sleep: Sleep;
  /** Closing the socket does not cancel; a cancel has to be said. */
  keep: boolean;
  onOpen: () => void;
  /** So many bytes are durable. */
  onReceived: (bytes: number) => void;
  /** Every byte is on its way. */
  onAllSent: () => void;
  /** Nothing was heard for so many milliseconds: is the server still there? Answers whether to go on waiting. */
  quietMs: number;
  onQuiet: (allSent: boolean) => Promise<boolean>;
}

type Message =
  | { type: "progress"; bytes_received: number }
  | { type: "success"; file: JsonValue }
  | { type: "cancelled"; cancelled_at?: string | null; cancelled_by?: string; reason?: string }
  | { type: "error"; error: unknown };

export class Session {
  readonly ended: Promise<End>;
  private readonly socket: WebSocket;
  private readonly bell = new Bell();
  private settle: (end: End) => void = () => {};
  private over = false;
  private held = false;
  private allSent = false;
  private heardAt = performance.now();

  constructor(private readonly options: SessionOptions) {
    this.ended = new Promise((resolve) => {
      this.settle = (end) => {
        this.over = true;
        this.bell.ring();
        resolve(end);
      };
    });
    this.socket = new options.WebSocket(options.url, options.protocols);
    this.socket.binaryType = "arraybuffer";
    this.socket.addEventListener("open", () => this.begin());
    this.socket.addEventListener("message", (event) => this.hear(String(event.data)));
    this.socket.addEventListener("close", () => this.settle({ kind: "lost" }));
    // An error is followed by a close, which says all that a page may know.
    this.socket.addEventListener("error", () => {});
    void this.watchOver();
  }

  /** Send no more bytes for now: what is queued goes first, and a cancel should not wait for more. */
  hold(): void {
    this.held = true;
  }

  /** Go on sending. */
  release(): void {
    this.held = false;
    this.bell.ring();
  }

  /** Close the socket so that the server cancels the upload; returns whether there was an open one to close. */
  closeToCancel(reason: string): boolean {
    if (this.over || this.socket.readyState !== WS_OPEN) return false;
    if (this.options.keep) this.socket.send(JSON.stringify({ type: "cancel", reason }));
    else this.socket.close(CLOSE_TO_CANCEL, shortened(reason));
    return true;
  }

  /** Leave the socket: something else has told how the upload ended, or it is to be opened anew. */
  leave(end: End = { kind: "lost" }): void {
    this.settle(end);
    if (this.socket.readyState <= WS_OPEN) this.socket.close(CLOSE_TO_RESUME);
  }

  private begin(): void {
    this.heardAt = performance.now();
    // A socket that has said nothing is no writer, and its close cancels nothing: the first bytes take a moment to read.
    this.socket.send(new Uint8Array(0));
    this.options.onOpen();
    this.send().catch((error: unknown) => {
      if (this.over) return;
      // The socket stays open: the upload has to be cancelled in so many words.
      this.settle({ kind: "unreadable", error: unreadable(error) });
    });
  }

  private async send(): Promise<void> {
    const { blob, sha256 } = this.options;
    const modified = lastModified(blob);
    let position = this.options.offset;
    let next = position < blob.size ? read(blob, position) : undefined;
    while (next !== undefined) {
      const block = await next;
      const start = position;
      position += block.byteLength;
      // Read on while this block is on its way.
      next = position < blob.size ? read(blob, position) : undefined;
      next?.catch(() => {});
      if (lastModified(blob) !== modified) throw fileChanged();
      for (let at = 0; at < block.byteLength; at += CHUNK_BYTES) {
        if (!(await this.room())) return;
        this.socket.send(block.subarray(at, at + CHUNK_BYTES));
      }
      if (start === position) throw fileChanged();
    }
    if (!(await this.room())) return;
    this.socket.send(JSON.stringify(sha256 ? { type: "commit", sha256 } : { type: "commit" }));
    this.allSent = true;
    this.options.onAllSent();
  }

  /** Wait until another chunk may be queued; false when the socket is over. */
  private async room(): Promise<boolean> {
    while (!this.over && this.socket.readyState === WS_OPEN) {
      if (this.held) await this.bell.heard(60_000, this.options.sleep);
      else if (this.socket.bufferedAmount + CHUNK_BYTES <= MOST_BUFFERED_BYTES) return true;
      else await this.bell.heard(ROOM_MS, this.options.sleep);
    }
    return false;
  }

  private hear(text: string): void {
    this.heardAt = performance.now();
    let message: Message;
    try {
      message = JSON.parse(text) as Message;
    } catch {
      return; // not the service's; its close will follow
    }
    if (message.type === "progress") this.options.onReceived(message.bytes_received);
    else if (message.type === "success") {
      this.settle({ kind: "success", file: fromJson(FileSchema, message.file, { ignoreUnknownFields: true }) });
    } else if (message.type === "cancelled") {
      const at = message.cancelled_at ? new Date(message.cancelled_at) : undefined;
      this.settle({ kind: "cancelled", at, by: message.cancelled_by ?? "", reason: message.reason ?? "" });
    } else if (message.type === "error") this.settle({ kind: "error", error: errorOfStatus(message.error, 0) });
  }

  /** A connection can be dead without anybody being told: when it is silent for long, ask, and open another. */
  private async watchOver(): Promise<void> {
    let buffered = 0;
    while (!this.over) {
      await this.bell.heard(this.options.quietMs / 4, this.options.sleep);
      const waiting = this.socket.bufferedAmount;
      if (waiting !== buffered || this.held) this.heardAt = performance.now();
      buffered = waiting;
      if (this.over || performance.now() - this.heardAt < this.options.quietMs) continue;
      const opened = this.socket.readyState === WS_OPEN;
      if (!(opened && (await this.options.onQuiet(this.allSent)))) {
        if (!this.over) this.leave();
        return;
      }
      this.heardAt = performance.now();
    }
  }
}

const WS_OPEN = 1;

async function read(blob: Blob, from: number): Promise<Uint8Array<ArrayBuffer>> {
  const to = Math.min(from + READ_BYTES, blob.size);
  const block = new Uint8Array(await blob.slice(from, to).arrayBuffer());
  if (block.byteLength !== to - from) throw fileChanged();
  return block;
}

function lastModified(blob: Blob): number | undefined {
  return "lastModified" in blob ? (blob.lastModified as number) : undefined;
}

function fileChanged(cause?: unknown): UploadError {
  return new UploadError(
    "FILE_CHANGED",
    "The file changed on disk while it was uploaded, so its upload is being cancelled; choose the file again.",
    {},
    { cause },
  );
}

/** Browsers say NotReadableError for a file that changed, NotFoundError for one that went, and little more. */
function unreadable(error: unknown): UploadError {
  if (error instanceof UploadError) return error;
  const name = error instanceof Error ? error.name : "";
  if (name === "NotReadableError") return fileChanged(error);
  return new UploadError(
    "FILE_UNREADABLE",
    "The file can no longer be read, so its upload is being cancelled; check that it is still there, and choose it again.",
    {},
    { cause: error },
  );
}

/** A close frame's reason has at most 123 bytes of UTF-8. */
function shortened(reason: string): string {
  let text = reason;
  while (new TextEncoder().encode(text).length > MAX_CLOSE_REASON_BYTES) text = [...text].slice(0, -1).join("");
  return text;
}
