/**
 * One upload from announcement to its end, over as many sockets as it takes. Must not know pages or batches' rules.
 */

import { mayPass } from "./api.js";
import { reasonOf } from "./cancel.js";
import type { BatchCancelOutcome, Cancellation, CancelOptions, CancelOutcome, SocketHolder } from "./cancel.js";
import { by, cancelled, ended } from "./endings.js";
import { ServiceError, UploadError } from "./errors.js";
import type { File as UploadedFile } from "./gen/upload/v1/upload_pb.js";
import { checkedName, checkedType, nameOf } from "./names.js";
import type { UploadContext, UploadOptions, UploadProgress, UploadState } from "./options.js";
import { Pace } from "./pace.js";
import { Bell, newRequestId } from "./pause.js";
import { Recovery } from "./recovery.js";
import { Session } from "./session.js";
import type { End } from "./session.js";
import type { Release } from "./slots.js";
import { fileStatusWord, isFinal } from "./statuses.js";
import { Stop } from "./stop.js";

/** What the service takes with one write. */
const SMALL_BYTES = 256 * 1024;

/** An upload under way. */
export class Upload implements SocketHolder {
  /** The completed file. Rejects with `UPLOAD_CANCELLED`, or with what went wrong. */
  readonly done: Promise<UploadedFile>;
  fileId: string | undefined;
  state: UploadState = "queued";
  bytesReceived = 0;
  readonly filename: string;
  /** Why it did not complete. */
  error: UploadError | undefined;

  private readonly pace = new Pace();
  private readonly bell = new Bell();
  private readonly recovery: Recovery;
  private readonly stop: Stop;
  private session: Session | undefined;
  /** Over the socket that is open. */
  private allSent = false;
  /** Whether a socket was ever opened: else the file cannot have changed by us. */
  private opened = false;

