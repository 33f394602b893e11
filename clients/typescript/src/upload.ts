/**
 * One upload from announcement to its end, over as many sockets as it takes. Must not know pages or batches' rules.
 */

import { mayPass } from "./api.js";
import type { Api } from "./api.js";
import type { BatchCancelOutcome } from "./batch.js";
import { Cancellation } from "./cancel.js";
import type { CancelOptions, CancelOutcome, SocketHolder } from "./cancel.js";
import { ServiceError, UploadError } from "./errors.js";
import type { File as UploadedFile } from "./gen/upload/v1/upload_pb.js";
import { checkedName, checkedType } from "./names.js";
import { backoff, Bell, dateOf, newRequestId } from "./pause.js";
import { Pace } from "./pace.js";
import { Session } from "./session.js";
import type { End } from "./session.js";
import type { Release, Slots } from "./slots.js";
import { fileStatusWord, isFinal } from "./statuses.js";

/** `queued`: waits for its turn on this page. `interrupted`: the connection was lost and is being opened anew. */
export type UploadState =
  | "queued"
  | "connecting"
  | "sending"
  | "finishing"
  | "interrupted"
  | "cancelling"
  | "completed"
  | "cancelled"
  | "failed";

export interface UploadProgress {
  state: UploadState;
  fileId: string | undefined;
  /** Durable on the server. */
  bytesReceived: number;
  totalBytes: number;
  /** Over the last seconds; undefined while unknown. */
  bytesPerSecond: number | undefined;
  secondsLeft: number | undefined;
}

export interface UploadOptions {
  /** The name to announce; a `File`'s path in its folder, or its name, if left out. */
  filename?: string;
  contentType?: string;
  /** Expected SHA-256 in hex, compared by the server. */
  sha256?: string;
  /** Makes the announcement safe to repeat; made up if left out. */
  requestId?: string;
  /** Continues or begins the bytes of a file that was announced before. */
  fileId?: string;
  /** Hears of every step; cheap work only. */
  onProgress?: (progress: UploadProgress) => void;
  /** Aborting it cancels the upload on the server. Its `reason`, when it is text, is recorded. */
  signal?: AbortSignal;
  /** Keep the upload when the page closes or the connection is lost; by default that cancels it. */
  keepOnDisconnect?: boolean;
  /** Give up when nothing could be sent for so many milliseconds. */
  offlineMs?: number;
}

/** What an upload needs of its client. */
export interface UploadContext {
  api: Api;
  WebSocket: typeof WebSocket;
  slots: Slots;
  quietMs: number;
  /** Announced by somebody else (a batch): resolves to the file's id. */
  announced?: Promise<string>;
}

const OFFLINE_MS = 5 * 60_000;
// Failures in a row without a byte of progress between them.
const MOST_FAILURES = 8;

/** An upload under way. */
export class Upload implements SocketHolder {
  /** The completed file. Rejects with `UPLOAD_CANCELLED`, or with what went wrong. */
  readonly done: Promise<UploadedFile>;
  fileId: string | undefined;
  state: UploadState = "queued";
  bytesReceived = 0;
  readonly filename: string;
  /** The cancel under way or done, if one was asked for. */
  cancellation: Cancellation | undefined;
  /** Why it did not complete. */
  error: UploadError | undefined;

  private readonly pace = new Pace();
  private readonly bell = new Bell();
  private session: Session | undefined;
  /** Over the socket that is open. */
  private allSent = false;
  private failures = 0;
  private aliveAt = Date.now();
  private wantsCancel: CancelOptions | undefined;
  private batchOutcome: Promise<BatchCancelOutcome> | undefined;
  /** Whether a socket was ever opened: else the file cannot have changed by us. */
  private opened = false;

  constructor(
    private readonly context: UploadContext,
    readonly blob: Blob,
    private readonly options: UploadOptions = {},
  ) {
    this.filename = options.filename ?? nameOf(blob);
    this.fileId = options.fileId;
    const { signal } = options;
    const onAbort = (): void => void this.cancel({ reason: textOf(signal?.reason) });
    if (signal?.aborted) this.wantsCancel = { reason: textOf(signal.reason) };
    else signal?.addEventListener("abort", onAbort, { once: true });
    this.done = this.run().finally(() => signal?.removeEventListener("abort", onAbort));
    // Whoever looks at `state` and `error` need not await it.
    this.done.catch(() => {});
  }

