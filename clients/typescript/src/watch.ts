/**
 * A watch over server-sent events that goes on by itself: with its token after a break, anew after an answer that an
 * EventSource gives up on. Must not know who looks.
 */

import { fromJson } from "@bufbuild/protobuf";
import type { JsonValue } from "@bufbuild/protobuf";
import { mayPass } from "./api.js";
import { errorOfStatus, UploadError } from "./errors.js";
import type { ServiceError } from "./errors.js";
import type { EventStream } from "./events.js";
import { WatchStatusResponseSchema } from "./gen/upload/v1/upload_pb.js";
import type { Batch, File as UploadedFile, WatchStatusResponse } from "./gen/upload/v1/upload_pb.js";
import { backoff, Bell, plainSleep } from "./pause.js";
import type { Sleep } from "./pause.js";

export interface WatchTargets {
  fileIds?: readonly string[];
  batchIds?: readonly string[];
  /** The files of the named batches too. */
  includeBatchFiles?: boolean;
  /** Everything; what was final before is left out (see `listFiles`). */
  all?: boolean;
  /** End after the last target's final state. */
  untilFinal?: boolean;
  /** Progress at most this often, in milliseconds; at least 100. None if left out. */
  progressIntervalMs?: number;
  /** Go on after the message that carried this token. */
  resumeToken?: string;
}

export type WatchEvent =
  | { type: "file"; file: UploadedFile }
  | { type: "batch"; batch: Batch }
  | { type: "progress"; fileId: string; bytesReceived: number }
  /** Everything so far was sent. `resynced`: the past could not be replayed; what came before it is the current state. */
  | { type: "bookmark"; resynced: boolean };

/** `live` once the first message has come; `waiting` while the connection is being opened (again). */
export type WatchState = "waiting" | "live" | "ended";

export interface WatchOptions {
  signal?: AbortSignal;
  onEvent: (event: WatchEvent) => void;
  onState?: (state: WatchState) => void;
}

export interface WatchContext {
  baseUrl: string;
  /** Is told of calls of this page that wait for their answer. */
  slowCalls?: Set<(call: Promise<unknown>) => void>;
  /** Listens to a URL: an EventSource, or what can say who calls. */
  open: (url: string) => EventStream;
  fetch: typeof fetch;
  /** Whether a token that is refused may be followed by a better one. */
  hasToken: boolean;
  sleep?: Sleep;
}

/** How one EventSource ended. `gaveUp`: on an answer that was no stream, and it does not say which. */
type Ending = { done: boolean; gaveUp?: boolean; madeWay?: boolean };
/** How long a watch waits for calls that it has made way for: one that hangs must not keep its page without news. */
const MAKE_WAY_MS = 5_000;
const OVER: Ending = { done: true };

/** A watch. `done` resolves when it ended well or was stopped, and rejects when the service refused it. */
export class Watch {
  readonly done: Promise<void>;
  /** Resumes after the last message heard. */
  resumeToken: string;
  state: WatchState = "waiting";
  private readonly stopped = new AbortController();
  private readonly bell = new Bell();
  private attempt = 0;
  /** Calls that this watch has made way for. */
  private awaited: Promise<unknown> = Promise.resolve();
  private letGo: () => void = () => {};

  constructor(
    private readonly context: WatchContext,
    private readonly targets: WatchTargets,
    private readonly options: WatchOptions,
  ) {
    this.resumeToken = targets.resumeToken ?? "";
    options.signal?.addEventListener("abort", () => this.stop(), { once: true });
    if (options.signal?.aborted) this.stop();
    this.done = this.run();
    this.done.catch(() => {});
  }

  /** End it from this side. */
  stop(): void {
    this.stopped.abort();
    this.bell.ring();
  }

  /** Try again now: the network is back. */
  wake(): void {
    this.bell.ring();
  }

  /** A call of this page has no answer: perhaps it waits for a connection, so let go of ours until it is over. */
  private makeWay(call: Promise<unknown>): void {
    // Without their answers: a watch lives as long as its page, and would keep every one of them.
    this.awaited = Promise.allSettled([this.awaited, call]).then(() => {});
    this.letGo();
  }

  private async run(): Promise<void> {
    const makeWay = (call: Promise<unknown>): void => this.makeWay(call);
    this.context.slowCalls?.add(makeWay);
    try {
      while (!this.stopped.signal.aborted) {
        const ending = await this.listen();
        if (ending.done || this.stopped.signal.aborted) return;
        this.set("waiting");
        if (ending.madeWay) {
          await Promise.race([this.awaited, (this.context.sleep ?? plainSleep)(MAKE_WAY_MS, this.stopped.signal)]);
          continue;
        }
        await this.bell.heard(backoff(this.attempt++), this.context.sleep ?? plainSleep);
        if (ending.gaveUp && (await this.isOver())) return;
      }
    } finally {
      this.context.slowCalls?.delete(makeWay);
      this.set("ended");
    }
  }

