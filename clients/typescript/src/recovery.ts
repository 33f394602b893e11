/** A lost connection: whether another try may do better, when, and where the server stands. Must not know sockets. */

import { mayPass } from "./api.js";
import type { Api } from "./api.js";
import type { ServiceError } from "./errors.js";
import type { File as UploadedFile } from "./gen/upload/v1/upload_pb.js";
import { backoff } from "./pause.js";
import type { Bell } from "./pause.js";

const OFFLINE_MS = 5 * 60_000;
// Failures in a row without a byte of progress between them.
const MOST_FAILURES = 8;

/** One upload's patience. A ring of its bell ends a wait. */
export class Recovery {
  private failures = 0;
  private aliveAt = Date.now();

  constructor(
    private readonly api: Api,
    private readonly bell: Bell,
    private readonly offlineMs = OFFLINE_MS,
  ) {}

  /** It moves: failures before this count no more. */
  moved(): void {
    this.failures = 0;
    this.aliveAt = Date.now();
  }

  /** Throws the error unless another socket may do better. */
  judge(error: ServiceError): void {
    const asks = error.reason === "OFFSET_MISMATCH" || error.reason === "FILE_NOT_WRITABLE" || error.transient;
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
        const late = Date.now() - this.aliveAt > this.offlineMs;
        if (late || !mayPass(error)) throw error;
        await this.bell.heard(backoff(attempt), this.api.sleep);
      }
    }
  }
}
