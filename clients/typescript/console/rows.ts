/** Files and batches as elements that are updated in place. Must not know requests, or where the rows stand. */

import { isFinal } from "../src/index.js";
import { quoted } from "../src/visible.js";
import { closeAsk, toggleAsk } from "./ask.js";
import { arrange, make, say, setAttribute, show } from "./dom.js";
import * as format from "./format.js";
import { may, me } from "./me.js";
import { MOST_OF_BATCH } from "./model.js";
import type { Model } from "./model.js";
import { isBatch, isOver } from "./row.js";
import type { BatchRow, FileRow } from "./row.js";
import { badgeOf, BADGES, batchBadge, batchLine, batchTitle, cancellable, cancelWarning, downloadable, lineOf, sentOf } from "./words.js";
import type { Badge } from "./words.js";

/** What rows ask for when their buttons are pressed, and what they lack. */
export interface Actions {
  cancelFile: (row: FileRow, reason: string) => void;
  cancelBatch: (row: BatchRow, reason: string) => void;
  details: (row: FileRow | BatchRow) => void;
  /** Upload again what did not arrive. */
  retry: (row: FileRow | BatchRow) => void;
  /** Out of this page's own uploads. */
  dismiss: (row: FileRow | BatchRow) => void;
  /** Read more of a batch's files. */
  moreFiles: (row: BatchRow) => void;
  /** Find out what a batch's first file is called. */
  name: (row: BatchRow) => void;
  /** Where a file's bytes are. */
  contentUrl: (row: FileRow) => string;
}

interface View<R> {
  element: HTMLLIElement;
  update: (row: R) => void;
}

const FILES_OF_BATCH = 20;

/** The elements of rows; those that were not asked for in a turn are forgotten. */
export class Rows {
  private readonly files = new Map<FileRow, View<FileRow>>();
  private readonly batches = new Map<BatchRow, View<BatchRow>>();
  private used = new Set<FileRow | BatchRow>();

  constructor(
    private readonly model: Model,
    private readonly actions: Actions,
    private readonly changed: () => void,
  ) {}

  /** Show these rows in this order. */
  show(parent: HTMLElement, rows: readonly (FileRow | BatchRow)[]): void {
    this.used = new Set();
    arrange(parent, rows.map((row) => (isBatch(row) ? this.batch(row) : this.file(row))));
    for (const row of this.files.keys()) if (!this.used.has(row)) this.files.delete(row);
    for (const row of this.batches.keys()) if (!this.used.has(row)) this.batches.delete(row);
  }

  private file(row: FileRow): HTMLElement {
    this.used.add(row);
    let view = this.files.get(row);
    if (!view) this.files.set(row, (view = fileView(row, this.actions)));
    view.update(row);
    return view.element;
  }

  private batch(row: BatchRow): HTMLElement {
    this.used.add(row);
    let view = this.batches.get(row);
    if (!view) this.batches.set(row, (view = batchView(row, this.model, this.actions, (file) => this.file(file), this.changed)));
    view.update(row);
    return view.element;
  }
}

function button(text: string, about: HTMLElement, className: string, press: () => void): HTMLButtonElement {
  const element = make("button", className, make("span", "", text), about);
  element.type = "button";
  element.addEventListener("click", () => {
    if (element.getAttribute("aria-disabled") !== "true") press();
  });
  return element;
}

/** What a row has whatever it stands for. */
class Parts<R extends FileRow | BatchRow> {
  readonly badge = make("span", "badge");
  readonly name = make("span", "name");
  readonly owner = make("span", "owner");
  readonly line = make("span", "line");
  readonly bar = make("progress", "bar");
  readonly cancel: HTMLButtonElement;
  readonly open: HTMLButtonElement;
  private readonly retry: HTMLButtonElement;
  private readonly dismiss: HTMLButtonElement;
  /** What buttons are about, for who does not see where they stand; with the word before it. */
  private readonly about = new Map<HTMLElement, string>();
  readonly side: HTMLElement;

  constructor(
    private row: R,
    actions: Actions,
    words: { cancel: string; of: string; ask: string },
    head: () => HTMLElement,
    cancelled: (row: R, reason: string) => void,
  ) {
    this.cancel = button(words.cancel, this.named(words.of), "button cancel", () =>
      toggleAsk(head(), this.cancel, words.ask, cancelWarning(this.row), (reason) => cancelled(this.row, reason)),
    );
    this.retry = button("Retry", this.named(), "button", () => actions.retry(this.row));
    this.dismiss = button("Dismiss", this.named(), "button", () => actions.dismiss(this.row));
    this.open = button("Details", this.named(" of"), "button open", () => actions.details(this.row));
    this.side = make("div", "side", this.cancel, this.retry, this.open, this.dismiss);
  }

  named(of = ""): HTMLElement {
    const about = make("span", "hidden");
    this.about.set(about, of);
    return about;
  }

  update(now: R, head: HTMLElement, state: Badge, title: string, line: string): void {
    this.row = now;
    setAttribute(this.badge, "data-state", state);
    say(this.badge, BADGES[state]);
    setAttribute(head, "data-state", state);
    say(this.name, title);
    const another = now.owner !== me.principal;
    say(this.owner, another ? quoted(now.owner) : "");
    show(this.owner, another);
    say(this.line, line);
    setAttribute(this.line, "title", line);
    for (const [about, of] of this.about) say(about, `${of} ${title}`);
    const over = now.own && isOver(now) && (isFinal(now.status) || now.problem !== "");
    show(this.dismiss, over);
    show(this.retry, over && retryable(now));
    show(this.open, isBatch(now) ? now.batchId !== "" : now.fileId !== "");
  }
}

