/**
 * What the page holds of one file or batch: what the service has told of it, and what this page does to it.
 * Must not know lists or elements.
 */

import { batchStatusWord, dateOf, fileStatusWord } from "../src/index.js";
import type { Batch, BatchUpload, Cancellation, StatusWord, Upload, UploadedFile, UploadProgress } from "../src/index.js";
import { Pace } from "../src/pace.js";
import type { Listing } from "./listing.js";

export interface FileRow {
  key: string;
  fileId: string;
  filename: string;
  size: number;
  received: number;
  status: StatusWord;
  batchId: string;
  owner: string;
  createdAt: Date;
  updatedAt: Date;
  cancelledBy: string;
  cancelReason: string;
  failureReason: string;
  revision: bigint;
  /** All that the service has told of it. */
  record: UploadedFile | undefined;
  /** Begun by this page, and not dismissed. */
  own: boolean;
  /** This page's upload of it. */
  upload: Upload | undefined;
  progress: UploadProgress | undefined;
  /** This page's cancel of it. */
  cancellation: Cancellation | undefined;
  /** How fast it goes, by what the service tells. */
  pace: Pace;
  /** Why this page could not upload it, in one sentence. */
  problem: string;
}

export interface BatchRow {
  key: string;
  batchId: string;
  status: StatusWord;
  owner: string;
  total: number;
  completed: number;
  failed: number;
  cancelled: number;
  createdAt: Date;
  updatedAt: Date;
  cancelledBy: string;
  cancelReason: string;
  revision: bigint;
  /** The name of its first file; undefined while it is not known. */
  firstName: string | undefined;
  /** All that the service has told of it. */
  record: Batch | undefined;
  /** Begun by this page, and not dismissed. */
  own: boolean;
  upload: BatchUpload | undefined;
  /** How fast this page sends it. */
  pace: Pace;
  /** Why this page could not begin it, in one sentence. */
  problem: string;
  /** What this page's cancel of it is doing, or has come to, in one sentence. */
  cancelling: "" | "pending" | "done" | "refused";
  outcome: string;
  /** Its files, while they are shown, in the order of their announcement. */
  files: Listing<FileRow> | undefined;
}

/** Whether this page has nothing more to do for what it began. */
export function isOver(row: FileRow | BatchRow): boolean {
  if (!isBatch(row)) return row.upload?.over ?? true;
  return row.problem !== "" || (row.upload?.uploads.every(({ over }) => over) ?? true);
}

export function isBatch(item: FileRow | BatchRow): item is BatchRow {
  return "files" in item;
}

/** Take over what the service tells, unless newer is known. */
export function fill(row: FileRow, file: UploadedFile): FileRow {
  if (row.revision >= file.revision) return row;
  row.filename = file.filename;
  row.size = Number(file.sizeBytes);
  row.received = Math.max(row.received, Number(file.bytesReceived));
  row.status = fileStatusWord(file.status);
  row.batchId = file.batchId;
  row.owner = file.owner;
  row.record = file;
  row.createdAt = dateOf(file.createdAt) ?? row.createdAt;
  row.updatedAt = dateOf(file.updatedAt) ?? row.updatedAt;
  row.cancelledBy = file.cancelledBy;
  row.cancelReason = file.cancelReason;
  row.failureReason = file.failureReason;
  row.revision = file.revision;
  return row;
}

export function fillBatch(row: BatchRow, batch: Batch): BatchRow {
  if (row.revision >= batch.revision) return row;
  row.status = batchStatusWord(batch.status);
  row.owner = batch.owner;
  row.record = batch;
  row.total = batch.totalFiles;
  row.completed = batch.completedFiles;
  row.failed = batch.failedFiles;
  row.cancelled = batch.cancelledFilesCount;
  row.createdAt = dateOf(batch.createdAt) ?? row.createdAt;
  row.updatedAt = dateOf(batch.updatedAt) ?? row.updatedAt;
  row.cancelledBy = batch.cancelledBy;
  row.cancelReason = batch.cancelReason;
  row.revision = batch.revision;
  return row;
}

export function emptyRow(fileId: string): FileRow {
  const now = new Date();
  return {
    key: fileId,
    fileId,
    filename: "",
    size: 0,
    received: 0,
    status: "pending",
    batchId: "",
    owner: "",
    createdAt: now,
    updatedAt: now,
    cancelledBy: "",
    cancelReason: "",
    failureReason: "",
    revision: 0n,
    record: undefined,
    own: false,
    upload: undefined,
    progress: undefined,
    cancellation: undefined,
    pace: new Pace(),
    problem: "",
  };
}

export function emptyBatch(batchId: string): BatchRow {
  const now = new Date();
  return {
    key: `batch ${batchId}`,
    batchId,
    status: "pending",
    owner: "",
    total: 0,
    completed: 0,
    failed: 0,
    cancelled: 0,
    createdAt: now,
    updatedAt: now,
    cancelledBy: "",
    cancelReason: "",
    revision: 0n,
    firstName: undefined,
    record: undefined,
    own: false,
    upload: undefined,
    pace: new Pace(),
    problem: "",
    cancelling: "",
    outcome: "",
    files: undefined,
  };
}