  constructor(
    private readonly context: UploadContext,
    readonly blob: Blob,
    private readonly options: UploadOptions = {},
  ) {
    this.filename = options.filename ?? nameOf(blob);
    this.fileId = options.fileId;
    this.recovery = new Recovery(context.api, this.bell, options.offlineMs);
    this.stop = new Stop(context.api, {
      closeToCancel: (reason) => this.closeToCancel(reason),
      resume: () => this.session?.release(),
      leave: () => this.session?.leave(),
      changed: () => this.touch(),
    });
    const { signal } = options;
    const onAbort = (): void => void this.cancel({ reason: reasonOf(signal) });
    if (signal?.aborted) this.stop.want({ reason: reasonOf(signal) });
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

  /** The cancel under way or done, if one was asked for. */
  get cancellation(): Cancellation | undefined {
    return this.stop.cancellation;
  }

  /**
   * Cancel. Bytes stop at once, and `state` is `cancelling` until it is known what became of it. Asked again: the same
   * cancel. Undefined when the server never heard of the upload, or the batch's cancel took it along.
   */
  async cancel(options: CancelOptions = {}): Promise<CancelOutcome | undefined> {
    if (!this.over) {
      this.halt(options);
      if (this.fileId !== undefined) void this.stop.begin(this.fileId);
      if (!this.cancellation) await this.done.catch(() => {});
    }
    return this.cancellation?.outcome;
  }

  /** The whole batch is being cancelled: send nothing more and wait for what becomes of that. */
  followBatch(outcome: Promise<BatchCancelOutcome>, options: CancelOptions): void {
    if (this.over) return;
    this.stop.follow(outcome);
    this.halt(options);
  }

  closeToCancel(reason: string): boolean {
    return this.session?.closeToCancel(reason) ?? false;
  }

  /** Try again now: the network is back. */
  wake(): void {
    if (this.state === "interrupted") this.bell.ring();
  }

  private halt(options: CancelOptions): void {
    this.stop.want(options);
    this.session?.hold();
    this.set("cancelling");
    this.bell.ring();
  }

  private async run(): Promise<UploadedFile> {
    let release: Release | undefined;
    // Nobody is told anything before they hold the upload.
    await undefined;
    try {
      if (this.fileId === undefined) checkedName(this.filename);
      if (this.stop.wanted && !this.fileId && !this.context.announced) throw cancelled("before it began");
      this.fileId ??= await this.context.announced;
      release = await this.context.slots.take(
        this.bell,
        () => this.stop.wanted,
        this.context.announced !== undefined,
        this.blob.size <= SMALL_BYTES,
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
      return this.stop.wanted ? 0 : Number((await this.truth()).bytesReceived);
    }
    if (this.stop.wanted) throw cancelled("before it began");
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
    this.recovery.moved();
    for (;;) {
      if (this.stop.wanted) {
        const file = await this.stop.end(fileId, !this.opened, () => this.truth());
        if (file) return file;
      }
      const { whole } = this.context;
      if (whole?.cancelled && !this.opened) throw whole.cancelled;
      const end = await this.open(fileId, offset);
      if (end.kind === "success") return end.file;
      if (end.kind === "cancelled") {
        const error = cancelled(by(end.by, end.reason), end);
        if (whole && end.by === "batch_cancel") whole.cancelled = error;
        throw error;
      }
      if (end.kind === "unreadable") return await this.stopUnreadable(fileId, end.error);
      if (end.kind === "error" && this.recovery.shortens(end.error)) continue;
      if (end.kind === "error") this.recovery.judge(end.error);
      // What becomes of a cancel under way tells more than the socket's end.
      if (this.stop.stands) continue;
      this.set("interrupted");
      await this.recovery.pause(end.kind === "error" ? end.error.retryAfterMs : undefined);
      const file = await this.truth();
      if (isFinal(fileStatusWord(file.status))) return ended(file);
      offset = Number(file.bytesReceived);
      this.hearReceived(offset);
    }
  }

  private async open(fileId: string, offset: number): Promise<End> {
    const { api, WebSocket, quietMs } = this.context;
    const keep = this.options.keepOnDisconnect ?? false;
    const lost = keep ? "on_disconnect=keep" : `grace=${this.recovery.graceMs}ms`;
    const path = `/api/v1/upload/ws/${encodeURIComponent(fileId)}?offset=${offset}&${lost}`;
    if (this.state !== "interrupted") this.set("connecting");
    const protocols = await this.protocols(fileId);
    if (!Array.isArray(protocols)) return protocols;
    this.pace.restart();
    this.opened = true;
    this.allSent = false;
    this.session = new Session({
      url: api.baseUrl.replace(/^http/, "ws") + path,
      protocols,
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
    if (this.stop.wanted) this.session.hold();
    const end = await this.session.ended;
    if (end.kind !== "unreadable") this.session = undefined;
    return end;
  }

  /** What tells the server who opens the next socket; or how the upload goes on without one. */
  private async protocols(fileId: string): Promise<string[] | End> {
    if (!this.context.api.hasToken) return [];
    try {
      const ticket = await this.context.api.createTicket(fileId, { timeoutMs: 5_000 });
      return this.stop.stands ? { kind: "lost" } : ["upload.v1", `upload.ticket.${ticket}`];
    } catch (error) {
      if (error instanceof ServiceError) return { kind: "error", error };
      if (mayPass(error)) return { kind: "lost" };
      throw error;
    }
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
    if (bytes > this.bytesReceived) this.recovery.moved();
    this.bytesReceived = Math.max(this.bytesReceived, bytes);
    this.pace.note(this.bytesReceived);
    this.finishWhenReceived(this.allSent);
    this.touch();
  }

  /** What was sent may still wait in buffers on the way: only what is durable counts. */
  private finishWhenReceived(allSent: boolean): void {
    if (allSent && this.bytesReceived >= this.blob.size && this.state === "sending") this.set("finishing");
  }

  /** The file as the server has it; a cancel that nobody answers makes asking hopeless. */
  private truth(): Promise<UploadedFile> {
    return this.recovery.truth(this.fileId ?? "", () => this.stop.unconfirmed);
  }

  private async stopUnreadable(fileId: string, error: UploadError): Promise<never> {
    this.stop.want({ reason: error.reason === "FILE_CHANGED" ? "the file changed" : "the file became unreadable" });
    this.set("cancelling");
    await this.stop.begin(fileId);
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

  private set(state: UploadState): void {
    // Only an end may follow a cancel that was asked for and not refused.
    const end = state === "completed" || state === "cancelled" || state === "failed";
    this.state = this.stop.stands && !end ? "cancelling" : state;
    this.touch();
  }

  private touch(): void {
    this.options.onProgress?.(this.progress);
  }
}
