/**
 * What the page holds of the service: parts of its lists, kept true by the watch, with what this page does to its own.
 * Must not know elements. Bounded: a row that no list holds is forgotten.
 */

import { batchStatusWord, dateOf, isFinal } from "../src/index.js";
import type { Api, Batch, BatchUpload, Upload, UploadedFile } from "../src/index.js";
import { Listing, MOST_ROWS, PAGE } from "./listing.js";
import { NEWEST_FIRST, requestOf, timesOf } from "./requests.js";
import type { Request } from "./requests.js";
import { emptyBatch, emptyRow, fill, fillBatch, isBatch, isOver } from "./row.js";
import type { BatchRow, FileRow } from "./row.js";
import { askedOf, EVERYTHING, isFlat, isSifted, passes, wantsEither, wantsFile } from "./view.js";
import type { Asked, View } from "./view.js";

/** The most files of a batch that are shown below it; the list shows them all. */
export const MOST_OF_BATCH = 600;

const MOST_OWN = 200;
/** So many files are read at a time where the page looks itself, and so many before somebody has to say: further. */
const SIFTED_PAGE = 500;
const MOST_SIFTED = 10_000;

export class Model {
  readonly files = new Map<string, FileRow>();
  readonly batches = new Map<string, BatchRow>();
  view: View = EVERYTHING;
  asked: Asked = askedOf(EVERYTHING, new Date());
  /** What this page has begun, or could not begin, until it is dismissed; the newest first. */
  own: (FileRow | BatchRow)[] = [];
  /** Where the page looks itself: through how many files it has, and back to when. */
  sifted: { files: number; back: Date | undefined } = { files: 0, back: undefined };
  private listings = this.newListings();
  /** What the watch tells while a page is read, which may be older. */
  private readonly heard = new Map<string, UploadedFile | Batch>();
  private reading = 0;
  private pruneAt = MOST_ROWS;

  constructor(
    private readonly api: Api,
    /** A row that somebody looks at though no list holds it. */
    private readonly lookedAt: () => FileRow | BatchRow | undefined,
    /** Rows have changed though nobody has asked for it. */
    private readonly changed: () => void,
  ) {}

  private newListings(): { alone: Listing<FileRow>; batches: Listing<BatchRow>; flat: Listing<FileRow> | undefined } {
    const { asked } = this;
    const common = { ...timesOf(asked), owner: asked.owner, orderBy: NEWEST_FIRST };
    const batchesAsked = { ...common, pageSize: PAGE };
    return {
      alone: this.listingOf({ ...common, withoutBatch: true }, (row) => row.batchId === "" && wantsEither(asked, row)),
      batches: new Listing(
        (pageToken) => this.readBatches({ ...batchesAsked, pageToken }),
        (row) => wantsEither(asked, row),
      ),
      flat: isFlat(asked) ? this.flatListing(asked) : undefined,
    };
  }

  private listingOf(request: Request, wants: (row: FileRow) => boolean, most = MOST_ROWS): Listing<FileRow> {
    return new Listing((pageToken) => this.readFiles({ ...request, pageSize: PAGE, pageToken }), wants, most);
  }

  private flatListing(asked: Asked): Listing<FileRow> {
    const wants = (row: FileRow): boolean => wantsFile(asked, row);
    if (!isSifted(asked)) return this.listingOf(requestOf(asked), wants);
    this.sifted = { files: 0, back: undefined };
    return new Listing((pageToken) => this.sift(asked, pageToken), wants);
  }

  // What the service tells -------------------------------------------------------------------------------------------

  private async readFiles(request: Request) {
    const { files, nextPageToken } = await this.whileReading(() => this.api.listFiles(request));
    return { rows: files.map((file) => this.holdFile(file)), nextPageToken };
  }

  /** Look through what the service lists, up to a bound: its answer says how far that was. */
  private async sift(asked: Asked, pageToken: string) {
    const found: UploadedFile[] = [];
    let looked = 0;
    let back = this.sifted.back;
    // By calls, as a page of the service may have none of the files that it looked at.
    for (let calls = 0; calls < MOST_SIFTED / SIFTED_PAGE && found.length < PAGE; calls++) {
      const request = { ...requestOf(asked), pageSize: SIFTED_PAGE, pageToken };
      const { files, nextPageToken } = await this.whileReading(() => this.api.listFiles(request));
      found.push(...files.filter((file) => passes(asked, file)));
      looked += files.length;
      back = dateOf(files.at(-1)?.createdAt) ?? back;
      pageToken = nextPageToken;
      if (!nextPageToken || this.asked !== asked) break;
    }
    if (this.asked === asked) this.sifted = { files: this.sifted.files + looked, back };
    return { rows: found.map((file) => this.holdFile(file)), nextPageToken: pageToken, back };
  }

