/** The list of uploads: files and batches as elements that are updated in place. Must not know requests. */

import { isFinal } from "../src/index.js";
import type { StatusWord } from "../src/index.js";
import { quoted } from "../src/visible.js";
import { arrange, make, say, setAttribute, show } from "./dom.js";
import * as format from "./format.js";
import { isBatch } from "./model.js";
import type { BatchRow, FileRow, Model } from "./model.js";
import { badgeOf, BADGES, batchBadge, batchLine, batchStatus, batchTitle, cancellable, countsOf, lineOf } from "./words.js";
import type { Badge, Counts } from "./words.js";

export type Filter = "all" | keyof Counts;
export const FILTERS: readonly Filter[] = ["all", "uploading", "pending", "completed", "cancelled", "failed"];

/** What the list asks for when its buttons are pressed. */
export interface Actions {
  cancelFile: (row: FileRow) => void;
  cancelBatch: (row: BatchRow) => void;
  details: (row: FileRow) => void;
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
  filter: Filter = "all";
  private shown = PAGE;
  /** What was shown when somebody began to aim at a row: nothing may move away under a hand. */
  private held: readonly (FileRow | BatchRow)[] | undefined;
  private readonly files = new Map<FileRow, FileView>();
  private readonly batches = new Map<BatchRow, BatchView>();

  constructor(
    private readonly model: Model,
    private readonly actions: Actions,
    private readonly parent: HTMLElement,
    private readonly empty: HTMLElement,
    private readonly more: HTMLElement,
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
    parent.addEventListener("focusin", () => aim(pointed, true));
    parent.addEventListener("focusout", (event) => aim(pointed, parent.contains(event.relatedTarget as Node | null)));
    fresh.addEventListener("click", () => this.showFresh());
  }

  /** Keep what is shown where it is: what is new waits behind a button. */
  private hold(): void {
    this.held ??= this.items();
  }

  private release(): void {
    if (!this.held) return;
    this.held = undefined;
    this.render();
  }

  /** Show what is new, also to who aims at a row. */
  showFresh(): void {
    if (this.held) this.held = this.items();
    this.render();
  }

  private items(): readonly (FileRow | BatchRow)[] {
    const { filter, model } = this;
    return filter === "all" ? [...model.items()] : model.filesWhere(({ status }) => status === filter);
  }

  showMore(): void {
    this.shown += PAGE;
    this.render();
  }

  setFilter(filter: Filter): void {
    this.filter = filter;
    this.shown = PAGE;
    this.showFresh();
  }

  render(): void {
    const { filter } = this;
    const now = this.items();
    const items = this.held ?? now;
    this.tellFresh(now);
    const visible = items.slice(0, this.shown);
    const used = new Set<FileRow | BatchRow>();
    const elements = visible.map((item) => (isBatch(item) ? this.batch(item, used) : this.file(item, used)));
    arrange(this.parent, elements);
    for (const row of this.files.keys()) if (!used.has(row)) this.files.delete(row);
    for (const row of this.batches.keys()) if (!used.has(row)) this.batches.delete(row);
    show(this.more, items.length > visible.length);
    say(this.more, `Show more (${(items.length - visible.length).toLocaleString("en")} are not shown)`);
    show(this.empty, items.length === 0);
    say(this.empty, filter === "all" ? "No uploads yet. Drop a file above, or run “make demo”." : `No upload is ${filter} now.`);
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
      view = batchView(row, this.actions, (file) => this.file(file, used), () => this.render());
      this.batches.set(row, view);
    }
    // Its files are used as long as it is: an opened batch keeps their elements.
    for (const file of row.files) if (this.files.has(file)) used.add(file);
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
  const cancel = button("Cancel", cancelName, "button cancel", () => actions.cancelFile(row));
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
  actions: Actions,
  file: (row: FileRow) => HTMLElement,
  changed: () => void,
): BatchView {
  let row = first;
  let [opened, shown] = [false, FILES_OF_BATCH];
  const badge = make("span", "badge");
  const name = make("span", "name");
  const line = make("span", "line");
  const bar = make("progress", "bar");
  const [cancelName, openName] = [make("span", "hidden"), make("span", "hidden")];
  const cancel = button("Cancel all", cancelName, "button cancel", () => actions.cancelBatch(row));
  const open = button("Files", openName, "button open", () => {
    opened = !opened;
    changed();
  });
  const more = make("button", "button wide", "Show more files");
  more.type = "button";
  more.addEventListener("click", () => {
    shown += 100;
    changed();
  });
  const files = make("ul", "list inner");
  const head = make("div", "row", badge, make("div", "text", name, line, bar), make("div", "side", cancel, open));
  const element = make("li", "batch", head, files, more);
  return {
    element,
    update: (now) => {
      row = now;
      const state = batchBadge(now);
      const title = batchTitle(now);
      setBadge(badge, state);
      setAttribute(head, "data-state", state);
      say(name, title);
      say(line, batchLine(now));
      updateBatchBar(bar, now, title);
      say(cancelName, ` of ${title}`);
      say(openName, ` of ${title}`);
      say(open.firstElementChild!, opened ? "Hide files" : "Files");
      setAttribute(open, "aria-expanded", String(opened));
      updateCancel(cancel, open, state, !isFinal(batchStatus(now)));
      if (state !== "cancelling") say(cancel.firstElementChild!, "Cancel all");
      show(files, opened);
      arrange(files, opened ? byActivity(now.files).slice(0, shown).map(file) : []);
      show(more, opened && now.files.length > shown);
    },
  };
}

const NAMES = new Intl.Collator(undefined, { numeric: true });

/** What moves comes first; then by name. */
function byActivity(files: readonly FileRow[]): readonly FileRow[] {
  const rank = (row: FileRow): number => (row.status === "uploading" ? 0 : 1);
  return [...files].sort((a, b) => rank(a) - rank(b) || NAMES.compare(a.filename, b.filename));
}

function updateBatchBar(bar: HTMLProgressElement, row: BatchRow, title: string): void {
  const moving = !isFinal(batchStatus(row));
  show(bar, moving);
  if (!moving) return;
  let [received, size] = [0, 0];
  for (const file of row.files) {
    size += file.size;
    received += file.status === "completed" ? file.size : file.received;
  }
  bar.max = Math.max(1, size);
  bar.value = received;
  setAttribute(bar, "aria-label", `${title}: ${format.percent(received, size)} uploaded`);
}

/** The buttons that choose which uploads are shown, with how many there are. */
export class Filters {
  private readonly labels = new Map<Filter, HTMLElement>();

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
      parent.append(make("label", "", input, make("span", "", filter === "all" ? "All" : BADGES[filter as StatusWord], " ", number)));
    }
  }

  update(model: Model): void {
    const counts = countsOf(model.files.values());
    for (const [filter, label] of this.labels) {
      say(label, (filter === "all" ? model.files.size : counts[filter]).toLocaleString("en"));
    }
  }
}
