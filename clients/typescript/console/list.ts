/** The list of uploads: files and batches as elements that are updated in place. Must not know requests. */

import { isFinal } from "../src/index.js";
import type { GetStatisticsResponse } from "../src/index.js";
import { quoted } from "../src/visible.js";
import { closeAsk, toggleAsk } from "./ask.js";
import { arrange, make, say, setAttribute, show } from "./dom.js";
import * as format from "./format.js";
import { MOST_ROWS } from "./listing.js";
import { isBatch } from "./model.js";
import type { BatchRow, FileRow, Filter, Model } from "./model.js";
import { badgeOf, BADGES, batchBadge, batchLine, batchTitle, cancellable, countOf, lineOf } from "./words.js";
import type { Badge } from "./words.js";

const FILTERS: readonly Filter[] = ["all", "uploading", "pending", "completed", "cancelled", "failed"];

/** What the list asks for when its buttons are pressed, and what it lacks. */
export interface Actions {
  cancelFile: (row: FileRow, reason: string) => void;
  cancelBatch: (row: BatchRow, reason: string) => void;
  details: (row: FileRow) => void;
  /** Read more of what is shown. */
  more: () => void;
  /** Read more of a batch's files. */
  moreFiles: (row: BatchRow) => void;
  /** Find out what a batch's first file is called. */
  name: (row: BatchRow) => void;
}

const PAGE = 60;
const FILES_OF_BATCH = 20;

interface FileView {
  element: HTMLLIElement;
  update: (row: FileRow) => void;
}

interface BatchView {
  element: HTMLLIElement;
  update: (row: BatchRow) => void;
}

export class List {
  private shown = PAGE;
  /** How many rows are shown. */
  private visible = 0;
  private readonly seen = new IntersectionObserver((seen) => seen.some(({ isIntersecting }) => isIntersecting) && this.showMore());
  /** What was shown when somebody began to aim at a row: nothing may move away under a hand. */
  private held: readonly (FileRow | BatchRow)[] | undefined;
  private readonly files = new Map<FileRow, FileView>();
  private readonly batches = new Map<BatchRow, BatchView>();

  constructor(
    private readonly model: Model,
    private readonly actions: Actions,
    private readonly parent: HTMLElement,
    private readonly empty: HTMLElement,
    private readonly end: HTMLElement,
    private readonly fresh: HTMLElement,
  ) {
    let [pointed, focused] = [false, false];
    const aim = (pointing: boolean, focusing: boolean): void => {
      [pointed, focused] = [pointing, focusing];
      if (pointed || focused) this.hold();
      else this.release();
    };
    parent.addEventListener("pointerenter", () => aim(true, focused));
    parent.addEventListener("pointerleave", () => aim(false, focused));
    // Whoever works with a mouse aims with it; a focus that a press has left behind is no aim.
    parent.addEventListener("focusin", (event) => aim(pointed, (event.target as Element).matches(":focus-visible")));
    parent.addEventListener("focusout", (event) => aim(pointed, parent.contains(event.relatedTarget as Node | null)));
    fresh.addEventListener("click", () => this.showFresh());
    // Scrolled to its end, the list goes on; the button is for who does not scroll.
    this.seen.observe(end);
    end.querySelector("button")!.addEventListener("click", () => this.showMore());
  }

  /** How many rows are to be there, if the service has so many. */
  get wanted(): number {
    return this.shown;
  }

  /** Keep what is shown where it is: what is new waits behind a button. */
  private hold(): void {
    this.held ??= this.model.items();
  }

  private release(): void {
    if (!this.held) return;
    this.held = undefined;
    this.render();
  }

  /** Show what is new, also to who aims at a row. */
  showFresh(): void {
    if (this.held) this.held = this.model.items();
    this.render();
  }

  /** More rows were asked for, and have perhaps been read. */
  showMore(): void {
    const now = this.model.items();
    if (now.length >= this.shown && this.shown < MOST_ROWS) this.shown += PAGE;
    this.showFresh();
    if (now.length < this.shown && this.model.more.readable) this.actions.more();
  }

