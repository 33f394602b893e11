/**
 * Every error this module throws: what happened and what to do, in one sentence, and a `reason` to branch on.
 * Must not know requests. The service's own reasons are those of its contract.
 */

import { visible } from "./visible.js";

/** Reasons the service gives (`google.rpc.ErrorInfo.reason`). A newer service may give others. */
export type ServiceReason =
  | "FILE_NOT_FOUND"
  | "BATCH_NOT_FOUND"
  | "FILE_NOT_CANCELLABLE"
  | "BATCH_NOT_CANCELLABLE"
  | "FILE_NOT_WRITABLE"
  | "UPLOAD_CANCELLED"
  | "WRITER_REPLACED"
  | "OFFSET_MISMATCH"
  | "UPLOAD_INCOMPLETE"
  | "SIZE_EXCEEDED"
  | "CHECKSUM_MISMATCH"
  | "UNEXPECTED_MESSAGE"
  | "INVALID_FIELD"
  | "REQUEST_ID_REUSED"
  | "BODY_TOO_LARGE"
  | "OVERLOADED"
  | "RATE_EXCEEDED"
  | "QUOTA_EXCEEDED"
  | "FILE_NOT_COMPLETED"
  | "CONTENT_DELETED"
  | "UPLOAD_IDLE"
  | "SHUTTING_DOWN"
  | "DATABASE_FAILURE"
  | "STORAGE_FAILURE"
  | "STORAGE_FULL"
  | "OUTCOME_UNKNOWN"
  | "INTERNAL"
  | "ORIGIN_NOT_ALLOWED"
  | "HOST_NOT_ALLOWED"
  | "UNAUTHENTICATED"
  | "CREDENTIAL_MISSING"
  | "CREDENTIAL_INVALID"
  | "CREDENTIAL_EXPIRED"
  | "PERMISSION_DENIED";

/** Reasons found on this side, without an answer of the service. */
export type LocalReason =
  | "NO_ANSWER"
  | "NOT_OUR_ANSWER"
  | "NO_TOKEN"
  | "TOKEN_EXPOSED"
  | "FILE_CHANGED"
  | "FILE_UNREADABLE"
  | "INVALID_NAME"
  | "TOO_MANY_FILES"
  | "NO_FILES"
  | "UPLOAD_EXPIRED";

export type Reason = ServiceReason | LocalReason;

/** What every error here is. `message` is one sentence for a person; branch on `reason`. */
export class UploadError extends Error {
  override readonly name: string = "UploadError";

