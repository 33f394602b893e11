/** One file's or batch's facts and audit trail, in a dialog that has an address. */

import { toJson } from "@bufbuild/protobuf";
import { dateOf, isFinal, UploadError } from "../src/index.js";
import type { Api, AuditEvent } from "../src/index.js";
import { BatchSchema, FileSchema } from "../src/gen/upload/v1/upload_pb.js";
import { quoted } from "../src/visible.js";
import { toggleAsk, closeAsk } from "./ask.js";
import { byId, make, say, show, told } from "./dom.js";
import * as format from "./format.js";
import { may, me } from "./me.js";
import { isBatch } from "./row.js";
import type { BatchRow, FileRow } from "./row.js";
import type { Actions } from "./rows.js";
import { word } from "./view.js";
import { badgeOf, BADGES, batchBadge, cancellable, cancellerOf, cancelWarning, deleteWarning, hasContent, titleOf } from "./words.js";

const SOURCES: Readonly<Record<string, string>> = {
  grpc: "gRPC",
  http: "HTTP",
  websocket: "WebSocket",
  websocket_close: "the end of its page's connection",
  tus: "tus",
  batch_cancel: "a cancel of its batch",
  expiry: "expiry",
  retention: "the end of the time for which bytes are kept",
  roll_up: "its files",
};

const USUAL_OF_DELETION = ["Fetched already", "No longer needed", "Wrong file"];

/** A line of the facts: what it is, the text, and what a press on it does. */
interface Fact {
  term: string;
  text: string;
  copy?: boolean;
  press?: () => void;
}

interface DetailsActions extends Pick<Actions, "cancelFile" | "cancelBatch" | "contentUrl"> {
  /** Let go of a completed file's bytes; resolves to what went wrong, in one sentence. */
  deleteContent: (row: FileRow, reason: string) => Promise<string>;
  /** The dialog was closed. */
  closed: () => void;
  /** Look at a batch. */
  batch: (batchId: string) => void;
  /** List what this text finds. */
  list: (text: string) => void;
}

export class Details {
  private readonly dialog = byId<HTMLDialogElement>("details");
  private readonly cancel = byId<HTMLButtonElement>("details-cancel");
  private readonly deletion = byId<HTMLButtonElement>("details-delete");
  private row: FileRow | BatchRow | undefined;
  private shownRevision = 0n;

