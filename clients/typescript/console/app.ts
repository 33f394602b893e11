/** The page: joins the client, what is known, and what is shown. */

import { hasReason, isFinal, newTraceparent, UploadClient, UploadError } from "../src/index.js";
import type { CancelOutcome, SharedWatch, UploadedFile, WatchEvent, WatchState } from "../src/index.js";
import { backoff } from "../src/pause.js";
import { quoted } from "../src/visible.js";
import { renderChart } from "./chart.js";
import { Details } from "./details.js";
import { Export } from "./export.js";
import { byId, say, setAttribute, throttled } from "./dom.js";
import { takeFiles } from "./drop.js";
import { Feed } from "./feed.js";
import * as format from "./format.js";
import { List } from "./list.js";
import type { Direction } from "./list.js";
import { may } from "./me.js";
import { Model } from "./model.js";
import { isTold, notice } from "./notices.js";
import { isBatch } from "./row.js";
import type { BatchRow, FileRow } from "./row.js";
import { Rows } from "./rows.js";
import { Search } from "./search.js";
import { Sends } from "./sends.js";
import { SignIn } from "./sign-in.js";
import { Statistics } from "./statistics.js";
import { Strip } from "./strip.js";
import { backgroundSleep } from "./ticker.js";
import { Tray } from "./tray.js";
import { EVERYTHING, hashOf, idIn, isSifted, placeOf, sameView } from "./view.js";
import type { Opened, Place, View } from "./view.js";

/** So often the chart moves on when nothing happens, in milliseconds. */
const CHART_MS = 10_000;

/** The page's own folder: a proxy may serve it under a prefix. */
const HOME = new URL(".", location.href).href;

class Console {
  private readonly signIn = new SignIn(() => void this.listen());
  private readonly client = new UploadClient({
    baseUrl: HOME,
    fetch: this.signIn.fetch,
    sleep: backgroundSleep("console/ticker.js"),
    traceparent: newTraceparent,
    // People see who waits for whom.
    concurrency: 4,
  });
  private readonly details: Details;
  private readonly model = new Model(this.client.api, () => this.details.shown, () => this.draw());
  private readonly feed = new Feed((row) => this.name(row));
  private readonly statistics = new Statistics(this.client.api, () => this.renderStatistics());
  private readonly list: List;
  private readonly tray: Tray;
  private readonly search = new Search((view, typing) => this.choose(view, typing));
  private readonly strip = new Strip(() => this.readMetrics());
  private readonly draw = throttled(100, () => this.render());
  private readonly sends = new Sends(this.client, this.model, () => this.render(), this.draw);
  private place: Place = { view: EVERYTHING, opened: undefined };
  private watch: SharedWatch | undefined;
  private reading: Promise<void> | undefined;
  /** Names of batches are asked for one after the other. */
  private naming: Promise<unknown> = Promise.resolve();

  constructor() {
    const contentUrl = ({ fileId }: FileRow): string => `api/v1/files/${encodeURIComponent(fileId)}/content`;
    const cancelFile = (row: FileRow, reason: string): void => this.cancelFile(row, reason);
    const cancelBatch = (row: BatchRow, reason: string): void => this.cancelBatch(row, reason);
    const dismiss = (row: FileRow | BatchRow): void => this.sends.dismiss(row);
    const actions = {
      cancelFile,
      cancelBatch,
      contentUrl,
      dismiss,
      details: (row: FileRow | BatchRow) => this.open(isBatch(row) ? { kind: "batches", id: row.batchId } : { kind: "files", id: row.fileId }),
      retry: (row: FileRow | BatchRow) => this.sends.retry(row),
      moreFiles: (row: BatchRow) => this.readFiles(row),
      name: (row: BatchRow) => this.name(row),
    };
    this.details = new Details(this.client.api, {
      cancelFile,
      cancelBatch,
      contentUrl,
      deleteContent: (row, reason) => this.deleteContent(row, reason),
      closed: () => this.go({ view: this.place.view, opened: undefined }, true),
      batch: (id) => this.open({ kind: "batches", id }),
      list: (text) => this.go({ view: { ...EVERYTHING, text }, opened: undefined }),
    });
    const rows = (): Rows => new Rows(this.model, actions, () => this.render());
    const elements = ["list", "empty", "end", "begin", "fresh"].map((id) => byId(id)) as [HTMLElement, HTMLElement, HTMLElement, HTMLElement, HTMLElement];
    this.list = new List(this.model, rows(), ...elements, (where) => void this.read(where), () => this.showNewest());
    this.tray = new Tray(this.model, rows(), dismiss);
    new Export(this.client.api, () => this.model.asked);
    const time = byId<HTMLSelectElement>("window");
    time.addEventListener("change", () => {
      this.statistics.windowSeconds = Number(time.value);
      this.statistics.renew();
    });
    byId("chart-table").closest("details")?.addEventListener("toggle", () => this.renderStatistics());
    takeFiles((files) => this.sends.begin(files));
    this.guardLeaving();
  }

