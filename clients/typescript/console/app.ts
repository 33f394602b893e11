/** The page: joins the client, what is known, and what is shown. */

import { hasReason, isFinal, UploadClient, UploadError } from "../src/index.js";
import type { BatchFile, BatchUpload, CancelOutcome, Upload, WatchEvent, WatchState } from "../src/index.js";
import { quoted } from "../src/visible.js";
import { Chart } from "./chart.js";
import { Details } from "./details.js";
import { byId, say, setAttribute, show, throttled } from "./dom.js";
import { filesOfDrop, filesOfInput } from "./drop.js";
import { Feed } from "./feed.js";
import * as format from "./format.js";
import { History } from "./history.js";
import { Filters, List } from "./list.js";
import { Model } from "./model.js";
import type { BatchRow, FileRow } from "./model.js";
import { backgroundSleep } from "./ticker.js";

/** Pages of 1,000 files: the most that are read, and how many the next visit reads at least. */
const MOST_PAGES = 1_000;
const PAGES_SHOWN = 10;
/** Where the list begins that is worth showing. */
const START = "upload-console start";

class Console {
  private readonly client = new UploadClient({ sleep: backgroundSleep("/console/ticker.js") });
  private readonly model = new Model();
  private readonly details = new Details(this.client.api);
  private readonly feed = new Feed();
  private readonly history = new History(() => this.drawChart());
  private readonly chart = new Chart(this.model, this.history);
  private readonly list: List;
  private readonly filters: Filters;
  private readonly draw = throttled(100, () => this.render());
  private readonly drawChart = throttled(1_000, () => this.chart.render());
  private readonly rows = new Map<Upload, FileRow>();
  private locals = 0;

  constructor() {
    const actions = {
      cancelFile: (row: FileRow) => this.cancelFile(row),
      cancelBatch: (row: BatchRow) => this.cancelBatch(row),
      details: (row: FileRow) => this.details.open(row),
    };
    this.list = new List(this.model, actions, byId("list"), byId("empty"), byId("more"), byId("fresh"));
    this.filters = new Filters(byId("filters"), (filter) => this.list.setFilter(filter));
    byId("more").addEventListener("click", () => this.list.showMore());
    this.takeInputs();
    this.takeDrops();
    this.guardLeaving();
  }

  start(): void {
    const watch = this.client.sharedWatch({
      onEvent: (event) => this.hear(event),
      onState: (state) => this.showLive(state),
    });
    this.history.lead(true);
    addEventListener("online", () => watch.wake());
    // A page that comes back from the browser's cache has lost its connections and its place.
    addEventListener("pageshow", (event) => event.persisted && location.reload());
    void this.load();
    setInterval(() => this.drawChart(), 5_000);
  }

  // What is so ------------------------------------------------------------------------------------------------------

  /** What was there before this page: the watch tells only what is not final yet. */
  private async load(): Promise<void> {
    try {
      await this.loadFiles(remembered(START)).catch((error: unknown) => {
        // A token of another service that was once here.
        if (!hasReason(error, "INVALID_FIELD")) throw error;
        return this.loadFiles("");
      });
      await this.loadBatches();
      this.notice("");
    } catch (error) {
      this.notice(`The list could not be read. ${error instanceof UploadError ? error.message : ""}`);
    }
    this.draw();
    this.drawChart();
  }

  /** The service lists the oldest first: read to the end, and remember where the newest pages begin for the next time. */
  private async loadFiles(start: string): Promise<void> {
    const tokens = [start];
    for (let page = 0; page < MOST_PAGES; page++) {
      const { files, nextPageToken } = await this.client.api.listFiles({ pageSize: 1000, pageToken: tokens.at(-1) ?? "" });
      for (const file of files) this.model.takeFile(file);
      this.draw();
      if (!nextPageToken) break;
      tokens.push(nextPageToken);
    }
    remember(START, tokens.at(-PAGES_SHOWN) ?? start);
  }

