/** The latest things that anyone did, newest first. Must not know where they come from. */

import { dateOf } from "../src/index.js";
import { quoted } from "../src/visible.js";
import { arrange, byId, make, say, show } from "./dom.js";
import * as format from "./format.js";
import { me } from "./me.js";
import type { BatchRow, FileRow } from "./row.js";
import { batchTitle, cancellerOf } from "./words.js";

const MOST = 30;

interface Line {
  element: HTMLElement;
  /** Says it again: a batch's name may have become known. */
  retell: () => void;
}

export class Feed {
  private readonly list = byId("feed");
  private waiting: Line[] = [];
  private shown: Line[] = [];

  /** `name` finds out what a batch's first file is called. */
  constructor(private readonly name: (row: BatchRow) => void) {}

  /** A file's status has changed. The files of a batch are told as one, by the batch, unless something befell one alone. */
  tell(row: FileRow): void {
    if (row.status === "pending") return;
    const alone = row.batchId === "" || row.status === "failed" || (row.status === "cancelled" && row.cancelledBy !== "batch_cancel");
    const text = words(row);
    // Whether it was this page's own cancel is known when that is answered.
    const say = row.status === "cancelled" ? () => words(row) : () => text;
    if (alone) this.add(entry(row.status, say, dateOf(row.record?.contentDeletedAt) ?? row.updatedAt));
  }

  /** A batch's status has changed. */
  tellBatch(row: BatchRow): void {
    const { status } = row;
    const by = (): string => (status === "cancelled" ? ` by ${cancellerOf(row)}${why(row.cancelReason)}` : "");
    const what = { completed: "is complete", failed: "has failed files", cancelled: "was cancelled", processing: "began to upload" };
    const verb = what[row.status as keyof typeof what];
    if (!verb) return;
    this.add(entry(row.status, () => `${batchTitle(row)}: ${verb}${by()}`, row.updatedAt));
    if (row.firstName === undefined) this.name(row);
  }

  private add(item: Line): void {
    this.waiting.push(item);
    if (this.waiting.length > MOST) this.waiting.shift();
  }

  /** What was told may never have been. */
  clear(): void {
    this.waiting = this.shown = [];
    this.list.replaceChildren();
    show(byId("feed-empty"), true);
  }

  render(): void {
    for (const { retell } of this.shown) retell();
    if (this.waiting.length === 0) return;
    this.shown = [...this.waiting.reverse(), ...this.shown].slice(0, MOST);
    this.waiting = [];
    arrange(this.list, this.shown.map(({ element }) => element));
    show(byId("feed-empty"), false);
  }
}

function entry(status: string, text: () => string, at: Date): Line {
  const what = make("span", "what");
  const retell = (): void => say(what, text());
  retell();
  const time = make("time", "", format.when(at));
  time.dateTime = at.toISOString();
  const item = make("li", "", what, time);
  item.dataset["state"] = status;
  return { element: item, retell };
}

function words(row: FileRow): string {
  if (row.status === "cancelled") return `${quoted(row.filename)} was cancelled by ${cancellerOf(row)}${why(row.cancelReason)}`;
  if (row.record?.contentDeletedAt) return `${quoted(row.filename)}: its bytes were let go by ${format.who(row.record.contentDeletedBy, me.principal)}`;
  if (row.status === "uploading") return `${quoted(row.filename)} began to upload`;
  return `${quoted(row.filename)} ${row.status === "failed" ? "failed" : "is complete"}`;
}

function why(reason: string): string {
  return reason ? `: “${quoted(reason)}”` : "";
}
