/**
 * What the page knows: files and batches as the service tells them, with what this page does to its own.
 * Must not know elements. Bounded: the oldest final files are forgotten first.
 */

import { batchStatusWord, dateOf, fileStatusWord, isFinal } from "../src/index.js";
import type { Batch, BatchUpload, Cancellation, StatusWord, Upload, UploadedFile, UploadProgress } from "../src/index.js";
import { Pace } from "../src/pace.js";

export interface FileRow {
  key: string;
  fileId: string;
  filename: string;
  size: number;
  received: number;
  status: StatusWord;
  batchId: string;
  createdAt: Date;
  updatedAt: Date;
  cancelledBy: string;
  cancelReason: string;
  failureReason: string;
  revision: bigint;
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
  total: number;
  createdAt: Date;
  cancelledAt: Date | undefined;
  cancelledBy: string;
  cancelReason: string;
  revision: bigint;
  upload: BatchUpload | undefined;
  /** What this page's cancel of it is doing, or has come to, in one sentence. */
  cancelling: "" | "pending" | "done";
  outcome: string;
  files: FileRow[];
}

/** The most files kept. */
const MOST_FILES = 20_000;

export class Model {
  readonly files = new Map<string, FileRow>();
  readonly batches = new Map<string, BatchRow>();
  /** Everything that stands alone or is a batch, newest first. */
  private ordered: (FileRow | BatchRow)[] = [];
  private disordered = false;

  /** A file as the service tells it; returns its row, and whether its status is news. */
  takeFile(file: UploadedFile): { row: FileRow; before: StatusWord | undefined } | undefined {
    const known = this.files.get(file.fileId);
    if (known && known.revision >= file.revision) return undefined;
    const row = known ?? this.adopt(file);
    const before = known && known.revision > 0n ? row.status : undefined;
    row.filename = file.filename;
    row.size = Number(file.sizeBytes);
    row.received = Math.max(row.received, Number(file.bytesReceived));
    row.status = fileStatusWord(file.status);
    row.createdAt = dateOf(file.createdAt) ?? row.createdAt;
    row.updatedAt = dateOf(file.updatedAt) ?? row.updatedAt;
    row.cancelledBy = file.cancelledBy;
    row.cancelReason = file.cancelReason;
    row.failureReason = file.failureReason;
    row.revision = file.revision;
    return { row, before };
  }

  /** A batch as the service tells it; returns its row when its status is news. */
  takeBatch(batch: Batch): BatchRow | undefined {
    const row = this.batchRow(batch.batchId);
    if (row.revision >= batch.revision) return undefined;
    const before = row.revision > 0n ? row.status : undefined;
    row.status = batchStatusWord(batch.status);
    row.total = batch.totalFiles;
    row.createdAt = dateOf(batch.createdAt) ?? row.createdAt;
    row.cancelledAt = dateOf(batch.cancelledAt);
    row.cancelledBy = batch.cancelledBy;
    row.cancelReason = batch.cancelReason;
    row.revision = batch.revision;
    return before === row.status ? undefined : row;
  }

  takeProgress(fileId: string, received: number): void {
    const row = this.files.get(fileId);
    if (!row || isFinal(row.status)) return;
    row.received = Math.max(row.received, received);
    row.pace.note(row.received);
  }

  /** The service's past is another than was known: keep only what this page is doing itself. */
  forget(): void {
    const own = [...this.files.values()].filter(({ upload, problem }) => problem !== "" || (upload && !upload.over));
    this.files.clear();
    this.batches.clear();
    this.ordered = own.filter(({ batchId }) => batchId === "");
    this.disordered = true;
    for (const row of this.ordered as FileRow[]) {
      row.revision = 0n;
      this.files.set(row.key, row);
    }
  }

  /** An upload that this page begins; it has no id yet, or the one that its batch has got. */
  addUpload(upload: Upload, key: string): FileRow {
    const row = emptyRow(key, upload.filename, upload.blob.size);
    row.upload = upload;
    this.files.set(key, row);
    this.ordered.unshift(row);
    this.disordered = true;
    return row;
  }