  get progress(): UploadProgress {
    const left = this.blob.size - this.bytesReceived;
    const speed = this.state === "sending" ? this.pace.bytesPerSecond : undefined;
    return {
      state: this.state,
      fileId: this.fileId,
      bytesReceived: this.bytesReceived,
      totalBytes: this.blob.size,
      bytesPerSecond: speed,
      secondsLeft: speed ? left / speed : undefined,
    };
  }

  /** Whether nothing can follow. */
  get over(): boolean {
    return this.state === "completed" || this.state === "cancelled" || this.state === "failed";
  }

  /**
   * Cancel. Bytes stop at once, and `state` is `cancelling` until it is known what became of it. Asked again: the same
   * cancel. Undefined when the server never heard of the upload, or the batch's cancel took it along.
   */
  async cancel(options: CancelOptions = {}): Promise<CancelOutcome | undefined> {
    if (!this.over) {
      this.stop(options);
      if (this.fileId !== undefined && !this.batchOutcome) this.begin(this.fileId);
      if (!this.cancellation) await this.done.catch(() => {});
    }
    return this.cancellation?.outcome;
  }

  /** The whole batch is being cancelled: send nothing more and wait for what becomes of that. */
  followBatch(outcome: Promise<BatchCancelOutcome>, options: CancelOptions): void {
    if (this.over) return;
    this.batchOutcome = outcome;
    this.stop(options);
    void outcome.then(({ state }) => {
      if (state === "refused") this.session?.release();
    });
  }

  private stop(options: CancelOptions): void {
    this.wantsCancel ??= options;
    this.session?.hold();
    this.set("cancelling");
    this.bell.ring();
  }

  closeToCancel(reason: string): boolean {
    return this.session?.closeToCancel(reason) ?? false;
  }

  private begin(fileId: string): Cancellation {
    this.cancellation ??= new Cancellation(this.context.api, fileId, this.wantsCancel, this, () => this.touch());
    void this.cancellation.outcome.then((outcome) => this.hearOutcome(outcome));
    return this.cancellation;
  }

  private hearOutcome(outcome: CancelOutcome): void {
    if (outcome.state === "refused") this.session?.release();
    else this.session?.leave();
  }

  private async run(): Promise<UploadedFile> {
    let release: Release | undefined;
    // Nobody is told anything before they hold the upload.
    await undefined;
    try {
      if (this.fileId === undefined) checkedName(this.filename);
      if (this.wantsCancel && !this.fileId && !this.context.announced) throw cancelled("before it began");
      this.fileId ??= await this.context.announced;
      release = await this.context.slots.take(
        this.bell,
        () => this.wantsCancel !== undefined,
        this.context.announced !== undefined,
      );
      const file = await this.carry(await this.announce());
      return this.finish(file);
    } catch (error) {
      throw this.fail(error instanceof UploadError ? error : new UploadError("INTERNAL", String(error)));
    } finally {
      release?.();
    }
  }

  /** Announce the file; returns where to begin. */
  private async announce(): Promise<number> {
    if (this.fileId !== undefined) {
      if (!this.options.fileId) return 0;
      return this.wantsCancel ? 0 : Number((await this.truth()).bytesReceived);
    }
    if (this.wantsCancel) throw cancelled("before it began");
    this.set("connecting");
    const { sha256, requestId, contentType } = this.options;
    const { file } = await this.context.api.initiateUpload(
      {
        filename: checkedName(this.filename),
        sizeBytes: BigInt(this.blob.size),
        contentType: checkedType(contentType ?? this.blob.type),
        sha256: sha256 ?? "",
        requestId: requestId ?? newRequestId(),
      },
      { retries: 5 },
    );
    this.fileId = file?.fileId ?? "";
    this.touch();
    return Number(file?.bytesReceived ?? 0);
  }

