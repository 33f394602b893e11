/**
 * That an upload is to be cancelled, by itself or with its batch, and what becomes of that.
 * Must not know sockets or retries.
 */

import type { Api } from "./api.js";
import { Cancellation } from "./cancel.js";
import type { BatchCancelOutcome, CancelOptions, SocketHolder } from "./cancel.js";
import { by, cancelled, ended } from "./endings.js";
import type { UploadError } from "./errors.js";
import type { File as UploadedFile } from "./gen/upload/v1/upload_pb.js";
import { fileStatusWord, isFinal } from "./statuses.js";

/** What an upload does about its cancel. */
export interface StopHolder extends SocketHolder {
  /** The cancel was refused: go on. */
  resume(): void;
  /** It is known how it ends: the socket has nothing to add. */
  leave(): void;
  /** The cancel is a step further. */
  changed(): void;
}

/** One upload's cancel. */
export class Stop {
  /** The upload's own; the batch's takes it along without one. */
  cancellation: Cancellation | undefined;
  private options: CancelOptions | undefined;
  private batch: Promise<BatchCancelOutcome> | undefined;

  constructor(
    private readonly api: Api,
    private readonly holder: StopHolder,
  ) {}

  /** Whether a cancel was asked for. */
  get wanted(): boolean {
    return this.options !== undefined;
  }

  /** Whether one was asked for in vain. */
  get refused(): boolean {
    return this.cancellation?.result?.state === "refused";
  }

  /** Whether one was asked for that was not, or not yet, in vain. */
  get stands(): boolean {
    return this.wanted && !this.refused;
  }

  /** Nobody answered the cancel, and nobody will: asking for the file is as hopeless. */
  get unconfirmed(): UploadError | undefined {
    const result = this.cancellation?.result;
    return result?.state === "unconfirmed" ? result.error : undefined;
  }

  /** Ask for it; the first to ask says why. */
  want(options: CancelOptions): void {
    this.options ??= options;
  }

  /** The whole batch is being cancelled: there is no need of a cancel of its own. */
  follow(outcome: Promise<BatchCancelOutcome>): void {
    this.batch = outcome;
    void outcome.then(({ state }) => {
      if (state === "refused") this.holder.resume();
    });
  }

  /** Tell the server, unless the batch's cancel does. Settles when it is known what became of it. */
  begin(fileId: string): Promise<unknown> {
    return this.batch ?? this.own(fileId).outcome;
  }

  /**
   * Wait for its outcome. The file, if it was completed before; undefined when the upload simply goes on.
   * `untouched`: no byte was ever sent, so that the server need not be asked how the file ended.
   */
  async end(fileId: string, untouched: boolean, truth: () => Promise<UploadedFile>): Promise<UploadedFile | undefined> {
    if (this.batch) return this.endWithBatch(await this.batch, untouched, truth);
    const outcome = await this.own(fileId).outcome;
    if (outcome.state === "cancelled") throw cancelled(by(outcome.cancelledBy || "user"), outcome);
    if (outcome.state === "unconfirmed") throw outcome.error;
    if (outcome.error.reason !== "FILE_NOT_CANCELLABLE") throw outcome.error;
    return ended(await truth());
  }

  private own(fileId: string): Cancellation {
    if (this.cancellation) return this.cancellation;
    this.cancellation = new Cancellation(this.api, fileId, this.options, this.holder, () => this.holder.changed());
    void this.cancellation.outcome.then(({ state }) => {
      if (state === "refused") this.holder.resume();
      else this.holder.leave();
    });
    return this.cancellation;
  }

  private async endWithBatch(
    outcome: BatchCancelOutcome,
    untouched: boolean,
    truth: () => Promise<UploadedFile>,
  ): Promise<UploadedFile | undefined> {
    if (outcome.state === "unconfirmed") throw outcome.error;
    const file = untouched && outcome.state === "cancelled" ? undefined : await truth();
    if (file && isFinal(fileStatusWord(file.status))) return ended(file);
    if (outcome.state === "cancelled") throw cancelled("with its batch", { cancelledBy: "batch_cancel", ...outcome });
    this.options = this.batch = undefined;
    return undefined;
  }
}
