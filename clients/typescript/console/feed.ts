/** The latest things that anyone did, newest first. Must not know where they come from. */

import { byId, make, show } from "./dom.js";
import * as format from "./format.js";
import type { FileRow } from "./model.js";

const MOST = 12;

export class Feed {
  private readonly list = byId("feed");
  private waiting: HTMLElement[] = [];

  /** A file's status has changed. */
  tell(row: FileRow): void {
    this.waiting.push(entry(row));
    if (this.waiting.length > MOST) this.waiting.shift();
  }

  render(): void {
    if (this.waiting.length === 0) return;
    this.list.prepend(...this.waiting.reverse());
    this.waiting = [];
    while (this.list.childElementCount > MOST) this.list.lastElementChild?.remove();
    show(byId("feed-empty"), false);
  }
}

function entry(row: FileRow): HTMLElement {
  const time = make("time", "", format.when(row.updatedAt));
  time.dateTime = row.updatedAt.toISOString();
  const item = make("li", "", make("span", "what", words(row)), time);
  item.dataset["state"] = row.status;
  return item;
}

function words(row: FileRow): string {
  if (row.status === "cancelled") {
    return `${row.filename} was cancelled by ${format.who(row.cancelledBy)}${row.cancelReason ? `: “${row.cancelReason}”` : ""}`;
  }
  if (row.status === "pending") return `${row.filename} was announced`;
  if (row.status === "uploading") return `${row.filename} began to upload`;
  return `${row.filename} ${row.status === "failed" ? "failed" : "is complete"}`;
}