  constructor(
    readonly reason: Reason,
    message: string,
    /** Ids and the state found, as the service told them. */
    readonly metadata: Readonly<Record<string, string>> = {},
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** The service answered, and the answer is no. */
export class ServiceError extends UploadError {
  override readonly name = "ServiceError";

  constructor(
    reason: Reason,
    /** HTTP status, or 0 for an error told over a WebSocket or a watch. */
    readonly httpStatus: number,
    /** `google.rpc.Code`. */
    readonly code: number,
    /** The service's own words. */
    readonly serverMessage: string,
    metadata: Readonly<Record<string, string>>,
    /** Which fields of the request were refused, and why. */
    readonly violations: Readonly<Record<string, string>>,
    /** How long to wait before a retry, in milliseconds, if the service said so. */
    readonly retryAfterMs: number | undefined,
  ) {
    super(reason, sentence(reason, serverMessage, metadata, violations), metadata);
  }

  /** The state that a refused cancel or upload has found: `completed`, `failed` or `cancelled`. */
  get status(): string | undefined {
    return this.metadata["status"];
  }

  /** Whether the same request may do better later: the service failed or was busy, rather than said no. */
  get transient(): boolean {
    if (FINAL.has(this.reason)) return false;
    return TRANSIENT.has(this.reason) || this.httpStatus >= 500 || this.httpStatus === 429;
  }

  /** Whether the service does not know who calls, or not any more. */
  get notSignedIn(): boolean {
    return this.reason.startsWith("CREDENTIAL_") || this.reason === "UNAUTHENTICATED";
  }
}

/** Only who calls, or the service's operator, can do something about these. */
const FINAL: ReadonlySet<string> = new Set(["QUOTA_EXCEEDED", "STORAGE_FULL"]);

const TRANSIENT: ReadonlySet<string> = new Set([
  "OVERLOADED",
  "RATE_EXCEEDED",
  "UPLOAD_IDLE",
  "SHUTTING_DOWN",
  "DATABASE_FAILURE",
  "STORAGE_FAILURE",
  "OUTCOME_UNKNOWN",
  "INTERNAL",
]);

/** Whether an error has this reason. */
export function hasReason(error: unknown, reason: Reason): error is UploadError {
  return error instanceof UploadError && error.reason === reason;
}

/** Nobody answered. */
export function noAnswer(url: string, cause: unknown): UploadError {
  const at = origin(url);
  return new UploadError(
    "NO_ANSWER",
    `The server${at} does not answer; check that it runs, your network and its certificate, then try again.`,
    {},
    { cause },
  );
}

function origin(url: string): string {
  try {
    return ` at ${new URL(url).host}`;
  } catch {
    return "";
  }
}

interface StatusJson {
  code?: number;
  message?: string;
  details?: ReadonlyArray<{
    "@type"?: string;
    reason?: string;
    metadata?: Record<string, string>;
    field_violations?: ReadonlyArray<{ field?: string; description?: string }>;
    fieldViolations?: ReadonlyArray<{ field?: string; description?: string }>;
    retry_delay?: string;
    retryDelay?: string;
  }>;
}

/** Read a `google.rpc.Status` in JSON; a body that is none (a proxy's page) still becomes an error. */
export function errorOfStatus(body: unknown, httpStatus: number): ServiceError {
  const status: StatusJson = typeof body === "object" && body !== null ? body : {};
  let reason: string | undefined;
  let metadata: Record<string, string> = {};
  const violations: Record<string, string> = {};
  let retryAfterMs: number | undefined;
  for (const detail of Array.isArray(status.details) ? status.details : []) {
    const type = detail["@type"] ?? "";
    if (type.endsWith("google.rpc.ErrorInfo")) {
      reason = detail.reason;
      metadata = detail.metadata ?? {};
    } else if (type.endsWith("google.rpc.BadRequest")) {
      for (const violation of detail.field_violations ?? detail.fieldViolations ?? []) {
        violations[violation.field ?? ""] = violation.description ?? "";
      }
    } else if (type.endsWith("google.rpc.RetryInfo")) {
      retryAfterMs = 1000 * Number.parseFloat(detail.retry_delay ?? detail.retryDelay ?? "1s");
    }
  }
  const found = (reason ?? reasonOfHttp(httpStatus)) as Reason;
  return new ServiceError(found, httpStatus, status.code ?? 2, status.message ?? "", metadata, violations, retryAfterMs);
}

function reasonOfHttp(httpStatus: number): Reason {
  if (httpStatus === 401) return "UNAUTHENTICATED";
  if (httpStatus === 403) return "PERMISSION_DENIED";
  if (httpStatus === 413) return "BODY_TOO_LARGE";
  if (httpStatus === 429) return "OVERLOADED";
  return httpStatus >= 500 ? "INTERNAL" : "NOT_OUR_ANSWER";
}

/** What happened and what to do, for a person. */
function sentence(
  reason: Reason,
  said: string,
  metadata: Readonly<Record<string, string>>,
  violations: Readonly<Record<string, string>>,
): string {
  const state = visible(metadata["status"] ?? "final");
  const fields = visible(Object.entries(violations).map(([field, what]) => `${field} ${what}`).join("; "));
  switch (reason) {
    case "FILE_NOT_FOUND":
      return "The server knows no such upload; check the id, or look for the file in the list.";
    case "BATCH_NOT_FOUND":
      return "The server knows no such batch; check the id, or look for its files in the list.";
    case "FILE_NOT_CANCELLABLE":
      return `Too late to cancel: the upload is ${state} already, and nothing was changed.`;
    case "BATCH_NOT_CANCELLABLE":
      return `Too late to cancel: the batch is ${state} already, and nothing was changed.`;
    case "FILE_NOT_WRITABLE":
      return `The upload is ${state} already and takes no more bytes; upload the file anew if you still need it.`;
    case "UPLOAD_CANCELLED":
      return "The upload was cancelled and its bytes are removed; upload the file anew if you still need it.";
    case "WRITER_REPLACED":
      return "The upload goes on in another tab or program; follow it there.";
    case "SIZE_EXCEEDED":
    case "OFFSET_MISMATCH":
    case "UPLOAD_INCOMPLETE":
    case "UNEXPECTED_MESSAGE":
      return "The server and this page no longer agree on how far the upload is; upload the file anew.";
    case "CHECKSUM_MISMATCH":
      return "What arrived is not what was announced (its checksum differs); upload the file anew.";
    case "INVALID_FIELD":
      return fields ? `The server refuses this: ${fields}; correct it and try again.` : refused(said);
    case "REQUEST_ID_REUSED":
      return "This request id was used for another request before; use a new one.";
    case "BODY_TOO_LARGE":
      return "That is too much for one request; choose fewer files at once.";
    case "OVERLOADED":
      return "The server is busy; wait a few seconds and try again.";
    case "RATE_EXCEEDED":
      return "That was too much at once; wait a moment and try again.";
    case "QUOTA_EXCEEDED":
      return quotaSentence(metadata);
    case "FILE_NOT_COMPLETED":
      return `The upload is ${state}, and only a completed file has content; look again when it is.`;
    case "CONTENT_DELETED":
      return "The content of this file was deleted; upload it again if it is still wanted.";
    case "SHUTTING_DOWN":
      return "The server is restarting; try again in a moment.";
    case "UPLOAD_IDLE":
      return "The server heard nothing for too long; upload the file again to go on.";
    case "DATABASE_FAILURE":
    case "STORAGE_FAILURE":
      return "The server could not store this and changed nothing; try again, and tell its operator if it stays so.";
    case "STORAGE_FULL":
      return "The server has no room left; cancel what is no longer wanted, or tell its operator.";
    case "OUTCOME_UNKNOWN":
      return "The server does not know yet whether this took effect; try again and it will tell.";
    case "ORIGIN_NOT_ALLOWED":
    case "HOST_NOT_ALLOWED":
      return "The server does not take requests of this page's address; open the page at the server's own address.";
    case "CREDENTIAL_MISSING":
      return "You are not signed in; sign in and repeat this.";
    case "CREDENTIAL_INVALID":
    case "CREDENTIAL_EXPIRED":
    case "UNAUTHENTICATED":
      return "You are not signed in any more; sign in again and repeat this.";
    case "PERMISSION_DENIED":
      return "You may not do this; ask the server's operator.";
    case "INTERNAL": {
      const incident = metadata["incident"];
      return `The server failed${incident ? ` (incident ${visible(incident)})` : ""}; try again, and tell its operator if it stays so.`;
    }
    default:
      return refused(said);
  }
}

function quotaSentence({ limit = "", quota = "", used = "" }: Readonly<Record<string, string>>): string {
  const figures = limit && quota ? ` (${visible(limit.replace("-", " "))}: ${visible(used)} of ${visible(quota)})` : "";
  return `You have as much as you may${figures}; finish or cancel something, or ask the server's operator for more.`;
}

function refused(said: string): string {
  return said ? `The server refuses this: ${visible(said)}` : "Something else than the upload service answered; check the address.";
}
