/**
 * One watch of everything for all tabs of a browser, however many are open: browsers allow six connections a host.
 *
 * One tab listens and tells the others over a BroadcastChannel: the one that holds a Web Lock, or, where there are none (a
 * page that is no secure context) or the browser refuses them, the one that the others have heard of. When it goes,
 * another resumes with the last token that it was told: nothing is missed, and what comes twice is dropped by its
 * revision. A tab that cannot speak with the others listens for itself.
 */

import { fromJson, toJson } from "@bufbuild/protobuf";
import type { JsonValue } from "@bufbuild/protobuf";
import { BatchSchema, FileSchema } from "./gen/upload/v1/upload_pb.js";
import { newRequestId, plainSleep } from "./pause.js";
import { Watch } from "./watch.js";
import type { WatchContext, WatchEvent, WatchState } from "./watch.js";

/** What goes between tabs. Files and batches travel as JSON: another tab may run another version of this module. */
type Wire =
  | { type: "file"; json: JsonValue }
  | { type: "batch"; json: JsonValue }
  | { type: "progress"; fileId: string; bytesReceived: number }
  | { type: "bookmark"; resynced: boolean };

type Note =
  | { kind: "events"; events: Wire[]; token: string }
  /** Who leads? */
  | { kind: "hello" }
  /** The answer to it, and said whenever it changes. */
  | { kind: "leading"; tab: string; state: WatchState };

export interface SharedWatchOptions {
  /** Tells what changes after this token (of `getStatistics`, or of a watch); read what is so before it by the lists. */
  resumeToken?: string;
  onEvent: (event: WatchEvent) => void;
  onState?: (state: WatchState) => void;
  /** Tabs with the same name share one watch; one name for one service, and for one caller where tabs have tokens. */
  name?: string;
  progressIntervalMs?: number;
}

/** Without Web Locks: how long a tab waits to hear who leads, and how long until it asks again. */
const ANSWER_MS = 500;
const ASK_MS = 2_000;
/** Revisions kept against repetition at a hand-over; the oldest go first. */
const MOST_REVISIONS = 20_000;

export class SharedWatch {
  state: WatchState = "waiting";
  private readonly tab = newRequestId();
  private readonly channel: BroadcastChannel | undefined;
  private readonly stopped = new AbortController();
  private token: string;
  /** What this tab was told of each target last, so that nothing is told twice. */
  private readonly revisions = new Map<string, bigint>();
  /** The watch, while this tab leads. */
  private watch: Watch | undefined;
  /** Whether somebody has said to lead since this tab asked. */
  private heardLeader = false;
  /** Told to the other tabs once a turn, not one by one. */
  private outbox: Wire[] = [];

  constructor(
    private readonly context: WatchContext,
    private readonly options: SharedWatchOptions,
  ) {
    const name = options.name ?? `upload-watch ${context.baseUrl}`;
    this.token = options.resumeToken ?? "";
    this.channel = channelOf(name);
    if (!this.channel) {
      this.lead();
      return;
    }
    this.channel.addEventListener("message", (event: MessageEvent<Note>) => this.hear(event.data));
    this.say({ kind: "hello" });
    const { signal } = this.stopped;
    const held = lockOf(name, signal, () => this.leadUntilStopped());
    // No lock, or refused (site data is blocked): that must not leave this tab without news.
    held.catch(() => void this.elect());
  }

  /** Resumes after what was told last. */
  get resumeToken(): string {
    return this.watch?.resumeToken ?? this.token;
  }

  /** Stop listening; another tab takes over. */
  stop(): void {
    this.stopped.abort();
    this.watch?.stop();
    this.channel?.close();
  }

  /** Try again now: the network is back. */
  wake(): void {
    this.watch?.wake();
  }

  private leadUntilStopped(): Promise<void> {
    this.lead();
    return new Promise((resolve) => {
      this.stopped.signal.addEventListener("abort", () => resolve());
      if (this.stopped.signal.aborted) resolve();
    });
  }

  /** Ask who leads, again and again, and lead when nobody says so. Two that lead find out: each says so now and then. */
  private async elect(): Promise<void> {
    const sleep = this.context.sleep ?? plainSleep;
    const { signal } = this.stopped;
    while (!signal.aborted) {
      this.heardLeader = false;
      if (this.watch) this.sayLeading();
      else this.say({ kind: "hello" });
      await sleep(ANSWER_MS, signal);
      if (!this.watch && !this.heardLeader) this.lead();
      await sleep(ASK_MS, signal);
    }
  }