  async start(): Promise<void> {
    // A page that comes back from the browser's cache has lost its connections and its place.
    addEventListener("pageshow", (event) => event.persisted && location.reload());
    await this.signIn.begin(this.client.api);
    byId("drop").hidden = !may("write");
    byId("metrics").hidden = !may("metrics");
    addEventListener("popstate", () => this.arrive());
    this.arrive();
    await this.listen();
    addEventListener("online", () => this.watch?.wake());
    setInterval(() => this.statistics.renew(), CHART_MS);
    this.strip.start();
  }

  // Where the page is ------------------------------------------------------------------------------------------------

  private go(place: Place, replacing = false): void {
    const hash = hashOf(place);
    if (replacing) history.replaceState(undefined, "", hash);
    else history.pushState(undefined, "", hash);
    this.arrive();
  }

  /** Show what the URL says. */
  private arrive(): void {
    const place = placeOf(location.hash);
    if (!place) return;
    const { view, opened } = this.place;
    this.place = place;
    this.search.show(place.view);
    if (!sameView(view, place.view)) this.showView(place.view);
    if (opened?.kind === place.opened?.kind && opened?.id === place.opened?.id) return;
    if (place.opened) void this.look(place.opened);
    else this.details.close();
  }

  private choose(view: View, typing: boolean): void {
    const id = idIn(view.text);
    if (id) this.open({ kind: "files", id });
    // An id that was pasted is being opened, and its text is gone: Enter says nothing new then.
    else if (!sameView(view, this.place.view)) this.go({ view, opened: undefined }, typing);
  }

  private open(opened: Opened): void {
    this.go({ view: this.place.view, opened });
  }

  /** Show a file or batch, whether or not a list holds it. */
  private async look(opened: Opened): Promise<void> {
    notice("link", "");
    try {
      const row = await this.rowOf(opened);
      if (this.place.opened === opened) this.details.open(row);
    } catch (error) {
      if (this.place.opened !== opened) return;
      // Whoever has only an id knows not always of what.
      if (opened.kind === "files" && error instanceof UploadError && error.reason === "FILE_NOT_FOUND") {
        return this.go({ view: this.place.view, opened: { kind: "batches", id: opened.id } }, true);
      }
      const missing = error instanceof UploadError && error.reason === "BATCH_NOT_FOUND";
      notice("link", missing ? `There is no upload and no batch with the id ${quoted(opened.id)}, or you may not see it.` : `It could not be read. ${messageOf(error)}`);
      this.go({ view: this.place.view, opened: undefined }, true);
    }
  }

  private async rowOf({ kind, id }: Opened): Promise<FileRow | BatchRow> {
    if (kind === "files") return this.model.files.get(id) ?? this.model.holdFile(await this.client.api.getFile(id));
    return this.model.batches.get(id) ?? this.model.holdBatch(await this.client.api.getBatch(id));
  }

  private showView(view: View): void {
    this.model.setView(view);
    this.list.showFresh();
    void this.read();
  }

  private showNewest(): void {
    this.model.begin();
    this.list.showFresh();
    scrollTo({ top: 0, behavior: "instant" });
    void this.read();
  }

  /** Watch and read; or go on where the watch was, which has ended when its person was not known any more. */
  private async listen(): Promise<void> {
    const resumeToken = this.watch?.resumeToken || (await this.counted());
    this.watch?.stop();
    // The watch before the lists: what changes while they are read is heard, and told again.
    this.watch = this.client.sharedWatch({
      resumeToken,
      onEvent: (event) => this.hear(event),
      onState: (state) => this.showLive(state),
    });
    await this.read();
  }

  // What is so ------------------------------------------------------------------------------------------------------

  /** Count until the service answers; returns where the watch begins. */
  private async counted(): Promise<string> {
    for (let attempt = 0; ; attempt++) {
      try {
        return (await this.statistics.ask()).resumeToken;
      } catch (error) {
        this.tellUnread(error);
        await this.client.api.sleep(backoff(attempt));
      }
    }
  }

  /** Read on at one end of the list; once at a time. */
  private read(where: Direction = "below"): Promise<void> {
    this.reading ??= this.readOn(where).finally(() => (this.reading = undefined));
    return this.reading;
  }

  private async readOn(where: Direction): Promise<void> {
    const { asked } = this.model;
    try {
      const outermost = (): FileRow | BatchRow | undefined => this.model.items().at(where === "below" ? -1 : 0);
      const before = outermost();
      // A page may have nothing that is new to the list.
      do await (where === "below" ? this.model.load() : this.model.loadBack());
      while (outermost() === before && this.model.more[where] && asked === this.model.asked && !isSifted(asked));
      notice("list", "");
    } catch (error) {
      this.tellUnread(error);
    }
    // Another view was chosen meanwhile.
    if (asked !== this.model.asked) return this.readOn("below");
    this.list.showRead(where);
  }

  private readFiles(row: BatchRow): void {
    row.files?.load().then(this.draw, (error: unknown) => this.tellUnread(error));
  }

  private tellUnread(error: unknown): void {
    notice("list", `The list could not be read. ${messageOf(error)}`);
  }

