/** What this page sends: uploads and batches that it begins, and their rows, until each is over. Must not know lists. */

import type { BatchFile, BatchUpload, Upload, UploadClient, UploadError } from "../src/index.js";
import { quoted } from "../src/visible.js";
import { byId, say } from "./dom.js";
import * as format from "./format.js";
import type { Model } from "./model.js";
import { notice } from "./notices.js";
import { isBatch } from "./row.js";
import type { BatchRow, FileRow } from "./row.js";

export class Sends {
  private readonly rows = new Map<Upload, FileRow>();
  private keys = 0;
  /** Files that were chosen and wait for the batch before theirs. */
  private waiting = 0;

  constructor(
    private readonly client: UploadClient,
    private readonly model: Model,
    /** Show at once what has changed. */
    private readonly render: () => void,
    /** Show it soon. */
    private readonly draw: () => void,
  ) {}

  /** Whether something would be lost if the page were left. */
  get underWay(): boolean {
    return this.client.active.size > 0 || this.waiting > 0;
  }

  /** One file stands alone; several are a batch. */
  begin(files: readonly BatchFile[]): void {
    notice("upload", "");
    const [first] = files;
    if (!first) notice("upload", "There is nothing to upload in that; choose at least one file.");
    else if (files.length === 1) this.beginOne(first);
    else void this.beginBatches(files);
    this.render();
  }

  private beginOne({ blob, filename }: BatchFile): void {
    const upload: Upload = this.client.upload(blob, {
      ...(filename === undefined ? {} : { filename }),
      onProgress: () => this.follow(upload),
    });
    this.adopt(upload);
  }

  /** More than a batch takes is sent as one batch after the other: of those that wait the page holds only the names. */
  private async beginBatches(files: readonly BatchFile[]): Promise<void> {
    let [begun, left] = [0, 0];
    const tellLeft = (now: number): void => {
      this.waiting += now - left;
      left = now;
      notice("rest", this.waiting > 0 ? `${format.count(this.waiting, "more file")} to follow: a batch takes 10,000, and the next begins when the one before is over.` : "");
    };
    for await (const batch of this.client.uploadBatches(files, { onProgress: (upload) => this.follow(upload) })) {
      begun += batch.uploads.length + batch.refused.length;
      tellLeft(files.length - begun);
      for (const { file, error } of batch.refused) {
        this.model.addProblem(this.nextKey(), file.filename ?? "", file.blob.size, error.message);
      }
      if (batch.uploads.length > 0) this.adoptBatch(batch);
      say(byId("said"), `Announcing ${format.count(batch.uploads.length, "file")} as a batch`);
      this.render();
    }
    if (left > 0) notice("upload", `${format.count(left, "file")} not begun, as the batch before was cancelled or could not be announced; choose them again if they are still wanted.`);
    tellLeft(0);
  }

  private adoptBatch(batch: BatchUpload): void {
    const row = this.model.addBatch(batch, this.nextKey());
    batch.announced.then(
      (batchId) => {
        this.model.identifyBatch(row, batchId);
        // The watch tells it too, as a rule before.
        this.client.api.getBatch(batchId).then((known) => this.model.takeBatch(known), () => {}).then(this.draw);
      },
      (error: UploadError) => {
        row.problem = error.message;
        row.status = "failed";
        say(byId("said"), error.message);
        this.draw();
      },
    );
    // What has arrived needs nothing of the disk's files.
    batch.done.then((uploads) => uploads.every(({ state }) => state === "completed") && (row.upload = undefined), () => {});
  }

  /** Begin anew what did not arrive; of a batch, those of its files. */
  retry(row: FileRow | BatchRow): void {
    const uploads = isBatch(row) ? (row.upload?.uploads ?? []) : row.upload ? [row.upload] : [];
    const files = uploads.filter(({ state }) => state !== "completed").map(({ blob, filename }) => ({ blob, filename }));
    this.dismiss(row);
    this.begin(files);
  }

  dismiss(row: FileRow | BatchRow): void {
    this.model.dismiss(row);
    this.render();
  }

  private adopt(upload: Upload): void {
    const row = this.model.addUpload(upload, this.nextKey());
    this.rows.set(upload, row);
    upload.done.catch((error: UploadError) => {
      const known = this.rows.get(upload) ?? row;
      // A cancel is told by the service; what else went wrong is told here.
      if (error.reason !== "UPLOAD_CANCELLED") known.problem = error.message;
      else if (!upload.fileId) known.problem = "Cancelled before it began.";
      if (!upload.fileId) known.status = "failed";
      if (error.reason !== "UPLOAD_CANCELLED") say(byId("said"), `${quoted(known.filename)}: ${error.message}`);
    }).finally(() => {
      this.rows.delete(upload);
      this.draw();
    });
  }

  private nextKey(): string {
    return `local ${++this.keys}`;
  }

  /** An upload of this page has moved. */
  private follow(upload: Upload | undefined): void {
    if (!upload) return;
    let row = this.rows.get(upload);
    if (upload.fileId && row?.fileId !== upload.fileId) {
      if (row) this.model.identify(row, upload.fileId);
      else row = this.model.files.get(upload.fileId);
    }
    this.draw();
    if (!row) return;
    row.upload = upload;
    row.progress = upload.progress;
    row.received = Math.max(row.received, upload.bytesReceived);
    row.cancellation = upload.cancellation;
    if (upload.error && upload.error.reason !== "UPLOAD_CANCELLED") row.problem = upload.error.message;
  }
}
