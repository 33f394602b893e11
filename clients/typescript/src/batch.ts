/**
 * Many files that belong together: announced in one call, sent a few at a time, cancelled by one call.
 * Must not know sockets.
 */

import type { Api } from "./api.js";
import { HTTP_PATIENCE_MS, reasonOf } from "./cancel.js";
import type { BatchCancelOutcome, CancelOptions } from "./cancel.js";
import { cancelled } from "./endings.js";
import { ServiceError, UploadError } from "./errors.js";
import { checkedName, checkedType, nameOf } from "./names.js";
import type { UploadContext, UploadOptions, UploadProgress } from "./options.js";
import { backoff, dateOf, newRequestId } from "./pause.js";
import { Upload } from "./upload.js";

const MOST_FILES = 10_000;
const MOST_ASKING_MS = 30_000;

/** A file of a batch and the name to announce it by. */
export interface BatchFile {
  blob: Blob;
  /** The path in its folder, or its name, if left out. */
  filename?: string;
}

export interface BatchOptions {
  requestId?: string;
  onProgress?: (upload: Upload, progress: UploadProgress) => void;
  signal?: AbortSignal;
  keepOnDisconnect?: boolean;
  offlineMs?: number;
}

/** A cancel of a batch under way. Never rejects. */
export class BatchCancellation {
  readonly requestId: string;
  private readonly traceparent: string | undefined;
  readonly outcome: Promise<BatchCancelOutcome>;
  result: BatchCancelOutcome | undefined;

  constructor(
    private readonly api: Api,
    readonly batchId: string,
    private readonly options: CancelOptions = {},
    /** Closes this page's sockets of the batch; returns how many. */
    private readonly closeSockets: (reason: string) => number = () => 0,
  ) {
    this.requestId = options.requestId ?? newRequestId();
    this.traceparent = api.traceparent();
    this.outcome = this.run().then((result) => (this.result = result));
  }

  /** Whether it is not known yet what becomes of it. */
  get pending(): boolean {
    return this.result === undefined;
  }

  private async run(): Promise<BatchCancelOutcome> {
    const until = performance.now() + (this.options.giveUpMs ?? MOST_ASKING_MS);
    let closed = 0;
    for (let attempt = 0; ; attempt++) {
      const answer = await this.ask(this.options.httpPatienceMs ?? HTTP_PATIENCE_MS);
      if (!(answer instanceof UploadError)) return answer;
      if (attempt === 0) closed = this.closeSockets(this.options.reason ?? "");
      if (performance.now() >= until) return { state: "unconfirmed", socketsClosed: closed, error: answer };
      await this.api.sleep(backoff(attempt, 100, 2_000));
    }
  }

  /** Ask once; an UploadError when there was no answer to hold on to. The same request id makes asking again safe. */
  private async ask(timeoutMs: number): Promise<BatchCancelOutcome | UploadError> {
    const { batchId, requestId, traceparent } = this;
    try {
      const answer = await this.api.cancelBatch(
        { batchId, requestId, reason: this.options.reason ?? "" },
        { timeoutMs, traceparent },
      );
      return {
        state: "cancelled",
        cancelledFilesCount: answer.cancelledFilesCount,
        totalFilesInBatch: answer.totalFilesInBatch,
        cancelledAt: dateOf(answer.cancelledAt),
      };
    } catch (error) {
      if (error instanceof ServiceError && !error.transient) return { state: "refused", error };
      return error instanceof UploadError ? error : new UploadError("NO_ANSWER", String(error));
    }
  }
}

/** A batch under way. */
export class BatchUpload {
  /** In the order given, without those refused. */
  readonly uploads: readonly Upload[];
  /** Files whose names cannot be sent; the others go on without them. */
  readonly refused: readonly { file: BatchFile; error: UploadError }[];
  /** The batch's id, once it is announced. */
  readonly announced: Promise<string>;
  /** When every upload is over. Look at each one's `state`. Rejects only when the batch could not be announced. */
  readonly done: Promise<readonly Upload[]>;
  batchId: string | undefined;
  cancellation: BatchCancellation | undefined;