  /** More rows were read: they come after what is shown, whoever aims at a row. */
  showRead(): void {
    if (this.held) {
      const known = new Set(this.held);
      const last = this.held.at(-1)?.createdAt.getTime() ?? Infinity;
      const read = this.model.items().filter((item) => !known.has(item) && item.createdAt.getTime() <= last);
      this.held = [...this.held, ...read];
    }
    this.render();
  }

  /** Another part of the service is shown. */
  restart(): void {
    this.shown = PAGE;
    this.showFresh();
  }

  render(): void {
    const now = this.model.items();
    const items = this.held?.filter((item) => this.model.isCurrent(item)) ?? now;
    this.tellFresh(now);
    const visible = items.slice(0, this.shown);
    const used = new Set<FileRow | BatchRow>();
    const elements = visible.map((item) => (isBatch(item) ? this.batch(item, used) : this.file(item, used)));
    arrange(this.parent, elements);
    for (const row of this.files.keys()) if (!used.has(row)) this.files.delete(row);
    for (const row of this.batches.keys()) if (!used.has(row)) this.batches.delete(row);
    this.tellEnd(visible.length, items.length);
  }

  private tellEnd(visible: number, held: number): void {
    const { filter, more } = this.model;
    const cut = held > visible || more.exists;
    const limit = visible >= MOST_ROWS ? " Choose a state above to look further back, or ask uploadctl." : "";
    show(this.end, cut);
    say(this.end.querySelector("p")!, `Only the newest ${visible.toLocaleString("en")} are shown.${limit}`);
    show(this.end.querySelector("button")!, limit === "");
    // Whether the end is seen is told anew when it has moved.
    if (visible !== this.visible) this.seen.unobserve(this.end);
    this.seen.observe(this.end);
    this.visible = visible;
    show(this.empty, held === 0 && !more.exists);
    say(this.empty, filter === "all" ? "No uploads yet. Drop a file above." : `No upload is ${filter} now.`);
  }

  private tellFresh(now: readonly (FileRow | BatchRow)[]): void {
    const known = new Set(this.held);
    const count = this.held ? now.filter((item) => !known.has(item)).length : 0;
    show(this.fresh, count > 0);
    if (count > 0) say(this.fresh, `Show ${count.toLocaleString("en")} newer`);
  }

  private file(row: FileRow, used: Set<FileRow | BatchRow>): HTMLElement {
    used.add(row);
    let view = this.files.get(row);
    if (!view) this.files.set(row, (view = fileView(row, this.actions)));
    view.update(row);
    return view.element;
  }