  /** Socket after socket, until the file is final. */
  private async carry(offset: number): Promise<UploadedFile> {
    const fileId = this.fileId ?? "";
    this.aliveAt = Date.now();
    for (;;) {
      if (this.wantsCancel) {
        const file = await this.endOfCancel(fileId);
        if (file) return file;
      }
      const end = await this.open(fileId, offset);
      if (end.kind === "success") return end.file;
      if (end.kind === "cancelled") throw cancelled(`by ${end.by || "somebody"}`, end);
      if (end.kind === "unreadable") return await this.stopUnreadable(fileId, end.error);
      if (end.kind === "error") this.judge(end.error);
      // What becomes of a cancel under way tells more than the socket's end.
      if (this.wantsCancel && !this.refused) continue;
      const file = await this.pauseAndLook(end);
      if (isFinal(fileStatusWord(file.status))) return ended(file);
      offset = Number(file.bytesReceived);
      this.hearReceived(offset);
    }
  }

  private async open(fileId: string, offset: number): Promise<End> {
    const { api, WebSocket, quietMs } = this.context;
    const keep = this.options.keepOnDisconnect ?? false;
    const path = `/api/v1/upload/ws/${encodeURIComponent(fileId)}?offset=${offset}${keep ? "&on_disconnect=keep" : ""}`;
    if (this.state !== "interrupted") this.set("connecting");
    this.pace.restart();
    this.opened = true;
    this.allSent = false;
    this.session = new Session({
      url: api.baseUrl.replace(/^http/, "ws") + path,
      blob: this.blob,
      offset,
      sha256: this.options.sha256 ?? "",
      WebSocket,
      sleep: api.sleep,
      keep,
      onOpen: () => this.set("sending"),
      onReceived: (bytes) => this.hearReceived(bytes),
      onAllSent: () => this.finishWhenReceived((this.allSent = true)),
      quietMs,
      onQuiet: (allSent) => this.stillThere(fileId, allSent),
    });
    if (this.wantsCancel) this.session.hold();
    const end = await this.session.ended;
    if (end.kind !== "unreadable") this.session = undefined;
    return end;
  }

  /** The connection is silent. After the last byte that may be right: the server is checking what it has. */
  private async stillThere(fileId: string, allSent: boolean): Promise<boolean> {
    try {
      const file = await this.context.api.getFile(fileId, { timeoutMs: 5_000, retries: 0 });
      return allSent && !isFinal(fileStatusWord(file.status));
    } catch {
      return false;
    }
  }

  private hearReceived(bytes: number): void {
    if (bytes > this.bytesReceived) {
      this.failures = 0;
      this.aliveAt = Date.now();
    }
    this.bytesReceived = Math.max(this.bytesReceived, bytes);
    this.pace.note(this.bytesReceived);
    this.finishWhenReceived(this.allSent);
    this.touch();
  }

  /** What was sent may still wait in buffers on the way: only what is durable counts. */
  private finishWhenReceived(allSent: boolean): void {
    if (allSent && this.bytesReceived >= this.blob.size && this.state === "sending") this.set("finishing");
  }

  /** Throws the error unless another socket may do better. */
  private judge(error: ServiceError): void {
    const asks = error.reason === "OFFSET_MISMATCH" || error.reason === "FILE_NOT_WRITABLE" || error.transient;
    if (!asks || ++this.failures > MOST_FAILURES) throw error;
  }

  /** Wait a little, then learn from the server what is so. */
  private async pauseAndLook(end: End): Promise<UploadedFile> {
    this.set("interrupted");
    const asked = end.kind === "error" ? end.error.retryAfterMs : undefined;
    await this.bell.heard(asked ?? backoff(this.failures), this.context.api.sleep);
    return this.truth();
  }

