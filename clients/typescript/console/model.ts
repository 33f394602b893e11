/**
 * What the page holds of the service: parts of its lists, kept true by the watch, with what this page does to its own.
 * Must not know elements. Bounded: a row that no list holds is forgotten.
 */

import { batchStatusWord, dateOf, fileStatusWord, isFinal, UploadStatus } from "../src/index.js";
import type { Api, Batch, BatchUpload, Cancellation, StatusWord, Upload, UploadedFile, UploadProgress } from "../src/index.js";
import { Pace } from "../src/pace.js";
import { Listing, MOST_ROWS } from "./listing.js";

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
  upload: BatchUpload | undefined;
  /** What this page's cancel of it is doing, or has come to, in one sentence. */
  cancelling: "" | "pending" | "done";
  outcome: string;
  /** Its files, while they are shown, in the order of their announcement. */
  files: Listing<FileRow> | undefined;
}

export type Filter = "all" | "pending" | "uploading" | "completed" | "failed" | "cancelled";

const STATUSES: Readonly<Record<Exclude<Filter, "all">, UploadStatus>> = {
  pending: UploadStatus.PENDING,
  uploading: UploadStatus.UPLOADING,
  completed: UploadStatus.COMPLETED,
  failed: UploadStatus.FAILED,
  cancelled: UploadStatus.CANCELLED,
};

const NEWEST_FIRST = "created_at desc";
/** How many rows are read at a time. */
const PAGE = 100;

export class Model {
  readonly files = new Map<string, FileRow>();
  readonly batches = new Map<string, BatchRow>();
  filter: Filter = "all";
  /** Uploads of this page that the service has not told yet, and files that could not be begun; the newest first. */
  private locals: FileRow[] = [];
  private listings = this.newListings();
  /** What the watch tells while a page is read, which may be older. */
  private readonly heard = new Map<string, UploadedFile | Batch>();
  private reading = 0;
  private pruneAt = MOST_ROWS;

  constructor(
    private readonly api: Api,
    /** A row that somebody looks at though no list holds it. */
    private readonly lookedAt: () => FileRow | undefined,
  ) {}

  private newListings(): { alone: Listing<FileRow>; batches: Listing<BatchRow>; filtered: Listing<FileRow> | undefined } {
    const { filter } = this;
    return {
      alone: this.listingOf({ withoutBatch: true, orderBy: NEWEST_FIRST }, ({ batchId }) => batchId === ""),
      batches: new Listing(
        (pageToken) => this.readBatches(pageToken),
        () => true,
      ),
      filtered:
        filter === "all"
          ? undefined
          : this.listingOf({ statuses: [STATUSES[filter]], orderBy: NEWEST_FIRST }, ({ status }) => status === filter),
    };
  }

  private listingOf(request: Parameters<Api["listFiles"]>[0], wants: (row: FileRow) => boolean): Listing<FileRow> {
    return new Listing((pageToken) => this.readFiles({ ...request, pageSize: PAGE, pageToken }), wants);
  }

  // What the service tells -------------------------------------------------------------------------------------------

  private async readFiles(request: NonNullable<Parameters<Api["listFiles"]>[0]>) {
    const { files, nextPageToken } = await this.whileReading(() => this.api.listFiles(request));
    return { rows: files.map((file) => this.holdFile(file)), nextPageToken };
  }

  private async readBatches(pageToken: string) {
    const request = { orderBy: NEWEST_FIRST, pageSize: PAGE, pageToken };
    const { batches, nextPageToken } = await this.whileReading(() => this.api.listBatches(request));
    return { rows: batches.map((batch) => this.holdBatch(batch)), nextPageToken };
  }

  /** Read; what the watch told meanwhile is told again afterwards, to the rows that the page has brought. */
  private async whileReading<T>(read: () => Promise<T>): Promise<T> {
    this.reading++;
    try {
      return await read();
    } finally {
      // After the listing has taken its page.
      setTimeout(() => this.tellAgain());
    }
  }

  private tellAgain(): void {
    if (--this.reading > 0) return;
    const heard = [...this.heard.values()];
    this.heard.clear();
    for (const record of heard) this.take(record);
  }

  private take(record: UploadedFile | Batch): void {
    if (record.$typeName === "upload.v1.File") this.takeFile(record);
    else this.takeBatch(record);
  }

