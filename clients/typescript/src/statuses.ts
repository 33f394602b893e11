/** The statuses as words, and which of them are final. Must not know where they come from. */

import { BatchStatus, UploadStatus } from "./gen/upload/v1/upload_pb.js";

export type StatusWord = "pending" | "uploading" | "processing" | "completed" | "failed" | "cancelled" | "unknown";

const FILE_WORDS: Readonly<Record<number, StatusWord>> = {
  [UploadStatus.PENDING]: "pending",
  [UploadStatus.UPLOADING]: "uploading",
  [UploadStatus.COMPLETED]: "completed",
  [UploadStatus.FAILED]: "failed",
  [UploadStatus.CANCELLED]: "cancelled",
};

const BATCH_WORDS: Readonly<Record<number, StatusWord>> = {
  [BatchStatus.PENDING]: "pending",
  [BatchStatus.PROCESSING]: "processing",
  [BatchStatus.COMPLETED]: "completed",
  [BatchStatus.FAILED]: "failed",
  [BatchStatus.CANCELLED]: "cancelled",
};

/** A file's status as the word that the service stores, logs and audits. */
export function fileStatusWord(status: UploadStatus): StatusWord {
  return FILE_WORDS[status] ?? "unknown";
}

/** A batch's status as the word that the service stores, logs and audits. */
export function batchStatusWord(status: BatchStatus): StatusWord {
  return BATCH_WORDS[status] ?? "unknown";
}

/** Whether nothing can follow this status. */
export function isFinal(word: StatusWord): boolean {
  return word === "completed" || word === "failed" || word === "cancelled";
}