  /** The file as the server has it, asked until there is an answer or patience ends. */
  private async truth(): Promise<UploadedFile> {
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.context.api.getFile(this.fileId ?? "", { timeoutMs: 5_000, retries: 0 });
      } catch (error) {
        const known = this.cancellation?.result;
        if (known?.state === "unconfirmed") throw known.error;
        const late = Date.now() - this.aliveAt > (this.options.offlineMs ?? OFFLINE_MS);
        if (late || !mayPass(error)) throw error;
        await this.bell.heard(backoff(attempt), this.context.api.sleep);
      }
    }
  }

  /** A cancel was asked for: wait for its outcome. Undefined when it was refused and the upload simply goes on. */
  private async endOfCancel(fileId: string): Promise<UploadedFile | undefined> {
    if (this.batchOutcome) return this.endOfBatchCancel(await this.batchOutcome);
    const outcome = await this.begin(fileId).outcome;
    if (outcome.state === "cancelled") throw cancelled(`by ${outcome.cancelledBy || "user"}`, outcome);
    if (outcome.state === "unconfirmed") throw outcome.error;
    if (outcome.error.reason !== "FILE_NOT_CANCELLABLE") throw outcome.error;
    return ended(await this.truth());
  }

  private async endOfBatchCancel(outcome: BatchCancelOutcome): Promise<UploadedFile | undefined> {
    if (outcome.state === "unconfirmed") throw outcome.error;
    const file = this.opened || outcome.state === "refused" ? await this.truth() : undefined;
    if (file && isFinal(fileStatusWord(file.status))) return ended(file);
    if (outcome.state === "cancelled") throw cancelled("with its batch", { cancelledBy: "batch_cancel", ...outcome });
    this.wantsCancel = this.batchOutcome = undefined;
    return undefined;
  }

  private async stopUnreadable(fileId: string, error: UploadError): Promise<never> {
    this.wantsCancel ??= { reason: error.reason === "FILE_CHANGED" ? "the file changed" : "the file became unreadable" };
    this.set("cancelling");
    if (!this.batchOutcome) await this.begin(fileId).outcome;
    this.session?.leave();
    throw error;
  }

  private finish(file: UploadedFile): UploadedFile {
    this.bytesReceived = this.blob.size;
    this.set("completed");
    return file;
  }

  private fail(error: UploadError): UploadError {
    this.error = error;
    this.set(error.reason === "UPLOAD_CANCELLED" ? "cancelled" : "failed");
    return error;
  }

  /** Whether a cancel was asked for in vain. */
  private get refused(): boolean {
    return this.cancellation?.result?.state === "refused";
  }

  /** Try again now: the network is back. */
  wake(): void {
    if (this.state === "interrupted") this.bell.ring();
  }

  private set(state: UploadState): void {
    // Only an end may follow a cancel that was asked for and not refused.
    const end = state === "completed" || state === "cancelled" || state === "failed";
    if (this.wantsCancel && !this.refused && !end) this.state = "cancelling";
    else this.state = state;
    this.touch();
  }

  private touch(): void {
    this.options.onProgress?.(this.progress);
  }
}

/** The end of a final file: itself, or why it did not complete. */
function ended(file: UploadedFile): UploadedFile {
  const status = fileStatusWord(file.status);
  if (status === "completed") return file;
  if (status === "cancelled") {
    const at = dateOf(file.cancelledAt);
    throw cancelled(`by ${file.cancelledBy || "somebody"}`, { at, by: file.cancelledBy, reason: file.cancelReason });
  }
  const why = file.failureReason === "expired" ? "UPLOAD_EXPIRED" : "CHECKSUM_MISMATCH";
  const message =
    why === "UPLOAD_EXPIRED"
      ? "The upload was left alone for too long and has expired; upload the file anew."
      : "What arrived is not what was announced (its checksum differs); upload the file anew.";
  throw new UploadError(why, message, { file_id: file.fileId, status });
}

function cancelled(
  how: string,
  facts: { at?: Date | undefined; cancelledAt?: Date | undefined; by?: string; cancelledBy?: string; reason?: string } = {},
): UploadError {
  const at = facts.at ?? facts.cancelledAt;
  const metadata: Record<string, string> = { status: "cancelled" };
  if (at) metadata["cancelled_at"] = at.toISOString();
  if (facts.cancelledBy ?? facts.by) metadata["cancelled_by"] = facts.cancelledBy ?? facts.by ?? "";
  if (facts.reason) metadata["cancel_reason"] = facts.reason;
  return new UploadError(
    "UPLOAD_CANCELLED",
    `The upload was cancelled ${how} and its bytes are removed; upload the file anew if you still need it.`,
    metadata,
  );
}

function nameOf(blob: Blob): string {
  const file = blob as Partial<File>;
  return file.webkitRelativePath || file.name || "unnamed";
}

function textOf(reason: unknown): string {
  return typeof reason === "string" ? reason : "";
}
