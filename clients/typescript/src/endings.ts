/** How an upload ended, as the error its caller gets. Must not know how that was learnt. */

import { UploadError } from "./errors.js";
import type { File as UploadedFile } from "./gen/upload/v1/upload_pb.js";
import { dateOf } from "./pause.js";
import { fileStatusWord } from "./statuses.js";
import { quoted } from "./visible.js";

/** The end of a final file: itself, or why it did not complete. */
export function ended(file: UploadedFile): UploadedFile {
  const status = fileStatusWord(file.status);
  if (status === "completed") return file;
  if (status === "cancelled") {
    const at = dateOf(file.cancelledAt);
    throw cancelled(by(file.cancelledBy, file.cancelReason), { at, by: file.cancelledBy, reason: file.cancelReason });
  }
  const why = file.failureReason === "expired" ? "UPLOAD_EXPIRED" : "CHECKSUM_MISMATCH";
  const message =
    why === "UPLOAD_EXPIRED"
      ? "The upload was left alone for too long and has expired; upload the file anew."
      : "What arrived is not what was announced (its checksum differs); upload the file anew.";
  throw new UploadError(why, message, { file_id: file.fileId, status });
}

/** How it was cancelled, for people: `who` and `reason` as the service recorded them. */
export function by(who: string, reason = ""): string {
  // Nobody need have asked: the reason says what the page did, or what became of its connection.
  if (who === "websocket_close") return `with its page's connection${reason && ` (${quoted(reason)})`}`;
  if (who === "batch_cancel") return "with its batch";
  return who ? `by ${quoted(who)}` : "by somebody";
}

/** That it was cancelled: how, and what is known of it. */
export function cancelled(
  how: string,
  facts: { at?: Date | undefined; cancelledAt?: Date | undefined; by?: string; cancelledBy?: string; reason?: string } = {},
): UploadError {
  const at = facts.at ?? facts.cancelledAt;
  const metadata: Record<string, string> = { status: "cancelled" };
  if (at) metadata["cancelled_at"] = at.toISOString();
  if (facts.cancelledBy ?? facts.by) metadata["cancelled_by"] = facts.cancelledBy ?? facts.by ?? "";
  if (facts.reason) metadata["cancel_reason"] = facts.reason;
  return new UploadError(
    "UPLOAD_CANCELLED",
    `The upload was cancelled ${how} and its bytes are removed; upload the file anew if you still need it.`,
    metadata,
  );
}
