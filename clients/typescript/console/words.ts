/** What a row says of its state. One place for the words, so that nothing is shown as cancelled that is not. */

import { dateOf, fileStatusWord, isFinal } from "../src/index.js";
import type { GetStatisticsResponse, StatusWord } from "../src/index.js";
import { quoted } from "../src/visible.js";
import * as format from "./format.js";
import { may, me } from "./me.js";
import { isBatch } from "./row.js";
import type { BatchRow, FileRow } from "./row.js";
import type { Asked, Filter } from "./view.js";

/** What the badge shows: the service's status, or what is happening right now on this page. */
export type Badge = StatusWord | "queued" | "cancelling" | "interrupted" | "refused";

export const BADGES: Readonly<Record<Badge, string>> = {
  pending: "Pending",
  queued: "Pending",
  uploading: "Uploading",
  processing: "Uploading",
  interrupted: "Reconnecting",
  cancelling: "Cancelling…",
  completed: "Completed",
  failed: "Failed",
  cancelled: "Cancelled",
  refused: "Not uploaded",
  unknown: "Unknown",
};

export function badgeOf(row: FileRow): Badge {
  if (isFinal(row.status)) return row.fileId ? row.status : "refused";
  if (row.cancellation?.pending || row.upload?.state === "cancelling") return "cancelling";
  if (row.upload?.state === "interrupted") return "interrupted";
  if (row.upload?.state === "queued") return "queued";
  return row.status;
}

/** Whether a cancel can be asked for. */
export function cancellable(row: FileRow): boolean {
  return !isFinal(row.status) && !row.problem;
}

/** The line under the name. */
export function lineOf(row: FileRow): string {
  const badge = badgeOf(row);
  if (badge === "cancelling") return cancellingLine(row);
  const late = lateLine(row);
  switch (badge) {
    case "cancelled":
      return cancelledLine(row);
    case "completed":
      return `${late}${format.size(row.size)}, completed ${format.when(completedAt(row))}${letGo(row)}`;
    case "refused":
      return row.problem;
    case "failed":
      return `${late}${row.problem || failure(row)}`;
    case "interrupted":
      return `${progressOf(row)}; the connection was lost and is being opened again`;
    case "queued":
      return `${format.size(row.size)}, waits for its turn`;
    default:
      return row.problem || progressLine(row);
  }
}

function completedAt({ record, updatedAt }: FileRow): Date {
  return dateOf(record?.completedAt) ?? updatedAt;
}

/** Whether there are bytes to fetch, or to let go of. */
export function hasContent(row: FileRow): boolean {
  return row.status === "completed" && row.record?.contentDeletedAt === undefined;
}

export function downloadable(row: FileRow): boolean {
  return hasContent(row) && may("download");
}

/** What a deletion is asked to be sure of: whose it is, where it is not one's own. */
export function deleteWarning(row: FileRow): string {
  return `${whose(row)}This deletes the ${format.size(row.size)} of ${titleOf(row)}; nobody can download it any more, and it cannot be taken back.`;
}

/** What became of a completed file's bytes, if they are there no more. */
function letGo({ record }: FileRow): string {
  const at = dateOf(record?.contentDeletedAt);
  return at ? `; its bytes were let go ${format.when(at)} by ${format.who(record?.contentDeletedBy ?? "", me.principal)}` : "";
}

function progressOf(row: FileRow): string {
  return `${format.size(row.received)} of ${format.size(row.size)}`;
}

function progressLine(row: FileRow): string {
  const unconfirmed = row.cancellation?.result?.state === "unconfirmed" ? row.cancellation.result.error.message : "";
  if (unconfirmed) return unconfirmed;
  if (row.status === "pending" && !row.upload) return `${format.size(row.size)}, nothing sent yet`;
  const parts = [progressOf(row)];
  if (row.upload?.state === "finishing") parts.push("being checked");
  // This page knows its own uploads best; of others it knows what the service tells.
  const speed = row.upload ? row.progress?.bytesPerSecond : row.pace.bytesPerSecond;
  if (speed) parts.push(format.speed(speed), `${format.duration((row.size - row.received) / speed)} left`);
  return parts.join(", ");
}

function cancellingLine(row: FileRow): string {
  if (row.cancellation?.trying === "websocket") return "The server is slow to answer, so the connection was closed; waiting for its word";
  return "Asked the server to cancel; waiting for its word";
}

function cancelledLine(row: FileRow): string {
  return `Cancelled ${format.when(row.updatedAt)} by ${cancellerOf(row)}${why(row)}`;
}