  /** Batches that ended before this page: the newest that people see first. */
  private async loadBatches(): Promise<void> {
    const unknown = [...this.model.batches.values()].filter(({ revision }) => revision === 0n).slice(-50);
    await Promise.all(unknown.map(async ({ batchId }) => this.model.takeBatch(await this.client.api.getBatch(batchId))));
  }

  private hear(event: WatchEvent): void {
    if (event.type === "file") {
      const news = this.model.takeFile(event.file);
      if (news) {
        this.feed.tell(news.row);
        this.drawChart();
        // A batch is told as one.
        if (news.row.upload && !news.row.batchId && isFinal(news.row.status)) this.announce(news.row);
      }
    } else if (event.type === "batch") {
      const news = this.model.takeBatch(event.batch);
      if (news) this.feed.tellBatch(news);
    } else if (event.type === "progress") this.model.takeProgress(event.fileId, event.bytesReceived);
    else if (event.resynced) {
      // The service is another one, or was set back: what was known may never have been.
      this.model.forget();
      for (const [upload, row] of this.rows) if (row.batchId) this.rows.delete(upload);
      remember(START, "");
      void this.load();
    }
    this.draw();
  }

  private render(): void {
    this.list.render();
    this.filters.update(this.model);
    this.feed.render();
    this.details.update();
  }

  private showLive(state: WatchState): void {
    setAttribute(byId("live"), "data-state", state);
    const words = { live: "Live", waiting: "Reconnecting…", ended: "Not live: load the page again" };
    say(byId("live-text"), words[state]);
    if (state === "live" && !byId("notice").hidden) void this.load();
  }

  private announce(row: FileRow): void {
    say(byId("said"), `${quoted(row.filename)}: ${row.status}`);
  }

  private notice(text: string): void {
    const notice = byId("notice");
    say(notice, text);
    show(notice, text !== "");
  }

  // What people do --------------------------------------------------------------------------------------------------

  /** One file stands alone; several are a batch. */
  private upload(files: readonly BatchFile[]): void {
    this.notice("");
    const [first] = files;
    if (!first) this.notice("There is nothing to upload in that; choose at least one file.");
    else if (files.length === 1) this.uploadOne(first);
    else this.uploadBatch(files);
    this.list.showFresh();
    this.render();
  }

  private uploadOne({ blob, filename }: BatchFile): void {
    const upload: Upload = this.client.upload(blob, {
      ...(filename === undefined ? {} : { filename }),
      onProgress: () => this.follow(upload),
    });
    this.adopt(upload);
  }

  private uploadBatch(files: readonly BatchFile[]): void {
    const batch: BatchUpload = this.client.uploadBatch(files, { onProgress: (upload) => this.follow(upload) });
    for (const { file, error } of batch.refused) {
      this.model.addProblem(this.nextKey(), file.filename ?? "", file.blob.size, error.message);
    }
    batch.announced.then(
      (batchId) => this.adoptBatch(batch, batchId),
      (error: UploadError) => this.notice(error.message),
    );
    say(byId("said"), `Announcing ${format.count(batch.uploads.length, "file")} as a batch`);
  }

  private adoptBatch(batch: BatchUpload, batchId: string): void {
    const row = this.model.batchRow(batchId);
    row.upload = batch;
    row.total = batch.uploads.length;
    this.list.showFresh();
    this.draw();
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
    return `local ${++this.locals}`;
  }

  /** An upload of this page has moved. */
  private follow(upload: Upload | undefined): void {
    if (!upload) return;
    let row = this.rows.get(upload);
    if (upload.fileId && row?.fileId !== upload.fileId) {
      row = row ? this.model.identify(row, upload.fileId) : this.model.files.get(upload.fileId);
      if (row) this.rows.set(upload, row);
    }
    if (!row) return;
    row.upload = upload;
    row.progress = upload.progress;
    row.received = Math.max(row.received, upload.bytesReceived);
    row.cancellation = upload.cancellation;
    if (upload.error && upload.error.reason !== "UPLOAD_CANCELLED") row.problem = upload.error.message;
    this.draw();
  }