  /** Listen over one EventSource until it gives up or the service says that this is the end. */
  private listen(): Promise<Ending> {
    return new Promise<Ending>((resolve, reject) => {
      const source = this.context.open(this.url());
      const leave = (then: () => void): void => {
        source.close();
        this.stopped.signal.removeEventListener("abort", stop);
        then();
      };
      const stop = (): void => leave(() => resolve(OVER));
      this.stopped.signal.addEventListener("abort", stop);
      this.letGo = () => leave(() => resolve({ done: false, madeWay: true }));
      source.addEventListener("message", (event) => this.hear(event as MessageEvent));
      source.addEventListener("end", (event) => {
        const error = errorOfEnd(String((event as MessageEvent).data));
        leave(() => (error && !this.mayGoOn(error) ? reject(error) : resolve({ done: !error })));
      });
      source.addEventListener("error", () => {
        // Any break: come back on our own terms, with our token and our pauses.
        const gaveUp = source.readyState === CLOSED;
        leave(() => resolve({ done: false, gaveUp }));
      });
    });
  }

  private hear(event: MessageEvent): void {
    let message: WatchStatusResponse;
    try {
      message = fromJson(WatchStatusResponseSchema, JSON.parse(String(event.data)) as JsonValue, {
        ignoreUnknownFields: true,
      });
    } catch {
      return; // of a newer service: not for us
    }
    this.attempt = 0;
    this.set("live");
    const known = eventOf(message);
    if (known) this.options.onEvent(known);
    // Only after it was taken: a message is never skipped.
    if (message.resumeToken) this.resumeToken = message.resumeToken;
  }

  /**
   * An EventSource says nothing of why it gave up: 204 (nothing is left), or an error. Ask with fetch until there is an
   * answer, and leave that as soon as its status is known. Throws what will not pass.
   */
  private async isOver(): Promise<boolean> {
    for (;;) {
      const answer = await this.look();
      if (this.stopped.signal.aborted) return true;
      if (typeof answer === "boolean") return answer;
      await this.bell.heard(answer, this.context.sleep ?? plainSleep);
    }
  }

  /** Whether nothing is left, or how many milliseconds to wait before asking again. */
  private async look(): Promise<boolean | number> {
    const leave = new AbortController();
    const signal = AbortSignal.any([leave.signal, this.stopped.signal, AbortSignal.timeout(10_000)]);
    try {
      const response = await this.context.fetch(this.url(), { headers: { accept: "text/event-stream" }, signal });
      if (response.ok) return response.status === 204;
      const error = errorOfStatus(await response.json().catch(() => undefined), response.status);
      if (!error.transient) throw error;
      return error.retryAfterMs ?? backoff(this.attempt++);
    } catch (error) {
      if (error instanceof UploadError && !mayPass(error)) throw error;
      return backoff(this.attempt++);
    } finally {
      leave.abort();
    }
  }

  /** A credential's end is none of the watch, where another one can be had. */
  private mayGoOn(error: ServiceError): boolean {
    return error.transient || (error.notSignedIn && this.context.hasToken);
  }

  private url(): string {
    const query = new URLSearchParams();
    for (const id of this.targets.fileIds ?? []) query.append("file_ids", id);
    for (const id of this.targets.batchIds ?? []) query.append("batch_ids", id);
    if (this.targets.includeBatchFiles) query.set("include_batch_files", "true");
    if (this.targets.all) query.set("all", "true");
    if (this.targets.untilFinal) query.set("until_final", "true");
    if (this.targets.progressIntervalMs) query.set("progress_interval", `${this.targets.progressIntervalMs / 1000}s`);
    if (this.resumeToken) query.set("resume_token", this.resumeToken);
    return `${this.context.baseUrl}/api/v1/watch?${query}`;
  }

  private set(state: WatchState): void {
    if (this.state === state) return;
    this.state = state;
    this.options.onState?.(state);
  }
}

const CLOSED = 2;

function eventOf(message: WatchStatusResponse): WatchEvent | undefined {
  const { event } = message;
  switch (event.case) {
    case "file":
      return { type: "file", file: event.value };
    case "batch":
      return { type: "batch", batch: event.value };
    case "progress":
      return { type: "progress", fileId: event.value.fileId, bytesReceived: Number(event.value.bytesReceived) };
    case "bookmark":
      return { type: "bookmark", resynced: event.value.resynced };
    default:
      return undefined;
  }
}

function errorOfEnd(data: string): ServiceError | undefined {
  try {
    const status = JSON.parse(data) as { code?: number };
    return status.code ? errorOfStatus(status, 0) : undefined;
  } catch {
    return errorOfStatus(undefined, 500);
  }
}
