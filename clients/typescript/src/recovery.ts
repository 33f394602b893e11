/** A lost connection: whether another try may do better, when, and where the server stands. Must not know sockets. */

import { mayPass, waitOf } from "./api.js";
import type { Api } from "./api.js";
import type { ServiceError } from "./errors.js";
import type { File as UploadedFile } from "./gen/upload/v1/upload_pb.js";
import { backoff } from "./pause.js";
import type { Bell } from "./pause.js";

// As long as the service waits for a page that was lost, by default.
const OFFLINE_MS = 5 * 60_000;
// The longest that can be written down: the service says what its limit is.
const MOST_GRACE_MS = 999_999_999;
// Failures in a row without a byte of progress between them.
const MOST_FAILURES = 8;

/** One upload's patience. A ring of its bell ends a wait. */
export class Recovery {
  private failures = 0;
  private aliveAt = performance.now();

  constructor(
    private readonly api: Api,
    private readonly bell: Bell,
    private offlineMs = OFFLINE_MS,
  ) {}

  /** How long the service should wait for another socket once one is lost: as long as this page tries. */
  get graceMs(): number {
    return Math.round(Math.min(this.offlineMs, MOST_GRACE_MS));
  }

  /** Whether the service waits less than was asked for: then this page does not try for longer either. */
  shortens(error: ServiceError): boolean {
    const limitMs = Number(error.metadata["limit"]) * 1000;
    if (error.reason !== "INVALID_FIELD" || error.metadata["field"] !== "grace" || !(limitMs < this.graceMs)) return false;
    this.offlineMs = limitMs;
    return true;
  }

  /** It moves: failures before this count no more. */
  moved(): void {
    this.failures = 0;
    this.aliveAt = performance.now();
  }

  /** Throws the error unless another socket may do better. */
  judge(error: ServiceError): void {
    const asks = error.reason === "OFFSET_MISMATCH" || error.reason === "FILE_NOT_WRITABLE" || error.transient ||
      (error.notSignedIn && this.api.hasToken);
    if (!asks || ++this.failures > MOST_FAILURES) throw error;
  }

  /** Wait before the next try: as long as the server asked for, in milliseconds, or a little longer each time. */
  async pause(asked?: number): Promise<void> {
    await this.bell.heard(asked ?? backoff(this.failures), this.api.sleep);
  }

  /** The file as the server has it, asked until there is an answer or patience ends; `hopeless` may end it sooner. */
  async truth(fileId: string, hopeless: () => Error | undefined): Promise<UploadedFile> {
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.api.getFile(fileId, { timeoutMs: 5_000, retries: 0 });
      } catch (error) {
        const known = hopeless();
        if (known) throw known;
        const late = performance.now() - this.aliveAt > this.offlineMs;
        if (late || !mayPass(error)) throw error;
        await this.bell.heard(waitOf(error) ?? backoff(attempt), this.api.sleep);
      }
    }
  }
}
