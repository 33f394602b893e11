/**
 * A cancel that makes sure: over HTTP first; when nobody answers in time, by closing the upload's socket; and then it
 * asks until it knows. An answer is final. Must not know how sockets or requests work.
 */

import { mayPass, waitOf } from "./api.js";
import type { Api } from "./api.js";
import { ServiceError, UploadError } from "./errors.js";
import type { File as UploadedFile } from "./gen/upload/v1/upload_pb.js";
import { backoff, dateOf, newRequestId } from "./pause.js";
import { fileStatusWord, isFinal } from "./statuses.js";

/** Milliseconds that HTTP has for an answer before the socket is closed instead. */
export const HTTP_PATIENCE_MS = 2_000;
/** Milliseconds of asking before giving up on knowing. */
const MOST_ASKING_MS = 30_000;

export interface CancelOptions {
  /** Why, for those who watch and for the audit trail; at most 500 characters. */
  reason?: string;
  /** Makes a repetition of this very cancel safe; made up if left out. */
  requestId?: string;
  /** How long HTTP may take before the socket is closed, in milliseconds. */
  httpPatienceMs?: number;
  /** How long to go on asking when nobody answers, in milliseconds. */
  giveUpMs?: number;
}

/** What became of a cancel. */
export type CancelOutcome =
  | {
      state: "cancelled";
      /** What worked: the HTTP call, closing the socket, or somebody else before us. */
      by: "http" | "websocket" | "other";
      cancelledAt: Date | undefined;
      /** `user`, `batch_cancel`, `websocket_close`, …; as the service recorded it, where it told. */
      cancelledBy: string;
    }
  /** The service said no: too late (`error.status` tells the state found), unknown, malformed. Nothing was changed. */
  | { state: "refused"; error: ServiceError }
  /** Nobody answered. `socketClosed`: the upload's socket was closed, so the server cancels when it hears of it. */
  | { state: "unconfirmed"; socketClosed: boolean; error: UploadError };

/** What became of a batch's cancel. */
export type BatchCancelOutcome =
  | {
      state: "cancelled";
      /** How many files this call cancelled; those that were final before are not among them. */
      cancelledFilesCount: number;
      totalFilesInBatch: number;
      cancelledAt: Date | undefined;
    }
  | { state: "refused"; error: ServiceError }
  /** Nobody answered; so many sockets of this page were closed, which cancels their files. */
  | { state: "unconfirmed"; socketsClosed: number; error: UploadError };

/** Why a signal was aborted, as the service may record it: text only. */
export function reasonOf(signal: AbortSignal | undefined): string {
  return typeof signal?.reason === "string" ? signal.reason : "";
}

/** What this page holds of an upload, for when HTTP does not work. */
export interface SocketHolder {
  /** Close the socket so that the upload is cancelled; whether there was an open one. */
  closeToCancel(reason: string): boolean;
}

/** A cancel under way. */
export class Cancellation {
  readonly requestId: string;
  private readonly traceparent: string | undefined;
  /** Never rejects. */
  readonly outcome: Promise<CancelOutcome>;
  /** What is known; undefined while `pending`. */
  result: CancelOutcome | undefined;
  /** Which way it is being tried at the moment. */
  trying: "http" | "websocket" = "http";

  constructor(
    private readonly api: Api,
    readonly fileId: string,
    private readonly options: CancelOptions = {},
    private readonly holder?: SocketHolder | undefined,
    private readonly onChange: (cancellation: Cancellation) => void = () => {},
  ) {
    this.requestId = options.requestId ?? newRequestId();
    this.traceparent = api.traceparent();
    this.outcome = this.run().then((result) => {
      this.result = result;
      this.onChange(this);
      return result;
    });
  }

  /** Whether it is not known yet what becomes of it. */
  get pending(): boolean {
    return this.result === undefined;
  }

  private async run(): Promise<CancelOutcome> {
    const patience = this.options.httpPatienceMs ?? HTTP_PATIENCE_MS;
    const first = await this.ask(patience);
    if (!(first instanceof UploadError)) return first;
    const closed = this.holder?.closeToCancel(this.options.reason ?? "") ?? false;
    this.trying = closed ? "websocket" : "http";
    this.onChange(this);
    return this.find(closed, first);
  }