  /** A file as the watch tells it: the row that is held, or one that is not kept. */
  takeFile(file: UploadedFile): FileRow {
    if (this.reading > 0) this.heard.set(file.fileId, file);
    const row = this.rowOf(file);
    const { alone, filtered } = this.listings;
    for (const listing of [alone, filtered]) listing?.take(row);
    if (alone.rows.includes(row) || filtered?.rows.includes(row)) this.files.set(row.key, row);
    if (this.files.size > this.pruneAt) this.prune();
    return row;
  }

  /** The row that is held, or a new one, as the service tells it. */
  private rowOf(file: UploadedFile): FileRow {
    const row = fill(this.files.get(file.fileId) ?? emptyRow(file.fileId), file);
    if (this.locals.includes(row)) this.locals = this.locals.filter((local) => local !== row);
    return row;
  }

  /** A batch as the watch tells it: the row that is held, or one that is not kept; and its status before, if known. */
  takeBatch(batch: Batch): { row: BatchRow; before: StatusWord | undefined } {
    if (this.reading > 0) this.heard.set(batch.batchId, batch);
    const known = this.batches.get(batch.batchId);
    const before = known && known.revision > 0n ? known.status : undefined;
    const row = fillBatch(known ?? emptyBatch(batch.batchId), batch);
    this.listings.batches.take(row);
    if (this.listings.batches.rows.includes(row)) this.batches.set(row.batchId, row);
    if (this.batches.size > 2 * MOST_ROWS) this.prune();
    return { row, before };
  }

  takeProgress(fileId: string, received: number): void {
    const row = this.files.get(fileId);
    if (!row || isFinal(row.status)) return;
    row.received = Math.max(row.received, received);
    row.pace.note(row.received);
  }

  /** A row of a page that was read. */
  private holdFile(file: UploadedFile): FileRow {
    const row = this.rowOf(file);
    this.files.set(row.key, row);
    return row;
  }

  private holdBatch(batch: Batch): BatchRow {
    const row = fillBatch(this.batches.get(batch.batchId) ?? emptyBatch(batch.batchId), batch);
    this.batches.set(row.batchId, row);
    return row;
  }

  // What is shown ----------------------------------------------------------------------------------------------------

  /** Show another part of the service; what no list holds any more is forgotten. */
  setFilter(filter: Filter): void {
    this.filter = filter;
    this.listings = { ...this.newListings(), alone: this.listings.alone, batches: this.listings.batches };
    this.prune();
  }

  /** The service's past is another than was known: keep only what this page is doing itself. */
  forget(): void {
    this.locals = [...this.files.values()].filter(({ upload, problem, batchId }) => !batchId && (problem || (upload && !upload.over)));
    for (const row of this.locals) row.revision = 0n;
    for (const row of this.batches.values()) row.revision = 0n;
    this.heard.clear();
    this.listings = this.newListings();
    this.prune();
  }

  /** Whether the service has more of what is shown, and whether the page can still show it. */
  get more(): { exists: boolean; readable: boolean } {
    const next = this.next();
    return { exists: next !== undefined, readable: next?.readable ?? false };
  }

  /** Read on. */
  async load(): Promise<void> {
    await this.next()?.load();
    this.prune();
  }

  /** The list of those shown that is held least far: where it ends, all does. */
  private next(): Listing<FileRow> | Listing<BatchRow> | undefined {
    const { alone, batches, filtered } = this.listings;
    const shown = filtered ? [filtered] : [alone, batches];
    return shown.filter(({ more }) => more).sort((a, b) => b.end - a.end)[0];
  }

  /** Files, or batches and files that stand alone, newest first, as far down as everything is held. */
  items(): (FileRow | BatchRow)[] {
    const { alone, batches, filtered } = this.listings;
    if (filtered) return [...filtered.rows];
    const end = Math.max(alone.end, batches.end);
    const held = [...alone.rows, ...batches.rows].filter(({ createdAt }) => createdAt.getTime() >= end);
    return [...this.locals, ...held.sort((a, b) => b.createdAt.getTime() - a.createdAt.getTime())];
  }

  /** Whether this is the row of its file or batch still: a row may have been found to be another's. */
  isCurrent(item: FileRow | BatchRow): boolean {
    return (isBatch(item) ? this.batches.get(item.batchId) : this.files.get(item.key)) === item;
  }