  private name(row: BatchRow): void {
    row.firstName = "";
    this.naming = this.naming
      .then(() => this.client.api.listFiles({ batchId: row.batchId, pageSize: 1 }))
      .then(
        ({ files }) => (row.firstName = files[0]?.filename ?? ""),
        () => {}, // its size says enough
      )
      .then(this.draw);
  }

  private async readMetrics(): Promise<string> {
    const response = await this.signIn.fetch(`${HOME}metrics`, { cache: "no-store" });
    if (!response.ok) throw new Error(`metrics: ${response.status}`);
    return response.text();
  }

  private hear(event: WatchEvent): void {
    if (event.type === "file") {
      const row = this.model.takeFile(event.file);
      // What a list has told before, in a newer state, is no news.
      if (row.revision === event.file.revision) this.feed.tell(row);
      // A batch is told as one.
      if (row.upload && !row.batchId && isFinal(row.status) && !row.record?.contentDeletedAt) this.announce(row);
    } else if (event.type === "batch") {
      const { row, isNews } = this.model.takeBatch(event.batch);
      if (isNews) this.feed.tellBatch(row);
    } else if (event.type === "progress") this.model.takeProgress(event.fileId, event.bytesReceived);
    else if (event.resynced) {
      // The service is another one, or was set back: what was known may never have been.
      this.model.forget();
      this.feed.clear();
      void this.read();
    }
    if (event.type !== "progress") this.statistics.renew();
    this.draw();
  }

  private render(): void {
    this.list.render();
    this.tray.render();
    this.feed.render();
    this.details.update();
  }

  private renderStatistics(): void {
    const { latest, latestSeconds } = this.statistics;
    if (!latest) return;
    this.search.update(latest);
    this.strip.update(latest);
    renderChart(latest, latestSeconds);
  }

  private showLive(state: WatchState): void {
    setAttribute(byId("live"), "data-state", state);
    const words = { live: "Live", waiting: "Reconnecting…", ended: "Not live: load the page again" };
    if (!this.signIn.asking) say(byId("live-text"), words[state]);
    if (state === "live" && isTold("list")) void this.read();
    // A watch does not say to its page who is not known any more; a call does.
    if (state === "ended") this.statistics.renew();
  }

  private announce(row: FileRow): void {
    say(byId("said"), `${quoted(row.filename)}: ${row.status}`);
  }

  // What people do --------------------------------------------------------------------------------------------------

  private cancelFile(row: FileRow, reason: string): void {
    notice("cancel", "");
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
      if (outcome.error.reason !== "FILE_NOT_CANCELLABLE") notice("cancel", `${quoted(row.filename)}: ${outcome.error.message}`);
      say(byId("said"), `${quoted(row.filename)}: ${outcome.error.message}`);
      this.catchUp(row);
    }
    this.draw();
  }

  /** The watch tells the new state as a rule before the answer is here; if it is cut just now, ask. */
  private catchUp(row: FileRow): void {
    setTimeout(() => {
      if (isFinal(row.status) || !row.fileId) return;
      const tell = (file: UploadedFile): void => {
        if (!isFinal(row.status)) this.hear({ type: "file", file });
      };
      this.client.api.getFile(row.fileId).then(tell, () => {});
    }, 300);
  }

  /** Resolves to what went wrong, in one sentence. */
  private async deleteContent(row: FileRow, reason: string): Promise<string> {
    let problem = "";
    try {
      // The watch tells the feed of it.
      this.model.takeFile(await this.client.deleteContent(row.fileId, { reason }));
    } catch (error) {
      problem = messageOf(error) || "It is not known whether its content is deleted; load the page again.";
      if (hasReason(error, "CONTENT_DELETED")) {
        problem = "Its content was deleted already, by somebody else or in another tab; nothing was changed.";
        await this.client.api.getFile(row.fileId).then((file) => this.model.takeFile(file), () => {});
      }
    }
    say(byId("said"), `${quoted(row.filename)}: ${problem || "its content is deleted"}`);
    this.draw();
    return problem;
  }

  private cancelBatch(row: BatchRow, reason: string): void {
    row.cancelling = "pending";
    const cancellation = this.client.cancelBatch(row.batchId, { reason });
    this.render();
    void cancellation.outcome.then((outcome) => {
      row.cancelling = outcome.state === "cancelled" ? "done" : "refused";
      if (outcome.state === "cancelled") {
        const left = outcome.totalFilesInBatch - outcome.cancelledFilesCount;
        const files = format.count(outcome.totalFilesInBatch, "file");
        row.outcome = `Cancelled ${outcome.cancelledFilesCount.toLocaleString("en")} of ${files}${left ? `; ${left.toLocaleString("en")} ${left === 1 ? "was" : "were"} final already` : ""}`;
      } else row.outcome = outcome.error.message;
      say(byId("said"), row.outcome);
      this.draw();
    });
  }

  // Leaving ---------------------------------------------------------------------------------------------------------

  private guardLeaving(): void {
    addEventListener("beforeunload", (event) => {
      if (this.sends.underWay) event.preventDefault();
    });
    addEventListener("pagehide", () => this.client.leave());
  }
}

function messageOf(error: unknown): string {
  return error instanceof UploadError ? error.message : "";
}

void new Console().start();
