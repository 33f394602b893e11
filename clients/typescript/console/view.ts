/**
 * Which uploads the page shows: a state, a time, and what was typed into the search box, with its place in the URL.
 * Must not know requests or elements.
 */

import type { StatusWord } from "../src/index.js";

export const FILTERS = ["all", "uploading", "pending", "completed", "cancelled", "failed"] as const;
export type Filter = (typeof FILTERS)[number];

/** How far back, by the word in the URL; in seconds. */
const SINCE: Readonly<Record<string, number>> = { "1h": 3600, "1d": 86_400, "7d": 7 * 86_400, "30d": 30 * 86_400 };

export interface View {
  status: Filter;
  /** What was typed: a name's beginning, and words such as `owner:ada`. */
  text: string;
  /** A key of `SINCE`, or empty. */
  since: string;
}

export const EVERYTHING: View = { status: "all", text: "", since: "" };

/** One file or batch that is looked at. */
export interface Opened {
  kind: "files" | "batches";
  id: string;
}

/** What the page's URL says. */
export interface Place {
  view: View;
  opened: Opened | undefined;
}

/** What a view asks for. Empty: not asked for. */
export interface Asked {
  name: string;
  owner: string;
  /** `cancelled_by`, as the service has it. */
  by: string;
  batch: string;
  /** A part of the reason of a cancel, and the beginning of an id: the service has no filter for these. */
  reason: string;
  id: string;
  after: Date | undefined;
  before: Date | undefined;
  status: Filter;
  /** A word that could not be read, in one sentence. */
  problem: string;
}

/** The place that a URL's part behind `#` names; undefined when that is not for us. */
export function placeOf(hash: string): Place | undefined {
  if (hash !== "" && !hash.startsWith("#/")) return undefined;
  const [path = "", query = ""] = hash.slice(2).split(/\?(.*)/s);
  const [kind = "", id = ""] = path.split("/");
  const fields = new URLSearchParams(query);
  const status = FILTERS.find((filter) => filter === fields.get("status")) ?? "all";
  const since = fields.get("since") ?? "";
  const view = { status, text: fields.get("q") ?? "", since: Object.hasOwn(SINCE, since) ? since : "" };
  const opened = (kind === "files" || kind === "batches") && id ? { kind, id: decoded(id) } as const : undefined;
  return { view, opened };
}

export function hashOf({ view, opened }: Place): string {
  const fields = new URLSearchParams();
  if (view.status !== "all") fields.set("status", view.status);
  if (view.text) fields.set("q", view.text);
  if (view.since) fields.set("since", view.since);
  const query = fields.toString();
  return `#/${opened ? `${opened.kind}/${encodeURIComponent(opened.id)}` : ""}${query && "?"}${query}`;
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export function sameView(a: View, b: View): boolean {
  return a.status === b.status && a.text === b.text && a.since === b.since;
}

const ID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** The id that was typed or pasted, alone. */
export function idIn(text: string): string {
  const word = text.trim();
  return ID.test(word) ? word.toLowerCase() : "";
}

const WORDS = /(?:^|\s)(owner|by|batch|reason|id|after|before):(?:"([^"]*)"|(\S*))/g;

/** What the view asks the service for; the time is counted from `now`. */
export function askedOf(view: View, now: Date): Asked {
  const asked: Asked = { name: "", owner: "", by: "", batch: "", reason: "", id: "", after: undefined, before: undefined, status: view.status, problem: "" };
  const rest = view.text.replace(WORDS, (_, word: string, inQuotes?: string, plain?: string) => {
    const value = inQuotes ?? plain ?? "";
    if (word === "owner" || word === "batch" || word === "reason") asked[word] = value;
    else if (word === "id") asked.id = value.toLowerCase();
    else if (word === "by") asked.by = canceller(value);
    else takeTime(asked, word as "after" | "before", value);
    return "";
  });
  asked.name = rest.trim().normalize("NFC");
  const since = SINCE[view.since];
  if (since && !asked.after) asked.after = new Date(now.getTime() - since * 1000);
  // Who looks for a canceller, or for why, looks for what is cancelled.
  if ((asked.by || asked.reason) && asked.status === "all") asked.status = "cancelled";
  return asked;
}

function takeTime(asked: Asked, word: "after" | "before", value: string): void {
  const time = new Date(value);
  if (value === "") return;
  if (Number.isNaN(time.getTime())) asked.problem = `${word}:${value} is not a time; write ${word}:2026-01-31 or ${word}:2026-01-31T08:30.`;
  else asked[word] = time;
}

const NO_PERSON = new Set(["user", "batch_cancel", "websocket_close"]);

/** People are typed by their names alone. */
function canceller(value: string): string {
  return value === "" || NO_PERSON.has(value) || value.includes(":") ? value : `user:${value}`;
}

/** A word of the search box with its value. */
export function word(name: "owner" | "by" | "batch", value: string): string {
  return /\s/.test(value) ? `${name}:"${value}"` : `${name}:${value}`;
}

/** Whether files are listed one by one; else a batch is one row. */
export function isFlat(asked: Asked): boolean {
  const { status, name, by, batch } = asked;
  return status !== "all" || name !== "" || by !== "" || batch !== "" || isSifted(asked);
}

/** Whether the page has to look itself through what the service lists. */
export function isSifted({ reason, id }: Asked): boolean {
  return reason !== "" || id !== "";
}

/** Whether a file that the service lists is what is asked for: a reason is found whatever its letters' case. */
export function passes({ reason, id }: Asked, { cancelReason, fileId }: { cancelReason: string; fileId: string }): boolean {
  return fileId.startsWith(id) && (reason === "" || cancelReason.toLowerCase().includes(reason.toLowerCase()));
}

interface Candidate {
  createdAt: Date;
  owner: string;
}

/** Whether what is new or has changed belongs to what is asked for, as the service would say. */
export function wantsEither({ owner, after, before }: Asked, row: Candidate): boolean {
  return (!owner || row.owner === owner) && (!after || row.createdAt > after) && (!before || row.createdAt < before);
}

export function wantsFile(
  asked: Asked,
  row: Candidate & { fileId: string; filename: string; status: StatusWord; cancelledBy: string; cancelReason: string; batchId: string },
): boolean {
  const { status, name, by, batch } = asked;
  return (
    wantsEither(asked, row) &&
    (status === "all" || row.status === status) &&
    row.filename.startsWith(name) &&
    (!by || row.cancelledBy === by) &&
    (!batch || row.batchId === batch) &&
    passes(asked, row)
  );
}