  constructor(
    private readonly api: Api,
    private readonly actions: DetailsActions,
  ) {
    byId("details-close").addEventListener("click", () => this.dialog.close());
    // A press beside the dialog closes it, as people expect; Escape does by itself.
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.dialog.close();
    });
    this.dialog.addEventListener("close", () => {
      if (!this.row) return;
      this.row = undefined;
      this.actions.closed();
    });
    this.cancel.addEventListener("click", () => this.askToCancel());
    this.deletion.addEventListener("click", () => this.askToDelete());
    byId("copy-link").addEventListener("click", () => copy(location.href.replace(/(#[^?]*)\?.*$/, "$1"), byId("copy-link")));
    byId("copy-json").addEventListener("click", () => copy(jsonOf(this.row), byId("copy-json")));
  }

  open(row: FileRow | BatchRow): void {
    this.row = row;
    this.shownRevision = 0n;
    byId("trail").replaceChildren();
    closeAsk(byId("details-row"));
    say(byId("details-problem"), "");
    this.update();
    if (!this.dialog.open) this.dialog.showModal();
  }

  /** As the page's address says; nobody needs to be told. */
  close(): void {
    this.row = undefined;
    this.dialog.close();
  }

  /** The file or batch that is shown. */
  get shown(): FileRow | BatchRow | undefined {
    return this.row;
  }

  /** Show what is new of the file that is shown, if any. */
  update(): void {
    const { row } = this;
    if (!row) return;
    say(byId("details-title"), titleOf(row));
    this.showFacts(isBatch(row) ? this.factsOfBatch(row) : this.factsOf(row));
    this.showButtons(row);
    if (this.shownRevision === row.revision && row.revision > 0n) return;
    this.shownRevision = row.revision;
    void this.load(row);
  }

  private showButtons(row: FileRow | BatchRow): void {
    const open = (isBatch(row) ? !isFinal(row.status) : cancellable(row)) && may("cancel");
    const there = !isBatch(row) && hasContent(row);
    this.offer(this.cancel, open);
    this.offer(this.deletion, there && may("cancel"));
    const fetched = there && may("download");
    const download = byId<HTMLAnchorElement>("details-download");
    show(download, fetched);
    if (fetched) download.href = this.actions.contentUrl(row);
    show(byId("copy-json"), row.record !== undefined);
  }

  /** A button that goes takes its question along; the focus of either goes to the title. */
  private offer(button: HTMLElement, shown: boolean): void {
    const row = byId("details-row");
    const asks = button.getAttribute("aria-expanded") === "true";
    const focused = document.activeElement === button || (asks && row.querySelector(".ask")?.contains(document.activeElement));
    if (!shown && focused) byId("details-title").focus();
    if (!shown && asks) closeAsk(row);
    show(button, shown);
  }

  private askToCancel(): void {
    const { row } = this;
    if (!row) return;
    const what = isBatch(row) ? "Cancel the whole batch" : "Cancel the upload";
    toggleAsk(byId("details-row"), this.cancel, what, cancelWarning(row), (reason) => {
      if (isBatch(row)) this.actions.cancelBatch(row, reason);
      else this.actions.cancelFile(row, reason);
    });
  }

  private askToDelete(): void {
    const { row } = this;
    if (!row || isBatch(row)) return;
    toggleAsk(byId("details-row"), this.deletion, "Delete the content", deleteWarning(row), (reason) => {
      void this.actions.deleteContent(row, reason).then((problem) => {
        if (this.row === row) say(byId("details-problem"), problem);
      });
    }, USUAL_OF_DELETION);
  }

  /** Facts are made once and told anew: whoever has pressed a button keeps the focus. */
  private showFacts(facts: readonly Fact[]): void {
    const list = byId("facts");
    const terms = facts.map(({ term }) => term).join("\n");
    if (list.dataset["terms"] !== terms || list.dataset["of"] !== this.row?.key) {
      list.dataset["terms"] = terms;
      list.dataset["of"] = this.row?.key;
      list.replaceChildren(...facts.flatMap(factOf));
    }
    facts.forEach(({ text }, index) => say(list.querySelectorAll("dd > .value")[index]!, text));
  }

  private factsOf(row: FileRow): Fact[] {
    const { record } = row;
    const facts: Fact[] = [
      { term: "State", text: BADGES[badgeOf(row)] },
      { term: "Size", text: `${format.size(row.size)} (${format.number(row.size)} bytes)` },
      { term: "Stored", text: storedOf(row) },
      { term: "Id", text: row.fileId, copy: true },
    ];
    if (row.batchId) facts.push({ term: "Batch", text: row.batchId, press: () => this.actions.batch(row.batchId) });
    if (row.owner) facts.push({ term: "Owner", text: quoted(row.owner), press: () => this.actions.list(word("owner", row.owner)) });
    if (record?.contentType) facts.push({ term: "Type", text: quoted(record.contentType) });
    if (record?.sha256) facts.push({ term: "SHA-256", text: record.sha256, copy: true });
    if (record?.contentUri) facts.push({ term: "Lies at", text: quoted(record.contentUri), copy: true });
    if (row.failureReason) facts.push({ term: "Failed for", text: row.failureReason.replaceAll("_", " ") });
    return [...facts, ...this.endOf(row)];
  }

  private factsOfBatch(row: BatchRow): Fact[] {
    const open = row.total - row.completed - row.failed - row.cancelled;
    const facts: Fact[] = [
      { term: "State", text: BADGES[batchBadge(row)] },
      { term: "Files", text: format.number(row.total), press: () => this.actions.list(word("batch", row.batchId)) },
      { term: "Completed", text: format.number(row.completed) },
      { term: "Cancelled", text: format.number(row.cancelled) },
      { term: "Failed", text: format.number(row.failed) },
      { term: "Open", text: format.number(open) },
      { term: "Id", text: row.batchId, copy: true },
    ];
    if (row.owner) facts.push({ term: "Owner", text: quoted(row.owner), press: () => this.actions.list(word("owner", row.owner)) });
    return [...facts, ...this.endOf(row)];
  }

  /** Who and why, if it was cancelled, and the times. */
  private endOf(row: FileRow | BatchRow): Fact[] {
    const facts: Fact[] = [];
    if (row.status === "cancelled") {
      const by: Fact = { term: "Cancelled by", text: cancellerOf(row) };
      if (row.cancelledBy && row.cancelledBy !== "all_files") by.press = () => this.actions.list(word("by", row.cancelledBy));
      facts.push(by, { term: "Reason", text: row.cancelReason ? quoted(row.cancelReason) : "none given" });
    }
    facts.push({ term: "Announced", text: `${format.day(row.createdAt)} (${format.exactly(row.createdAt)})` });
    if (row.updatedAt > row.createdAt) {
      const took = format.duration((row.updatedAt.getTime() - row.createdAt.getTime()) / 1000);
      const [term, after] = isFinal(row.status) ? ["Ended", `, after ${took}`] : ["Last change", ""];
      facts.push({ term, text: `${format.day(row.updatedAt)} (${format.exactly(row.updatedAt)})${after}` });
    }
    facts.push({ term: "Revision", text: String(row.revision) });
    return facts;
  }

  private async load(row: FileRow | BatchRow): Promise<void> {
    const note = byId("trail-note");
    say(note, "");
    try {
      const events = isBatch(row) ? await this.trailOfBatch(row.batchId) : await this.trailOf(row.fileId);
      if (this.row !== row) return;
      byId("trail").replaceChildren(...events.map(entryOf));
    } catch (error) {
      if (this.row === row) say(note, error instanceof UploadError ? error.message : "The audit trail could not be read.");
    }
  }

  private async trailOf(fileId: string): Promise<AuditEvent[]> {
    return (await this.api.listAuditEvents({ fileId, pageSize: 1000 })).events;
  }

  /** The batch's own events stand last among those of the same change of its files. */
  private async trailOfBatch(batchId: string): Promise<AuditEvent[]> {
    const newest = { batchId, orderBy: "event_id desc", pageSize: 1 };
    const ways = [{ toStatus: "pending" }, { toStatus: "processing" }, { source: "roll_up" }, { toStatus: "cancelled" }];
    const answers = await Promise.all(ways.map((way) => this.api.listAuditEvents({ ...newest, ...way })));
    const own = answers.flatMap(({ events }) => events).filter(({ fileId }) => fileId === "");
    const unique = new Map(own.map((event) => [event.eventId, event]));
    return [...unique.values()].sort((a, b) => Number(BigInt(a.eventId) - BigInt(b.eventId)));
  }
}

function storedOf({ status, received, record }: FileRow): string {
  if (status === "cancelled" || status === "failed") return "nothing, its bytes are removed";
  const at = dateOf(record?.contentDeletedAt);
  if (!at) return format.size(received);
  return `nothing, its bytes were let go ${format.day(at)} by ${format.who(record?.contentDeletedBy ?? "", me.principal)}`;
}

function jsonOf(row: FileRow | BatchRow | undefined): string {
  const options = { useProtoFieldName: true, alwaysEmitImplicit: true };
  if (!row?.record) return "";
  const fields = row.record.$typeName === "upload.v1.File" ? toJson(FileSchema, row.record, options) : toJson(BatchSchema, row.record, options);
  return JSON.stringify(fields, undefined, 2);
}

function copy(text: string, button: HTMLElement): void {
  const label = button.firstElementChild!;
  const words = (button.dataset["words"] ??= label.textContent ?? "");
  const told = (said: string): void => {
    say(label, said);
    setTimeout(() => say(label, words), 1_500);
  };
  // Only pages of a secure context may write to the clipboard.
  if (!navigator.clipboard) told("Not here: mark it and copy");
  else navigator.clipboard.writeText(text).then(() => told("Copied"), () => told("The browser said no"));
}

function factOf({ term, text, copy: copied, press }: Fact): HTMLElement[] {
  const value = press ? make("button", "value link") : make("span", "value");
  if (press) {
    (value as HTMLButtonElement).type = "button";
    value.addEventListener("click", press);
  }
  const line = make("dd", "", value);
  if (copied) {
    const button = make("button", "button copy", make("span", "", "Copy"), make("span", "hidden", ` ${term}`));
    button.type = "button";
    button.addEventListener("click", () => copy(text, button));
    line.append(" ", button);
  }
  return [make("dt", "", term), line];
}

function entryOf(event: AuditEvent): HTMLElement {
  const at = dateOf(event.occurredAt);
  const time = make("time", "", at && format.day(at));
  if (at) {
    time.dateTime = at.toISOString();
    time.title = format.exactly(at);
  }
  const moved = event.fromStatus === event.toStatus ? `${event.toStatus}, its bytes let go` : `${event.fromStatus} → ${event.toStatus}`;
  const change = event.fromStatus ? moved : `announced as ${event.toStatus}`;
  const from = event.peer ? `, from ${quoted(event.peer)}` : "";
  const by = `${format.who(event.actor, me.principal)} through ${SOURCES[event.source] ?? quoted(event.source)}${from}`;
  const entry = make("li", "", told("strong", "", change), told("span", "line", by), time);
  entry.dataset["state"] = event.toStatus;
  if (event.reason) entry.append(told("q", "", quoted(event.reason)));
  const marks = [`event ${event.eventId}`];
  if (event.requestId) marks.unshift(`request ${quoted(event.requestId)}`);
  if (event.credential) marks.push(quoted(event.credential));
  entry.append(told("span", "line small", marks.join(", ")));
  return entry;
}