  private async readBatches(request: NonNullable<Parameters<Api["listBatches"]>[0]>) {
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
    if (heard.length > 0) this.changed();
  }

  private take(record: UploadedFile | Batch): void {
    if (record.$typeName === "upload.v1.File") this.takeFile(record);
    else this.takeBatch(record);
  }

  /** A file as the watch tells it: the row that is held, or one that is not kept. */
  takeFile(file: UploadedFile): FileRow {
    if (this.reading > 0) this.heard.set(file.fileId, file);
    const row = this.rowOf(file);
    const listing = this.listings.flat ?? this.listings.alone;
    listing.take(row);
    if (listing.rows.includes(row)) this.files.set(row.key, row);
    if (this.files.size > this.pruneAt) this.prune();
    return row;
  }

  /** The row that is held, or a new one, as the service tells it. */
  private rowOf(file: UploadedFile): FileRow {
    return fill(this.files.get(file.fileId) ?? emptyRow(file.fileId), file);
  }

  /** A batch as the watch tells it: the row that is held, or one that is not kept; and whether its status has changed. */
  takeBatch(batch: Batch): { row: BatchRow; isNews: boolean } {
    if (this.reading > 0) this.heard.set(batch.batchId, batch);
    const known = this.batches.get(batch.batchId);
    const isNews = isNewStatus(batch, known);
    const row = fillBatch(known ?? emptyBatch(batch.batchId), batch);
    this.listings.batches.take(row);
    if (this.listings.batches.rows.includes(row)) this.batches.set(row.batchId, row);
    if (this.batches.size > 2 * MOST_ROWS) this.prune();
    return { row, isNews };
  }

  takeProgress(fileId: string, received: number): void {
    const row = this.files.get(fileId);
    if (!row || isFinal(row.status)) return;
    row.received = Math.max(row.received, received);
    row.pace.note(row.received);
  }

  /** A row of a page that was read, or that somebody looks at. */
  holdFile(file: UploadedFile): FileRow {
    const row = this.rowOf(file);
    this.files.set(row.key, row);
    return row;
  }

  holdBatch(batch: Batch): BatchRow {
    const row = fillBatch(this.batches.get(batch.batchId) ?? emptyBatch(batch.batchId), batch);
    this.batches.set(row.batchId, row);
    return row;
  }

  // What is shown ----------------------------------------------------------------------------------------------------

  /** Show another part of the service; what no list holds any more is forgotten. */
  setView(view: View): void {
    this.view = view;
    this.begin();
  }

  /** From the newest on. */
  begin(): void {
    this.asked = askedOf(this.view, new Date());
    this.listings = this.newListings();
    this.prune();
  }

  /** The service's past is another than was known: keep only what this page is doing itself. */
  forget(): void {
    for (const row of this.files.values()) row.revision = 0n;
    for (const row of this.batches.values()) row.revision = 0n;
    for (const row of this.own) if (!row.problem && isOver(row)) row.own = false;
    this.own = this.own.filter(({ own }) => own);
    this.heard.clear();
    this.begin();
  }

  /** Whether the service has more of what is shown, below and above. */
  get more(): { below: boolean; above: boolean } {
    return { below: this.nextBelow() !== undefined, above: this.nextAbove() !== undefined };
  }

  /** Read on downwards. */
  async load(): Promise<void> {
    await this.nextBelow()?.load();
    this.prune();
  }

  /** Read again what was let go above. */
  async loadBack(): Promise<void> {
    await this.nextAbove()?.loadBack();
    this.prune();
  }

  private shown(): (Listing<FileRow> | Listing<BatchRow>)[] {
    const { alone, batches, flat } = this.listings;
    return flat ? [flat] : [alone, batches];
  }

  /** The list of those shown that is held least far: where it ends, all does. */
  private nextBelow(): Listing<FileRow> | Listing<BatchRow> | undefined {
    return this.shown().filter(({ more }) => more).sort((a, b) => b.end - a.end)[0];
  }

  private nextAbove(): Listing<FileRow> | Listing<BatchRow> | undefined {
    return this.shown().filter(({ cut }) => cut).sort((a, b) => a.start - b.start)[0];
  }

