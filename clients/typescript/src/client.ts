/** What a page talks to: builds the parts and knows which uploads this page has. */

import { Api } from "./api.js";
import type { ApiOptions } from "./api.js";
import { BatchCancellation, BatchUpload, inBatches } from "./batch.js";
import type { BatchFile, BatchOptions } from "./batch.js";
import { Cancellation } from "./cancel.js";
import type { CancelOptions } from "./cancel.js";
import { download } from "./download.js";
import type { DownloadOptions } from "./download.js";
import { FetchedEvents } from "./events.js";
import type { File as UploadedFile } from "./gen/upload/v1/upload_pb.js";
import { checkedName, checkedType, nameOf } from "./names.js";
import type { DeleteOptions, PutOptions, UploadOptions } from "./options.js";
import { newRequestId } from "./pause.js";
import { SharedWatch } from "./shared.js";
import type { SharedWatchOptions } from "./shared.js";
import { Slots } from "./slots.js";
import { Upload } from "./upload.js";
import { Watch } from "./watch.js";
import type { WatchContext, WatchOptions, WatchTargets } from "./watch.js";

export interface ClientOptions extends ApiOptions {
  /** For places that have none of their own, such as Node 20. */
  WebSocket?: typeof WebSocket;
  EventSource?: typeof EventSource;
  /** How many uploads send at once, 4 by default, or 16 of at most 256 KiB; the others wait their turn. */
  concurrency?: number;
  /** A connection on which nothing is heard for so many milliseconds is opened anew. */
  quietMs?: number;
}

const CONCURRENCY = 4;
/** A small file waits for its socket and for its answer more than it sends. */
const CONCURRENCY_OF_SMALL = 16;
const QUIET_MS = 20_000;

/** The upload service, as a page sees it. */
export class UploadClient {
  /** The unary calls: initiate, get, list, audit. */
  readonly api: Api;
  private readonly uploads = new Set<Upload>();
  private readonly batches = new Set<BatchUpload>();
  private readonly slots: Slots;

  constructor(private readonly options: ClientOptions = {}) {
    this.api = new Api(options);
    this.slots = new Slots(options.concurrency ?? CONCURRENCY, options.concurrency ?? CONCURRENCY_OF_SMALL);
    if (typeof addEventListener === "function") addEventListener("online", () => this.wake());
  }

  /**
   * Upload a file. Closing the page cancels it; a connection that is lost is opened again where it was.
   *
   * ```ts
   * const upload = client.upload(file, { onProgress: (p) => bar.value = p.bytesReceived / p.totalBytes });
   * await upload.done; // the completed file, or an UploadError
   * ```
   */
  upload(blob: Blob, options: UploadOptions = {}): Upload {
    const upload = new Upload(this.context(), blob, options);
    this.keep(upload);
    return upload;
  }

  /**
   * Upload a file of at most 256 KiB by one call: completed when this resolves, or nothing of it is left. It cannot be
   * watched or cancelled under way, and needs no socket: a quarter of the round trips of `upload`.
   *
   * ```ts
   * const stored = await client.put(new File(["hello"], "hello.txt"));
   * ```
   */
  async put(blob: Blob, options: PutOptions = {}): Promise<UploadedFile> {
    const data = new Uint8Array(await blob.arrayBuffer());
    const { sha256, requestId, contentType, filename } = options;
    return this.api.putFile(
      {
        filename: checkedName(filename ?? nameOf(blob)),
        sizeBytes: BigInt(data.length),
        contentType: checkedType(contentType ?? blob.type),
        sha256: sha256 ?? "",
        data,
        requestId: requestId ?? newRequestId(),
      },
      { retries: 5 },
    );
  }

  /**
   * The bytes of a completed file, piece by piece; a connection that breaks is opened again where it broke. For a link,
   * which lets the browser store them, there is `api.contentUrl(fileId)`.
   *
   * ```ts
   * for await (const bytes of client.download(fileId)) hash.update(bytes);
   * ```
   */
  download(fileId: string, options: DownloadOptions = {}): AsyncGenerator<Uint8Array, void, undefined> {
    return download(this.api, fileId, options);
  }

  /**
   * Let go of a completed file's bytes, once and for all: the file stays, with `contentDeletedAt` and `contentDeletedBy`.
   * Rejects with `CONTENT_DELETED` where that was done before, and `FILE_NOT_COMPLETED` where there is no content yet.
   */
  deleteContent(fileId: string, { reason = "", requestId = newRequestId() }: DeleteOptions = {}): Promise<UploadedFile> {
    return this.api.deleteContent({ fileId, reason, requestId }, { retries: 5 });
  }