/** Who cancelled it, the same wherever it is said. */
export function cancellerOf(row: FileRow | BatchRow): string {
  const result = isBatch(row) ? undefined : row.cancellation?.result;
  const mine = isBatch(row) ? row.cancelling === "done" : result?.state === "cancelled" && result.by !== "other";
  return mine ? "you" : format.who(row.cancelledBy, me.principal);
}

function why({ cancelReason }: FileRow | BatchRow): string {
  return cancelReason ? `: “${quoted(cancelReason)}”` : "";
}

function lateLine(row: FileRow): string {
  return row.cancellation?.result?.state === "refused" ? "Too late to cancel. " : "";
}

function failure(row: FileRow): string {
  if (row.failureReason === "expired") return "Nobody sent to it for too long; upload the file anew";
  if (row.failureReason === "checksum_mismatch") return "What arrived is not what was announced; upload the file anew";
  return "It failed; upload the file anew";
}

/** How many files of a state the service has; of all states together for `all`. */
export function countOf(statistics: GetStatisticsResponse, filter: Filter): number {
  const wanted = statistics.files.filter(({ status }) => filter === "all" || fileStatusWord(status) === filter);
  return wanted.reduce((sum, { files }) => sum + Number(files), 0);
}

export function batchTitle(row: BatchRow): string {
  const files = `Batch of ${format.count(row.total, "file")}`;
  return row.firstName ? `${files}: ${quoted(row.firstName)}${row.total > 1 ? ", …" : ""}` : files;
}

export function titleOf(row: FileRow | BatchRow): string {
  return isBatch(row) ? batchTitle(row) : quoted(row.filename);
}

export function batchBadge(row: BatchRow): Badge {
  if (row.problem) return "refused";
  return row.cancelling === "pending" && !isFinal(row.status) ? "cancelling" : row.status;
}

export function batchLine(row: BatchRow): string {
  if (row.problem) return row.problem;
  if (!row.batchId) return "Being announced";
  const by = row.status === "cancelled" ? ` · by ${cancellerOf(row)}${why(row)}` : "";
  if (row.outcome) return row.outcome + by;
  if (row.cancelling === "pending") return "Asked the server to cancel all of it; waiting for its word";
  const open = row.total - row.completed - row.failed - row.cancelled;
  const parts = [`${format.number(row.completed)} completed`];
  if (open > 0) parts.push(`${format.number(open)} uploading or pending`);
  if (row.failed) parts.push(`${format.number(row.failed)} failed`);
  if (row.cancelled) parts.push(`${format.number(row.cancelled)} cancelled`);
  return parts.join(", ") + sentLine(row) + by;
}

/** Of its own batches this page knows the bytes. */
function sentLine(row: BatchRow): string {
  const sent = sentOf(row);
  if (!sent || isFinal(row.status)) return "";
  const parts = [`${format.size(sent.done)} of ${format.size(sent.whole)}`];
  const speed = row.pace.bytesPerSecond;
  if (speed) parts.push(format.speed(speed), `${format.duration((sent.whole - sent.done) / speed)} left`);
  return ` · ${parts.join(", ")}`;
}

export function sentOf({ upload }: BatchRow): { done: number; whole: number } | undefined {
  if (!upload) return undefined;
  let [done, whole] = [0, 0];
  for (const { blob, state, bytesReceived } of upload.uploads) {
    whole += blob.size;
    done += state === "completed" ? blob.size : bytesReceived;
  }
  return { done, whole };
}

/** What is said of a view that shows nothing: `besides` the page's own uploads, which have a place of their own. */
export function emptyLine({ status, name, owner, by, batch, reason, id, after, before }: Asked, besides: boolean): string {
  if (name || owner || by || batch || after || before) return "Nothing matches. Capital letters count; a name is found by how it begins.";
  if (reason || id) return "Nothing matches.";
  const states = { pending: "waits", uploading: "is uploading now", completed: "has completed", cancelled: "was cancelled", failed: "has failed" };
  if (status === "all") return besides ? "No other uploads." : "No uploads yet. Drop a file above.";
  return `No ${besides ? "other " : ""}upload ${states[status]}.`;
}

/** What a cancel is asked to be sure of: whose it is, where it is not one's own. */
export function cancelWarning(row: FileRow | BatchRow): string {
  const what = isBatch(row) ? `${titleOf(row)}, with every file of it that is not final` : titleOf(row);
  return `${whose(row)}This cancels ${what}; it cannot be taken back.`;
}

function whose({ upload, owner }: FileRow | BatchRow): string {
  if (upload !== undefined || (me.principal !== "" && owner === me.principal)) return "";
  return owner ? `It belongs to ${quoted(owner)}. ` : "This page did not begin it. ";
}
