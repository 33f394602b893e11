/** What callers say to an upload and hear of it, and what it needs of its client. Types only. */

import type { Api } from "./api.js";
import type { UploadError } from "./errors.js";
import type { Slots } from "./slots.js";

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
  /**
   * Give up when nothing could be sent for so many milliseconds, 5 minutes by default. The service is asked to wait as
   * long for a connection that is lost before it cancels; it may have a limit, which then holds here, too.
   */
  offlineMs?: number;
}

/** What `put` may be told. */
export type PutOptions = Pick<UploadOptions, "filename" | "contentType" | "sha256" | "requestId">;

/** What `deleteContent` may be told. */
export interface DeleteOptions {
  /** Why, for the audit trail; at most 500 characters. */
  reason?: string;
  /** Makes a repetition of this very call safe; made up if left out. */
  requestId?: string;
}

/** What an upload needs of its client. */
export interface UploadContext {
  api: Api;
  WebSocket: typeof WebSocket;
  slots: Slots;
  quietMs: number;
  /** Announced by somebody else (a batch): resolves to the file's id. */
  announced?: Promise<string>;
  /** What the uploads of a batch know together: how it was cancelled as a whole, which no other file has to ask for. */
  whole?: { cancelled?: UploadError };
}