  private lead(): void {
    if (this.stopped.signal.aborted) return;
    const progressIntervalMs = this.options.progressIntervalMs ?? 500;
    const watch = new Watch(
      this.context,
      { all: true, progressIntervalMs, resumeToken: this.token },
      { onEvent: (event) => this.tell(event), onState: (state) => this.watch === watch && this.setState(state) },
    );
    this.watch = watch;
    // Whatever the tab before has told: this one is not connected yet.
    this.setState(watch.state);
    // Refused for good (an old token, no rights): told as a state; the page can only be loaded anew.
    watch.done.catch(() => this.watch === watch && this.setState("ended"));
    this.sayLeading();
  }

  /** Another tab leads too: the one with the smaller name goes on. */
  private standBack(): void {
    this.flush();
    const { watch } = this;
    this.watch = undefined;
    watch?.stop();
  }

  private tell(event: WatchEvent): void {
    const wire = toWire(event);
    this.take(wire);
    if (!this.channel) return;
    if (this.outbox.length === 0) queueMicrotask(() => this.flush());
    this.outbox.push(wire);
  }

  private flush(): void {
    this.token = this.watch?.resumeToken ?? this.token;
    if (this.outbox.length > 0) this.say({ kind: "events", events: this.outbox, token: this.token });
    this.outbox = [];
  }

  private hear(note: Note): void {
    if (this.stopped.signal.aborted) return;
    if (note.kind === "hello") {
      if (this.watch) this.sayLeading();
    } else if (note.kind === "leading") {
      this.heardLeader = true;
      if (this.watch && note.tab < this.tab) this.standBack();
      if (!this.watch) this.setState(note.state);
    } else {
      if (!this.watch) this.token = note.token || this.token;
      for (const event of note.events) this.take(event);
    }
  }

  /** Take one event, from the service or from another tab, unless it is known already. */
  private take(wire: Wire): void {
    const event = fromWire(wire);
    if (event.type === "bookmark" && event.resynced) this.revisions.clear();
    const target = targetOf(event);
    if (target) {
      if ((this.revisions.get(target.id) ?? 0n) >= target.revision) return;
      this.revisions.delete(target.id);
      this.revisions.set(target.id, target.revision);
      const oldest = this.revisions.size > MOST_REVISIONS ? this.revisions.keys().next().value : undefined;
      if (oldest !== undefined) this.revisions.delete(oldest);
    }
    this.options.onEvent(event);
  }

  private setState(state: WatchState): void {
    if (this.state === state) return;
    this.state = state;
    this.options.onState?.(state);
    if (this.watch) this.sayLeading();
  }

  private sayLeading(): void {
    this.say({ kind: "leading", tab: this.tab, state: this.state });
  }

  private say(note: Note): void {
    if (!this.stopped.signal.aborted) this.channel?.postMessage(note);
  }
}

/** A channel to the other tabs; none where the browser has or allows none. */
function channelOf(name: string): BroadcastChannel | undefined {
  try {
    return new BroadcastChannel(name);
  } catch {
    return undefined;
  }
}

/** Holds the lock of this name as long as `hold` takes. Rejects where there is none, unless the signal was aborted. */
async function lockOf(name: string, signal: AbortSignal, hold: () => Promise<void>): Promise<void> {
  const { locks } = navigator;
  if (!locks) throw new Error("no Web Locks here");
  await locks.request(name, { signal }, hold).catch((error: unknown) => {
    if (!signal.aborted) throw error;
  });
}

function targetOf(event: WatchEvent): { id: string; revision: bigint } | undefined {
  if (event.type === "file") return { id: event.file.fileId, revision: event.file.revision };
  if (event.type === "batch") return { id: event.batch.batchId, revision: event.batch.revision };
  return undefined;
}

function toWire(event: WatchEvent): Wire {
  if (event.type === "file") return { type: "file", json: toJson(FileSchema, event.file) };
  if (event.type === "batch") return { type: "batch", json: toJson(BatchSchema, event.batch) };
  return event;
}

function fromWire(wire: Wire): WatchEvent {
  if (wire.type === "file") return { type: "file", file: fromJson(FileSchema, wire.json, LENIENT) };
  if (wire.type === "batch") return { type: "batch", batch: fromJson(BatchSchema, wire.json, LENIENT) };
  return wire;
}

const LENIENT = { ignoreUnknownFields: true };