  /** A file that could not be begun. */
  addProblem(key: string, filename: string, size: number, problem: string): FileRow {
    const row = emptyRow(key, filename, size);
    row.status = "failed";
    row.problem = problem;
    this.files.set(key, row);
    this.ordered.unshift(row);
    return row;
  }

  /** The service has given an id to an upload of this page: its row and the service's are one. */
  identify(row: FileRow, fileId: string): FileRow {
    if (row.fileId === fileId) return row;
    const told = this.files.get(fileId);
    this.files.delete(row.key);
    if (told) {
      told.upload = row.upload;
      told.progress = row.progress;
      told.cancellation = row.cancellation;
      told.problem = row.problem;
      this.ordered = this.ordered.filter((item) => item !== row);
      return told;
    }
    row.fileId = row.key = fileId;
    this.files.set(fileId, row);
    return row;
  }

  batchRow(batchId: string): BatchRow {
    let row = this.batches.get(batchId);
    if (!row) {
      row = {
        key: `batch ${batchId}`,
        batchId,
        status: "pending",
        total: 0,
        createdAt: new Date(),
        cancelledAt: undefined,
        cancelledBy: "",
        cancelReason: "",
        revision: 0n,
        upload: undefined,
        cancelling: "",
        outcome: "",
        files: [],
      };
      this.batches.set(batchId, row);
      this.ordered.push(row);
      this.disordered = true;
    }
    return row;
  }

  /** Batches and files that stand alone, newest first. */
  items(): readonly (FileRow | BatchRow)[] {
    if (this.disordered) this.ordered.sort((a, b) => b.createdAt.getTime() - a.createdAt.getTime());
    this.disordered = false;
    return this.ordered;
  }

  /** Every file, newest first, that `wanted` takes. */
  filesWhere(wanted: (row: FileRow) => boolean): FileRow[] {
    const found: FileRow[] = [];
    for (const item of this.items()) {
      if (!isBatch(item)) {
        if (wanted(item)) found.push(item);
      } else found.push(...item.files.filter(wanted));
    }
    return found;
  }

  private adopt(file: UploadedFile): FileRow {
    const row = emptyRow(file.fileId, file.filename, Number(file.sizeBytes));
    row.fileId = file.fileId;
    row.batchId = file.batchId;
    row.createdAt = dateOf(file.createdAt) ?? row.createdAt;
    this.files.set(file.fileId, row);
    if (file.batchId) {
      const batch = this.batchRow(file.batchId);
      if (batch.revision === 0n) batch.createdAt = row.createdAt;
      batch.files.push(row);
    } else this.ordered.unshift(row);
    this.disordered = true;
    this.forgetSome();
    return row;
  }

  private forgetSome(): void {
    if (this.files.size <= MOST_FILES * 1.1) return;
    for (const item of [...this.items()].reverse()) {
      if (this.files.size <= MOST_FILES) return;
      const rows = isBatch(item) ? item.files : [item];
      if (!rows.every(({ status }) => isFinal(status))) continue;
      for (const row of rows) this.files.delete(row.key);
      if (isBatch(item)) this.batches.delete(item.batchId);
      this.ordered.splice(this.ordered.lastIndexOf(item), 1);
    }
  }
}

export function isBatch(item: FileRow | BatchRow): item is BatchRow {
  return "files" in item;
}

function emptyRow(key: string, filename: string, size: number): FileRow {
  const now = new Date();
  return {
    key,
    fileId: "",
    filename,
    size,
    received: 0,
    status: "pending",
    batchId: "",
    createdAt: now,
    updatedAt: now,
    cancelledBy: "",
    cancelReason: "",
    failureReason: "",
    revision: 0n,
    upload: undefined,
    progress: undefined,
    cancellation: undefined,
    pace: new Pace(),
    problem: "",
  };
}