  openBatch(row: BatchRow): void {
    row.files = this.listingOf({ batchId: row.batchId }, () => true);
  }

  closeBatch(row: BatchRow): void {
    row.files = undefined;
    this.prune();
  }

  private prune(): void {
    const { alone, batches, filtered } = this.listings;
    const keep = new Set<FileRow | undefined>([...this.locals, ...alone.rows, ...(filtered?.rows ?? []), this.lookedAt()]);
    const keepBatches = new Set(batches.rows);
    for (const [key, row] of this.batches) {
      if (keepBatches.has(row) || row.upload) for (const file of row.files?.rows ?? []) keep.add(file);
      else this.batches.delete(key);
    }
    for (const [key, row] of this.files) if (!keep.has(row) && !(row.upload && !row.upload.over)) this.files.delete(key);
    this.pruneAt = 2 * this.files.size + MOST_ROWS;
  }

  // What this page does ----------------------------------------------------------------------------------------------

  /** An upload that this page begins; it has no id yet. */
  addUpload(upload: Upload, key: string): FileRow {
    const row = this.addLocal(key, upload.filename, upload.blob.size);
    row.upload = upload;
    return row;
  }

  /** A file that could not be begun. */
  addProblem(key: string, filename: string, size: number, problem: string): FileRow {
    const row = this.addLocal(key, filename, size);
    row.status = "failed";
    row.problem = problem;
    return row;
  }

  private addLocal(key: string, filename: string, size: number): FileRow {
    const row = { ...emptyRow(""), key, filename, size };
    this.files.set(key, row);
    this.locals.unshift(row);
    return row;
  }

  /**
   * The service has given an id to an upload of this page. Its row goes on, also where the watch has told of the file
   * before: whoever points at a row goes on pointing at it.
   */
  identify(row: FileRow, fileId: string): void {
    const told = this.files.get(fileId);
    this.files.delete(row.key);
    row.fileId = row.key = fileId;
    this.files.set(fileId, row);
    if (!told || told === row) return;
    const { upload, progress, cancellation, problem } = row;
    Object.assign(row, told, { upload, progress, cancellation: cancellation ?? told.cancellation, problem });
    this.locals = this.locals.filter((local) => local !== row);
    for (const { rows } of [this.listings.alone, this.listings.filtered ?? this.listings.alone]) {
      const at = rows.indexOf(told);
      if (at >= 0) rows[at] = row;
    }
  }

  /** A batch of this page has its id. */
  adoptBatch(upload: BatchUpload, batchId: string): void {
    const row = this.batches.get(batchId) ?? emptyBatch(batchId);
    row.upload = upload;
    row.firstName = upload.uploads[0]?.filename;
    this.batches.set(batchId, row);
  }
}

export function isBatch(item: FileRow | BatchRow): item is BatchRow {
  return "files" in item;
}

/** Take over what the service tells, unless newer is known. */
function fill(row: FileRow, file: UploadedFile): FileRow {
  if (row.revision >= file.revision) return row;
  row.filename = file.filename;
  row.size = Number(file.sizeBytes);
  row.received = Math.max(row.received, Number(file.bytesReceived));
  row.status = fileStatusWord(file.status);
  row.batchId = file.batchId;
  row.createdAt = dateOf(file.createdAt) ?? row.createdAt;
  row.updatedAt = dateOf(file.updatedAt) ?? row.updatedAt;
  row.cancelledBy = file.cancelledBy;
  row.cancelReason = file.cancelReason;
  row.failureReason = file.failureReason;
  row.revision = file.revision;
  return row;
}

function fillBatch(row: BatchRow, batch: Batch): BatchRow {
  if (row.revision >= batch.revision) return row;
  row.status = batchStatusWord(batch.status);
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

function emptyRow(fileId: string): FileRow {
  const now = new Date();
  return {
    key: fileId,
    fileId,
    filename: "",
    size: 0,
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

function emptyBatch(batchId: string): BatchRow {
  const now = new Date();
  return {
    key: `batch ${batchId}`,
    batchId,
    status: "pending",
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
    upload: undefined,
    cancelling: "",
    outcome: "",
    files: undefined,
  };
}
