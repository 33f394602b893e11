/** The latest things that anyone did, newest first. Must not know where they come from. */

import { isFinal } from "../src/index.js";
import type { StatusWord } from "../src/index.js";
import { quoted } from "../src/visible.js";
import { byId, make, show, told } from "./dom.js";
import * as format from "./format.js";
import type { BatchRow, FileRow } from "./model.js";
import { batchTitle } from "./words.js";

const MOST = 12;

export class Feed {
  private readonly list = byId("feed");
  private waiting: HTMLElement[] = [];

  /** A file's status has changed. The files of a batch are told as one, by the batch, unless something befell one alone. */
  tell(row: FileRow): void {
    if (row.status === "pending") return;
    const alone = row.batchId === "" || row.status === "failed" || (row.status === "cancelled" && row.cancelledBy !== "batch_cancel");
    if (alone) this.add(entry(row.status, words(row), row.updatedAt));
  }

  /** A batch has changed; what its status was before, where that is known. */
  tellBatch(row: BatchRow, before: StatusWord | undefined): void {
    // Of one that nobody has seen before it is not known whether it has begun just now, or long ago.
    if (before === row.status || (before === undefined && !isFinal(row.status))) return;
    const title = batchTitle(row);
    const by = row.status === "cancelled" ? ` by ${format.who(row.cancelledBy)}${why(row.cancelReason)}` : "";
    const what = { completed: "is complete", failed: "has failed files", cancelled: "was cancelled", processing: "began to upload" };
    const verb = what[row.status as keyof typeof what];
    if (verb) this.add(entry(row.status, `${title}: ${verb}${by}`, row.updatedAt));
  }

  private add(item: HTMLElement): void {
    this.waiting.push(item);
    if (this.waiting.length > MOST) this.waiting.shift();
  }

  /** What was told may never have been. */
  clear(): void {
    this.waiting = [];
    this.list.replaceChildren();
    show(byId("feed-empty"), true);
  }

  render(): void {
    if (this.waiting.length === 0) return;
    this.list.prepend(...this.waiting.reverse());
    this.waiting = [];
    while (this.list.childElementCount > MOST) this.list.lastElementChild?.remove();
    show(byId("feed-empty"), false);
  }
}

function entry(status: string, text: string, at: Date): HTMLElement {
  const time = make("time", "", format.when(at));
  time.dateTime = at.toISOString();
  const item = make("li", "", told("span", "what", text), time);
  item.dataset["state"] = status;
  return item;
}

function words(row: FileRow): string {
  if (row.status === "cancelled") return `${quoted(row.filename)} was cancelled by ${format.who(row.cancelledBy)}${why(row.cancelReason)}`;
  if (row.status === "uploading") return `${quoted(row.filename)} began to upload`;
  return `${quoted(row.filename)} ${row.status === "failed" ? "failed" : "is complete"}`;
}

function why(reason: string): string {
  return reason ? `: “${quoted(reason)}”` : "";
}