/** Whether there is something that this page could send again. */
function retryable(row: FileRow | BatchRow): boolean {
  if (isBatch(row)) return row.upload !== undefined && row.status !== "completed" && row.status !== "pending" || (row.problem !== "" && row.upload !== undefined);
  return row.upload !== undefined && row.status !== "completed";
}

function fileView(first: FileRow, actions: Actions): View<FileRow> {
  const element = make("li", "row");
  const parts = new Parts(first, actions, { cancel: "Cancel", of: "", ask: "Cancel the upload" }, () => element, actions.cancelFile);
  const download = make("a", "button", "Download", parts.named());
  parts.side.insertBefore(download, parts.open);
  element.append(parts.badge, make("div", "text", make("span", "title", parts.name, parts.owner), parts.line, parts.bar), parts.side);
  return {
    element,
    update: (now) => {
      const state = badgeOf(now);
      parts.update(now, element, state, quoted(now.filename), lineOf(now));
      setAttribute(parts.name, "title", quoted(now.filename));
      updateBar(parts.bar, now, state);
      const there = downloadable(now);
      show(download, there);
      if (there) {
        setAttribute(download, "href", actions.contentUrl(now));
        setAttribute(download, "download", "");
      }
      updateCancel(parts.cancel, parts.open, state, cancellable(now) && may("cancel"), "Cancel");
      if (!cancellable(now) && closeAsk(element)) parts.open.focus();
    },
  };
}

function updateBar(bar: HTMLProgressElement, row: FileRow, state: Badge): void {
  const moving = state === "uploading" || state === "interrupted" || state === "cancelling";
  show(bar, moving);
  if (!moving) return;
  bar.max = Math.max(1, row.size);
  bar.value = row.received;
  setAttribute(bar, "aria-label", `${quoted(row.filename)}: ${format.percent(row.received, row.size)} uploaded`);
}

/** The button stays where it is while it works, so that the focus stays too; when it goes, the focus goes to its neighbour. */
function updateCancel(cancel: HTMLButtonElement, next: HTMLElement, state: Badge, possible: boolean, text: string): void {
  const busy = state === "cancelling";
  say(cancel.firstElementChild!, busy ? "Cancelling…" : text);
  setAttribute(cancel, "aria-disabled", busy ? "true" : undefined);
  if (!possible && document.activeElement === cancel) {
    next.hidden = false;
    next.focus();
  }
  show(cancel, possible);
}

function batchView(
  first: BatchRow,
  model: Model,
  actions: Actions,
  file: (row: FileRow) => HTMLElement,
  changed: () => void,
): View<BatchRow> {
  let row = first;
  let shown = FILES_OF_BATCH;
  const head = make("div", "row");
  const parts = new Parts(first, actions, { cancel: "Cancel all", of: " of", ask: "Cancel the whole batch" }, () => head, actions.cancelBatch);
  const files = button("Files", parts.named(" of"), "button files", () => {
    if (row.files) model.closeBatch(row);
    else {
      shown = FILES_OF_BATCH;
      model.openBatch(row);
      actions.moreFiles(row);
    }
    changed();
  });
  parts.side.insertBefore(files, parts.open);
  const more = make("button", "button wide", "Show more files");
  more.type = "button";
  more.addEventListener("click", () => {
    shown += 60;
    if (row.files && row.files.rows.length < shown) actions.moreFiles(row);
    changed();
  });
  const inner = make("ul", "list inner");
  head.append(parts.badge, make("div", "text", make("span", "title", parts.name, parts.owner), parts.line, parts.bar), parts.side);
  const element = make("li", "batch", head, inner, more);
  return {
    element,
    update: (now) => {
      row = now;
      if (now.firstName === undefined && now.batchId) actions.name(now);
      const state = batchBadge(now);
      const title = batchTitle(now);
      parts.update(now, head, state, title, batchLine(now));
      setAttribute(parts.name, "title", title);
      updateBatchBar(parts.bar, now, title);
      say(files.firstElementChild!, now.files ? "Hide files" : "Files");
      setAttribute(files, "aria-expanded", String(now.files !== undefined));
      show(files, now.batchId !== "");
      updateCancel(parts.cancel, parts.open, state, !isFinal(now.status) && now.batchId !== "" && may("cancel"), "Cancel all");
      if (isFinal(now.status) && closeAsk(head)) parts.open.focus();
      show(inner, now.files !== undefined);
      const rows = now.files?.rows ?? [];
      arrange(inner, rows.slice(0, shown).map(file));
      show(more, rows.length > shown || ((now.files?.more ?? false) && rows.length < MOST_OF_BATCH));
    },
  };
}

/** This page knows the bytes of its own uploads; of others' batches it knows how many files are final. */
function updateBatchBar(bar: HTMLProgressElement, row: BatchRow, title: string): void {
  const moving = !isFinal(row.status) && row.problem === "";
  show(bar, moving);
  if (!moving) return;
  const sent = sentOf(row);
  const [done, whole] = sent ? [sent.done, sent.whole] : [row.completed + row.failed + row.cancelled, row.total];
  bar.max = Math.max(1, whole);
  bar.value = done;
  setAttribute(bar, "aria-label", `${title}: ${format.percent(done, whole)} ${sent ? "uploaded" : "of the files final"}`);
}