  /** Files, or batches and files that stand alone, newest first, as far as everything is held; without this page's own. */
  items(): (FileRow | BatchRow)[] {
    const { alone, batches, flat } = this.listings;
    if (flat) return flat.rows.filter(({ own }) => !own);
    const [start, end] = [Math.min(alone.start, batches.start), Math.max(alone.end, batches.end)];
    const isHeld = ({ createdAt }: FileRow | BatchRow): boolean => createdAt.getTime() >= end && createdAt.getTime() <= start;
    const held = [...alone.rows, ...batches.rows].filter((row) => !row.own && isHeld(row));
    return held.sort((a, b) => b.createdAt.getTime() - a.createdAt.getTime());
  }

  /** Whether this is the row of its file or batch still: a row may have been found to be another's. */
  isCurrent(item: FileRow | BatchRow): boolean {
    return !item.own && (isBatch(item) ? this.batches.get(item.batchId) : this.files.get(item.key)) === item;
  }

  openBatch(row: BatchRow): void {
    row.files = this.listingOf({ batchId: row.batchId }, () => true, MOST_OF_BATCH);
  }

  closeBatch(row: BatchRow): void {
    row.files = undefined;
    this.prune();
  }

  private prune(): void {
    const { alone, batches, flat } = this.listings;
    const keep = new Set<FileRow | BatchRow | undefined>([...this.own, ...(flat ?? alone).rows, this.lookedAt()]);
    if (!flat) for (const row of batches.rows) keep.add(row);
    for (const [key, row] of this.batches) {
      if (keep.has(row)) for (const file of row.files?.rows ?? []) keep.add(file);
      else this.batches.delete(key);
    }
    for (const [key, row] of this.files) if (!keep.has(row) && !(row.upload && !row.upload.over)) this.files.delete(key);
    this.pruneAt = 2 * this.files.size + MOST_ROWS;
  }

  // What this page does ----------------------------------------------------------------------------------------------

  /** An upload that this page begins; it has no id yet. */
  addUpload(upload: Upload, key: string): FileRow {
    const row = this.addOwn(key, upload.filename, upload.blob.size);
    row.upload = upload;
    return row;
  }

  /** A file that could not be begun. */
  addProblem(key: string, filename: string, size: number, problem: string): FileRow {
    const row = this.addOwn(key, filename, size);
    row.status = "failed";
    row.problem = problem;
    return row;
  }

  private addOwn(key: string, filename: string, size: number): FileRow {
    const row = { ...emptyRow(""), key, filename, size, own: true };
    this.files.set(key, row);
    this.own.unshift(row);
    this.bound();
    return row;
  }

  /** A batch that this page begins; it has no id yet. */
  addBatch(upload: BatchUpload, key: string): BatchRow {
    const row = { ...emptyBatch(""), key, upload, own: true, total: upload.uploads.length };
    row.firstName = upload.uploads[0]?.filename ?? "";
    this.own.unshift(row);
    this.bound();
    return row;
  }

  /** From now on it is a row of the list as any other. */
  dismiss(row: FileRow | BatchRow): void {
    row.own = false;
    this.own = this.own.filter((other) => other !== row);
    // What it holds of the disk's files is not needed any more.
    if (isBatch(row) && isOver(row)) row.upload = undefined;
    this.prune();
  }

  /** Of what is over, the oldest go by themselves. */
  private bound(): void {
    const over = this.own.filter(isOver);
    if (this.own.length > MOST_OWN && over.length > 0) this.dismiss(over.at(-1)!);
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
    Object.assign(row, told, { upload, progress, cancellation: cancellation ?? told.cancellation, problem, own: row.own });
    (this.listings.flat ?? this.listings.alone).replace(told, row);
  }

  /** A batch of this page has its id. */
  identifyBatch(row: BatchRow, batchId: string): void {
    const told = this.batches.get(batchId);
    row.batchId = batchId;
    row.key = `batch ${batchId}`;
    this.batches.set(batchId, row);
    if (!told || told === row) return;
    const { upload, pace, firstName, own } = row;
    Object.assign(row, told, { upload, pace, firstName, own });
    this.listings.batches.replace(told, row);
  }
}

/**
 * Whether what the watch tells of a batch is that its status has changed; a list may have told before, or never. Of one
 * that is under way the watch tells the end of each file: it has begun just now if none has ended, or was seen waiting.
 */
function isNewStatus(batch: Batch, known: BatchRow | undefined): boolean {
  if (known && known.revision > batch.revision) return false;
  const ended = batch.completedFiles + batch.failedFiles + batch.cancelledFilesCount;
  const wasPending = known !== undefined && known.revision > 0n && known.status === "pending";
  return isFinal(batchStatusWord(batch.status)) || ended === 0 || wasPending;
}