  /** Ask over HTTP once; an UploadError when there was no answer to hold on to. */
  private async ask(timeoutMs: number): Promise<CancelOutcome | UploadError> {
    const { fileId, requestId, traceparent } = this;
    try {
      const answer = await this.api.cancelFile(
        { fileId, requestId, reason: this.options.reason ?? "" },
        { timeoutMs, traceparent },
      );
      const cancelledAt = dateOf(answer.cancelledAt);
      return { state: "cancelled", by: "http", cancelledAt, cancelledBy: "user" };
    } catch (error) {
      if (error instanceof ServiceError && !error.transient) return refusedOrDone(error);
      return error instanceof UploadError ? error : new UploadError("NO_ANSWER", String(error));
    }
  }

  /** Nobody answered in time: find out what is so, and go on asking for the cancel, with the same request id. */
  private async find(closed: boolean, first: UploadError): Promise<CancelOutcome> {
    const until = performance.now() + (this.options.giveUpMs ?? MOST_ASKING_MS);
    let last = first;
    for (let attempt = 0; performance.now() < until; attempt++) {
      const wait = waitOf(last) ?? backoff(attempt, 100, 2_000);
      await this.api.sleep(Math.min(wait, Math.max(0, until - performance.now())));
      try {
        const file = await this.api.getFile(this.fileId, { timeoutMs: HTTP_PATIENCE_MS, retries: 0, traceparent: this.traceparent });
        if (isFinal(fileStatusWord(file.status))) return outcomeOf(file, closed);
      } catch (error) {
        if (!(error instanceof UploadError)) throw error;
        if (!mayPass(error)) {
          // Nobody is told of what their closed socket has cancelled, who is not signed in any more.
          const answered = error instanceof ServiceError && !(closed && error.notSignedIn);
          return answered ? { state: "refused", error } : { state: "unconfirmed", socketClosed: closed, error };
        }
        last = error;
      }
      // A close takes a moment to be heard; the same cancel asked again is the surer way after that.
      if (!closed || attempt >= 2) {
        const again = await this.ask(HTTP_PATIENCE_MS);
        if (!(again instanceof UploadError)) return again;
        last = again;
      }
    }
    return { state: "unconfirmed", socketClosed: closed, error: unconfirmed(closed, last) };
  }
}

/** A refusal, unless it says that the file is what was wanted: cancelled. */
function refusedOrDone(error: ServiceError): CancelOutcome {
  if (error.reason !== "FILE_NOT_CANCELLABLE" || error.status !== "cancelled") return { state: "refused", error };
  const at = error.metadata["cancelled_at"];
  const cancelledBy = error.metadata["cancelled_by"] ?? "";
  return { state: "cancelled", by: "other", cancelledAt: at ? new Date(at) : undefined, cancelledBy };
}

function outcomeOf(file: UploadedFile, closed: boolean): CancelOutcome {
  const status = fileStatusWord(file.status);
  if (status !== "cancelled") {
    const metadata = { file_id: file.fileId, status, revision: String(file.revision) };
    return { state: "refused", error: new ServiceError("FILE_NOT_CANCELLABLE", 0, 9, "", metadata, {}, undefined) };
  }
  const byClose = file.cancelledBy === "websocket_close";
  return {
    state: "cancelled",
    by: byClose && closed ? "websocket" : file.cancelledBy.startsWith("user") ? "http" : "other",
    cancelledAt: dateOf(file.cancelledAt),
    cancelledBy: file.cancelledBy,
  };
}

function unconfirmed(closed: boolean, cause: UploadError): UploadError {
  const message = closed
    ? "The server does not answer; this upload's connection was closed, which cancels it, but that is not confirmed yet: " +
      "look again when the server is back."
    : "The server does not answer, so it is not known whether the upload was cancelled: try again when it is back.";
  return new UploadError("NO_ANSWER", message, {}, { cause });
}