  private batch(row: BatchRow, used: Set<FileRow | BatchRow>): HTMLElement {
    used.add(row);
    let view = this.batches.get(row);
    if (!view) {
      view = batchView(row, this.model, this.actions, (file) => this.file(file, used), () => this.render());
      this.batches.set(row, view);
    }
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

function fileView(first: FileRow, actions: Actions): FileView {
  const badge = make("span", "badge");
  const name = make("span", "name");
  const line = make("span", "line");
  const bar = make("progress", "bar");
  const [cancelName, openName] = [make("span", "hidden"), make("span", "hidden")];
  let row = first;
  const cancel: HTMLButtonElement = button("Cancel", cancelName, "button cancel", () =>
    toggleAsk(element, cancel, "Cancel the upload", (reason) => actions.cancelFile(row, reason)),
  );
  const open = button("Details", openName, "button open", () => actions.details(row));
  const side = make("div", "side", cancel, open);
  const text = make("div", "text", name, line, bar);
  const element = make("li", "row", badge, text, side);
  return {
    element,
    update: (now) => {
      row = now;
      const state = badgeOf(now);
      setBadge(badge, state);
      setAttribute(element, "data-state", state);
      say(name, quoted(now.filename));
      say(line, lineOf(now));
      updateBar(bar, now, state);
      say(cancelName, ` ${quoted(now.filename)}`);
      say(openName, ` of ${quoted(now.filename)}`);
      updateCancel(cancel, open, state, cancellable(now));
      show(open, now.fileId !== "");
      if (!cancellable(now) && closeAsk(element)) open.focus();
    },
  };
}

function setBadge(badge: HTMLElement, state: Badge): void {
  setAttribute(badge, "data-state", state);
  say(badge, BADGES[state]);
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
function updateCancel(cancel: HTMLButtonElement, next: HTMLElement, state: Badge, possible: boolean): void {
  const busy = state === "cancelling";
  say(cancel.firstElementChild!, busy ? "Cancelling…" : "Cancel");
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
): BatchView {
  let row = first;
  let shown = FILES_OF_BATCH;
  const badge = make("span", "badge");
  const name = make("span", "name");
  const line = make("span", "line");
  const bar = make("progress", "bar");
  const [cancelName, openName] = [make("span", "hidden"), make("span", "hidden")];
  const cancel: HTMLButtonElement = button("Cancel all", cancelName, "button cancel", () =>
    toggleAsk(head, cancel, "Cancel the whole batch", (reason) => actions.cancelBatch(row, reason)),
  );
  const open = button("Files", openName, "button open", () => {
    if (row.files) model.closeBatch(row);
    else {
      shown = FILES_OF_BATCH;
      model.openBatch(row);
      actions.moreFiles(row);
    }
    changed();
  });
  const more = make("button", "button wide", "Show more files");
  more.type = "button";
  more.addEventListener("click", () => {
    shown += 100;
    if (row.files && row.files.rows.length < shown) actions.moreFiles(row);
    changed();
  });
  const files = make("ul", "list inner");
  const head = make("div", "row", badge, make("div", "text", name, line, bar), make("div", "side", cancel, open));
  const element = make("li", "batch", head, files, more);
  return {
    element,
    update: (now) => {
      row = now;
      if (now.firstName === undefined) actions.name(now);
      const state = batchBadge(now);
      const title = batchTitle(now);
      setBadge(badge, state);
      setAttribute(head, "data-state", state);
      say(name, title);
      say(line, batchLine(now));
      updateBatchBar(bar, now, title);
      say(cancelName, ` of ${title}`);
      say(openName, ` of ${title}`);
      say(open.firstElementChild!, now.files ? "Hide files" : "Files");
      setAttribute(open, "aria-expanded", String(now.files !== undefined));
      updateCancel(cancel, open, state, !isFinal(now.status));
      if (isFinal(now.status) && closeAsk(head)) open.focus();
      if (state !== "cancelling") say(cancel.firstElementChild!, "Cancel all");
      show(files, now.files !== undefined);
      const rows = now.files?.rows ?? [];
      arrange(files, rows.slice(0, shown).map(file));
      show(more, rows.length > shown || (now.files?.readable ?? false));
    },
  };
}

/** This page knows the bytes of its own uploads; of others' batches it knows how many files are final. */
function updateBatchBar(bar: HTMLProgressElement, row: BatchRow, title: string): void {
  const moving = !isFinal(row.status);
  show(bar, moving);
  if (!moving) return;
  let [done, whole] = [row.completed + row.failed + row.cancelled, row.total];
  if (row.upload) {
    [done, whole] = [0, 0];
    for (const upload of row.upload.uploads) {
      whole += upload.blob.size;
      done += upload.state === "completed" ? upload.blob.size : upload.bytesReceived;
    }
  }
  bar.max = Math.max(1, whole);
  bar.value = done;
  setAttribute(bar, "aria-label", `${title}: ${format.percent(done, whole)} ${row.upload ? "uploaded" : "of the files final"}`);
}

/** The buttons that choose which uploads are shown, with how many the service has. */
export class Filters {
  private readonly labels = new Map<Filter, HTMLElement>();
  private readonly inputs = new Map<Filter, HTMLInputElement>();

  constructor(parent: HTMLElement, chosen: (filter: Filter) => void) {
    for (const filter of FILTERS) {
      const input = make("input");
      input.type = "radio";
      input.name = "filter";
      input.value = filter;
      input.checked = filter === "all";
      input.addEventListener("change", () => chosen(filter));
      const number = make("span", "number");
      this.labels.set(filter, number);
      this.inputs.set(filter, input);
      parent.append(make("label", "", input, make("span", "", filter === "all" ? "All" : BADGES[filter], " ", number)));
    }
  }

  choose(filter: Filter): void {
    this.inputs.get(filter)!.checked = true;
  }

  update(statistics: GetStatisticsResponse): void {
    for (const [filter, label] of this.labels) say(label, countOf(statistics, filter).toLocaleString("en"));
  }
}
