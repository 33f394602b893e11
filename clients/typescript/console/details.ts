/** One file's facts and audit trail, in a dialog. */

import { dateOf, UploadError } from "../src/index.js";
import type { Api, AuditEvent } from "../src/index.js";
import { quoted } from "../src/visible.js";
import { byId, make, say, told } from "./dom.js";
import * as format from "./format.js";
import type { FileRow } from "./model.js";
import { badgeOf, BADGES } from "./words.js";

const SOURCES: Readonly<Record<string, string>> = {
  grpc: "gRPC",
  http: "HTTP",
  websocket: "WebSocket",
  websocket_close: "the end of its page's connection",
  tus: "tus",
  batch_cancel: "a cancel of its batch",
  expiry: "expiry",
  roll_up: "its files",
};

export class Details {
  private readonly dialog = byId<HTMLDialogElement>("details");
  private row: FileRow | undefined;
  private shownRevision = 0n;

  constructor(private readonly api: Api) {
    byId("details-close").addEventListener("click", () => this.dialog.close());
    // A press beside the dialog closes it, as people expect; Escape does by itself.
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.dialog.close();
    });
    this.dialog.addEventListener("close", () => (this.row = undefined));
  }

  open(row: FileRow): void {
    this.row = row;
    this.shownRevision = 0n;
    byId("trail").replaceChildren();
    this.update();
    this.dialog.showModal();
  }

  /** The file that is shown. */
  get shown(): FileRow | undefined {
    return this.row;
  }

  /** Show what is new of the file that is shown, if any. */
  update(): void {
    const { row } = this;
    if (!row) return;
    say(byId("details-title"), quoted(row.filename));
    byId("facts").replaceChildren(...factsOf(row).flatMap(([term, text]) => [make("dt", "", term), told("dd", "", text)]));
    if (this.shownRevision === row.revision && row.revision > 0n) return;
    this.shownRevision = row.revision;
    void this.load(row);
  }

  private async load(row: FileRow): Promise<void> {
    const note = byId("trail-note");
    say(note, "");
    try {
      const { events } = await this.api.listAuditEvents({ fileId: row.fileId, pageSize: 1000 });
      if (this.row !== row) return;
      byId("trail").replaceChildren(...events.map(entryOf));
    } catch (error) {
      if (this.row === row) say(note, error instanceof UploadError ? error.message : "The audit trail could not be read.");
    }
  }
}

function factsOf(row: FileRow): [string, string][] {
  const facts: [string, string][] = [
    ["State", BADGES[badgeOf(row)]],
    ["Size", `${format.size(row.size)} (${row.size.toLocaleString("en")} bytes)`],
    ["Stored", row.status === "cancelled" || row.status === "failed" ? "nothing, its bytes are removed" : format.size(row.received)],
    ["Id", row.fileId],
  ];
  if (row.batchId) facts.push(["Batch", row.batchId]);
  if (row.status === "cancelled") facts.push(["Cancelled by", quoted(row.cancelledBy)], ["Reason", row.cancelReason ? quoted(row.cancelReason) : "none given"]);
  return facts;
}

function entryOf(event: AuditEvent): HTMLElement {
  const at = dateOf(event.occurredAt);
  const time = make("time", "", at && format.when(at));
  if (at) {
    time.dateTime = at.toISOString();
    time.title = format.exactly(at);
  }
  const change = event.fromStatus ? `${event.fromStatus} → ${event.toStatus}` : `announced as ${event.toStatus}`;
  const by = `${format.who(event.actor)} through ${SOURCES[event.source] ?? quoted(event.source)}`;
  const entry = make("li", "", told("strong", "", change), told("span", "line", by), time);
  entry.dataset["state"] = event.toStatus;
  if (event.reason) entry.append(told("q", "", quoted(event.reason)));
  if (event.requestId) entry.append(told("span", "line small", `request ${quoted(event.requestId)}, event ${event.eventId}`));
  else entry.append(make("span", "line small", `event ${event.eventId}`));
  return entry;
}