  private cancelFile(row: FileRow): void {
    const reason = byId<HTMLInputElement>("reason").value.trim();
    if (row.upload && !row.upload.over) void row.upload.cancel({ reason });
    const cancellation = row.upload?.cancellation ?? (row.fileId ? this.client.cancel(row.fileId, { reason }) : undefined);
    row.cancellation = cancellation;
    // At once, in the same turn as the press: it has to be seen that something happens.
    this.render();
    void cancellation?.outcome.then((outcome) => this.hearOutcome(row, outcome));
  }

  private hearOutcome(row: FileRow, outcome: CancelOutcome): void {
    if (outcome.state === "cancelled") this.catchUp(row);
    else {
      if (outcome.error.reason !== "FILE_NOT_CANCELLABLE") this.notice(`${quoted(row.filename)}: ${outcome.error.message}`);
      say(byId("said"), `${quoted(row.filename)}: ${outcome.error.message}`);
      this.catchUp(row);
    }
    this.draw();
  }

  /** The watch tells the new state as a rule before the answer is here; if it is cut just now, ask. */
  private catchUp(row: FileRow): void {
    setTimeout(() => {
      if (isFinal(row.status) || !row.fileId) return;
      this.client.api.getFile(row.fileId).then((file) => this.hear({ type: "file", file }), () => {});
    }, 300);
  }

  private cancelBatch(row: BatchRow): void {
    row.cancelling = "pending";
    const cancellation = this.client.cancelBatch(row.batchId, { reason: byId<HTMLInputElement>("reason").value.trim() });
    this.render();
    void cancellation.outcome.then((outcome) => {
      row.cancelling = "done";
      if (outcome.state === "cancelled") {
        const left = outcome.totalFilesInBatch - outcome.cancelledFilesCount;
        const files = format.count(outcome.totalFilesInBatch, "file");
        row.outcome = `Cancelled ${outcome.cancelledFilesCount.toLocaleString("en")} of ${files}${left ? `; ${left.toLocaleString("en")} ${left === 1 ? "was" : "were"} final already` : ""}`;
      } else row.outcome = outcome.error.message;
      say(byId("said"), row.outcome);
      this.draw();
    });
  }

  // Ways in and out -------------------------------------------------------------------------------------------------

  private takeInputs(): void {
    for (const id of ["files", "folder"]) {
      const input = byId<HTMLInputElement>(id);
      input.addEventListener("change", () => {
        if (input.files) this.upload(filesOfInput(input.files));
        input.value = "";
      });
    }
  }

  private takeDrops(): void {
    const zone = byId("drop");
    const over = (shown: boolean) => (event: DragEvent) => {
      event.preventDefault();
      zone.classList.toggle("over", shown);
    };
    addEventListener("dragover", over(true));
    addEventListener("dragleave", over(false));
    addEventListener("drop", (event) => {
      over(false)(event);
      if (!event.dataTransfer) return;
      filesOfDrop(event.dataTransfer).then(
        (files) => this.upload(files),
        () => this.notice("What was dropped could not be read; check that it is still there, and drop it again."),
      );
    });
  }

  private guardLeaving(): void {
    addEventListener("beforeunload", (event) => {
      if (this.client.active.size > 0) event.preventDefault();
    });
    addEventListener("pagehide", () => this.client.leave());
  }
}

function remembered(key: string): string {
  try {
    return localStorage.getItem(key) ?? "";
  } catch {
    return ""; // site data is blocked
  }
}

function remember(key: string, value: string): void {
  try {
    localStorage.setItem(key, value);
  } catch {
    // it is read from the beginning then
  }
}

new Console().start();