  /**
   * Upload any number of files: batch after batch of at most 10,000, each begun when the one before is over. Ends early
   * when a batch is cancelled here, or could not be announced.
   *
   * ```ts
   * for await (const batch of client.uploadBatches(files)) show(batch);
   * ```
   */
  async *uploadBatches(files: Iterable<BatchFile>, options: Omit<BatchOptions, "requestId"> = {}): AsyncGenerator<BatchUpload> {
    for (const some of inBatches(files)) {
      const batch = this.uploadBatch(some, options);
      yield batch;
      await batch.done.catch(() => {});
      if (batch.cancellation || (batch.uploads.length > 0 && !batch.batchId)) return;
    }
  }

  /** Upload at most 10,000 files that belong together, a few at a time: cancelled by one call. */
  uploadBatch(files: Iterable<BatchFile>, options: BatchOptions = {}): BatchUpload {
    const batch = new BatchUpload(this.context(), files, options);
    this.batches.add(batch);
    void batch.done.catch(() => {}).then(() => this.batches.delete(batch));
    for (const upload of batch.uploads) this.keep(upload);
    return batch;
  }

  /**
   * Cancel a file, whoever uploads it. HTTP first; when that has no answer within 2 s and this page uploads the file, its
   * socket is closed instead.
   *
   * ```ts
   * const cancel = client.cancel(fileId, { reason: "the wrong file" });
   * cancel.pending; // true: show "cancelling…"
   * const outcome = await cancel.outcome; // { state: "cancelled", by: "http" | "websocket" | "other", … }
   * ```
   */
  cancel(fileId: string, options: CancelOptions = {}): Cancellation {
    const own = this.ofFile(fileId);
    if (own && !own.over) {
      void own.cancel(options);
      if (own.cancellation) return own.cancellation;
    }
    return new Cancellation(this.api, fileId, options, own);
  }

  /** Cancel a batch and every file of it that is not final. */
  cancelBatch(batchId: string, options: CancelOptions = {}): BatchCancellation {
    const own = [...this.batches].find((batch) => batch.batchId === batchId);
    if (own) {
      void own.cancel(options);
      if (own.cancellation) return own.cancellation;
    }
    return new BatchCancellation(this.api, batchId, options);
  }

  /** Watch files and batches, or everything, until stopped. */
  watch(targets: WatchTargets, options: WatchOptions): Watch {
    return new Watch(this.watchContext(), targets, options);
  }

  /** Watch everything over one connection for all tabs of this browser. */
  sharedWatch(options: SharedWatchOptions): SharedWatch {
    return new SharedWatch(this.watchContext(), options);
  }

  /** This page's upload of a file, if it is under way. */
  ofFile(fileId: string): Upload | undefined {
    for (const upload of this.uploads) if (upload.fileId === fileId) return upload;
    return undefined;
  }

  /** This page's uploads that are under way. */
  get active(): ReadonlySet<Upload> {
    return this.uploads;
  }

  /**
   * The page is closing (`pagehide`). Open sockets are closed by the browser, which cancels their uploads; those that wait
   * for their turn have none and are cancelled by a last request that outlives the page.
   */
  leave(reason = "the page was closed"): void {
    const batches = new Set([...this.batches].filter((batch) => batch.uploads.some((upload) => !upload.over)));
    for (const batch of batches) if (batch.batchId) this.beacon(`/api/v1/batch/cancel/${batch.batchId}`, reason);
    for (const upload of this.uploads) {
      const inBatch = [...batches].some((batch) => batch.uploads.includes(upload));
      if (!inBatch && upload.fileId && upload.state === "queued") {
        this.beacon(`/api/v1/upload/cancel/${encodeURIComponent(upload.fileId)}`, reason);
      }
    }
  }

  private beacon(path: string, reason: string): void {
    const init = { method: "POST", keepalive: true, headers: { "content-type": "application/json" } };
    void this.api.fetch(this.api.baseUrl + path, { ...init, body: JSON.stringify({ reason }) }).catch(() => {});
  }

  private wake(): void {
    for (const upload of this.uploads) upload.wake();
  }

  private keep(upload: Upload): void {
    this.uploads.add(upload);
    void upload.done.catch(() => {}).then(() => this.uploads.delete(upload));
  }

  private context() {
    const { api, slots } = this;
    return { api, slots, WebSocket: this.options.WebSocket ?? WebSocket, quietMs: this.options.quietMs ?? QUIET_MS };
  }

  private watchContext(): WatchContext {
    return {
      baseUrl: this.api.baseUrl,
      slowCalls: this.api.slowCalls,
      open: this.api.hasToken
        ? (url) => new FetchedEvents(url, this.api.fetch)
        : (url) => new (this.options.EventSource ?? EventSource)(url),
      fetch: this.api.fetch,
      hasToken: this.api.hasToken,
      sleep: this.api.sleep,
    };
  }
}