  constructor(
    private readonly context: UploadContext,
    files: Iterable<BatchFile>,
    private readonly options: BatchOptions = {},
  ) {
    const { good, refused } = sorted(files);
    this.refused = refused;
    const announcement = this.announce(good);
    this.announced = announcement.then(({ batchId }) => batchId);
    this.announced.catch(() => {});
    const whole = {};
    this.uploads = good.map(({ blob, filename }, index) => {
      const announced = announcement.then(({ fileIds }) => fileIds[index] ?? "");
      const upload: Upload = new Upload({ ...context, announced, whole }, blob, this.optionsOf(filename, () => upload));
      return upload;
    });
    const { signal } = options;
    const onAbort = (): void => void this.cancel({ reason: reasonOf(signal) });
    signal?.addEventListener("abort", onAbort, { once: true });
    this.done = this.end().finally(() => signal?.removeEventListener("abort", onAbort));
    this.done.catch(() => {});
  }

  /** Cancel the whole batch by one call. Asked again: the same cancel. */
  async cancel(options: CancelOptions = {}): Promise<BatchCancelOutcome> {
    if (this.cancellation) return this.cancellation.outcome;
    const outcome = this.startCancel(options);
    for (const upload of this.uploads) upload.followBatch(outcome, options);
    return outcome;
  }

  private async end(): Promise<readonly Upload[]> {
    await this.announced;
    await Promise.allSettled(this.uploads.map((upload) => upload.done));
    return this.uploads;
  }

  private async startCancel(options: CancelOptions): Promise<BatchCancelOutcome> {
    let batchId: string;
    try {
      batchId = this.batchId ?? (await this.announced);
    } catch (error) {
      return { state: "unconfirmed", socketsClosed: 0, error: error as UploadError };
    }
    this.cancellation ??= new BatchCancellation(this.context.api, batchId, options, (reason) => {
      return this.uploads.filter((upload) => upload.closeToCancel(reason)).length;
    });
    return this.cancellation.outcome;
  }

  private optionsOf(filename: string, upload: () => Upload): UploadOptions {
    const { onProgress, keepOnDisconnect, offlineMs } = this.options;
    const options: UploadOptions = { filename };
    if (onProgress) options.onProgress = (progress) => onProgress(upload(), progress);
    if (keepOnDisconnect !== undefined) options.keepOnDisconnect = keepOnDisconnect;
    if (offlineMs !== undefined) options.offlineMs = offlineMs;
    return options;
  }

  private async announce(files: readonly Named[]): Promise<{ batchId: string; fileIds: string[] }> {
    if (this.options.signal?.aborted) throw cancelled("before it began");
    if (files.length === 0) throw new UploadError("NO_FILES", "There is nothing to upload here; choose at least one file.");
    if (files.length > MOST_FILES) {
      const count = files.length.toLocaleString("en");
      throw new UploadError(
        "TOO_MANY_FILES",
        `${count} files are too many for one batch (10,000 at most); choose fewer files at once.`,
      );
    }
    const specs = files.map(({ blob, filename }) => ({
      filename,
      sizeBytes: BigInt(blob.size),
      contentType: checkedType(blob.type),
    }));
    const requestId = this.options.requestId ?? newRequestId();
    const { batch, fileIds } = await this.context.api.initiateBatch({ files: specs, requestId }, { retries: 5 });
    this.batchId = batch?.batchId ?? "";
    return { batchId: this.batchId, fileIds };
  }
}

interface Named {
  blob: Blob;
  filename: string;
}

/** So many at a time as a batch takes. */
export function* inBatches<T>(files: Iterable<T>): Generator<T[]> {
  let some: T[] = [];
  for (const file of files) {
    some.push(file);
    if (some.length < MOST_FILES) continue;
    yield some;
    some = [];
  }
  if (some.length > 0) yield some;
}

function sorted(files: Iterable<BatchFile>): { good: Named[]; refused: { file: BatchFile; error: UploadError }[] } {
  const good: Named[] = [];
  const refused: { file: BatchFile; error: UploadError }[] = [];
  for (const file of files) {
    try {
      good.push({ blob: file.blob, filename: checkedName(file.filename ?? nameOf(file.blob)) });
    } catch (error) {
      refused.push({ file, error: error as UploadError });
    }
  }
  return { good, refused };
}
