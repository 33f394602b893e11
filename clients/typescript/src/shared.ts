/**
 * One watch of everything for all tabs of a browser, however many are open: browsers allow six connections a host.
 *
 * The tab that holds a Web Lock listens and tells the others over a BroadcastChannel. When it goes, the browser gives the
 * lock to the next tab, which resumes with the last token it was told: nothing is missed, and what comes twice is
 * dropped by its revision. Where there are no Web Locks (a page that is no secure context), each tab listens for itself.
 */

import { fromJson, toJson } from "@bufbuild/protobuf";
import type { JsonValue } from "@bufbuild/protobuf";
import { BatchSchema, FileSchema } from "./gen/upload/v1/upload_pb.js";
import { newRequestId } from "./pause.js";
import { batchStatusWord, fileStatusWord, isFinal } from "./statuses.js";
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
  | { kind: "state"; state: WatchState }
  /** A tab has come: whoever leads, tell it what is. */
  | { kind: "hello"; tab: string }
  /** The answer to it: everything not final. */
  | { kind: "welcome"; tab: string; events: Wire[]; token: string; state: WatchState }
  | { kind: "leading" };

export interface SharedWatchOptions {
  onEvent: (event: WatchEvent) => void;
  onState?: (state: WatchState) => void;
  /** Whether this tab is the one that listens. */
  onLeading?: (leading: boolean) => void;
  /** Tabs with the same name share one watch; one name for one service. */
  name?: string;
  progressIntervalMs?: number;
}

export class SharedWatch {
  leading = false;
  state: WatchState = "waiting";
  private readonly tab = newRequestId();
  private readonly name: string;
  private readonly channel: BroadcastChannel | undefined;
  private readonly stopped = new AbortController();
  private token = "";
  /** What this tab was told of each target last, so that nothing is told twice. */
  private readonly revisions = new Map<string, bigint>();
  /** The newest state of everything not final: what a tab that comes later has to be told. */
  private readonly current = new Map<string, Wire>();
  private welcomed = false;
  private watch: Watch | undefined;
  /** Told to the other tabs once a frame, not one by one. */
  private outbox: Wire[] = [];
  private flushing = false;

  constructor(
    private readonly context: WatchContext,
    private readonly options: SharedWatchOptions,
  ) {
    this.name = options.name ?? `upload-watch ${context.baseUrl}`;
    if (typeof navigator === "undefined" || !navigator.locks || typeof BroadcastChannel === "undefined") {
      this.lead();
      return;
    }
    this.channel = new BroadcastChannel(this.name);
    this.channel.addEventListener("message", (event: MessageEvent<Note>) => this.hear(event.data));
    navigator.locks
      .request(this.name, { signal: this.stopped.signal }, () => this.leadUntilStopped())
      .catch(() => {}); // aborted: this tab has stopped
    this.say({ kind: "hello", tab: this.tab });
  }

  /** Stop listening; another tab takes over. */
  stop(): void {
    this.stopped.abort();
    this.watch?.stop();
    this.channel?.close();
    this.leading = false;
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

  private lead(): void {
    if (this.stopped.signal.aborted) return;
    this.leading = true;
    this.options.onLeading?.(true);
    const progressIntervalMs = this.options.progressIntervalMs ?? 500;
    // A tab that was told nothing yet must not resume from nowhere: its current state comes with a fresh watch.
    if (!this.welcomed) this.token = "";
    this.welcomed = true;
    this.watch = new Watch(
      this.context,
      { all: true, progressIntervalMs, resumeToken: this.token },
      { onEvent: (event) => this.tell(event), onState: (state) => this.tellState(state) },
    );
    // Refused for good (an old token, no rights): told as a state; the page can only be loaded anew.
    this.watch.done.catch(() => this.setState("ended"));
    this.say({ kind: "leading" });
  }

  private tell(event: WatchEvent): void {
    const wire = toWire(event);
    this.take(wire);
    if (!this.channel) return;
    this.outbox.push(wire);
    if (this.flushing) return;
    this.flushing = true;
    queueMicrotask(() => this.flush());
  }

  private flush(): void {
    this.flushing = false;
    this.token = this.watch?.resumeToken ?? this.token;
    this.say({ kind: "events", events: this.outbox, token: this.token });
    this.outbox = [];
  }

  private tellState(state: WatchState): void {
    this.setState(state);
    this.say({ kind: "state", state });
  }

  private hear(note: Note): void {
    if (this.stopped.signal.aborted) return;
    if (note.kind === "hello") {
      if (this.leading) this.welcome(note.tab);
    } else if (note.kind === "leading") {
      if (!this.welcomed) this.say({ kind: "hello", tab: this.tab });
    } else if (note.kind === "welcome") {
      if (note.tab === this.tab && !this.welcomed) this.beWelcomed(note);
    } else if (!this.welcomed) {
      return; // the welcome will hold it
    } else if (note.kind === "state") {
      this.setState(note.state);
    } else {
      this.token = note.token || this.token;
      for (const event of note.events) this.take(event);
    }
  }

  private welcome(tab: string): void {
    if (this.outbox.length > 0) this.flush();
    this.say({ kind: "welcome", tab, events: [...this.current.values()], token: this.token, state: this.state });
  }

  private beWelcomed(note: Extract<Note, { kind: "welcome" }>): void {
    this.welcomed = true;
    this.token = note.token;
    for (const event of note.events) this.take(event);
    this.options.onEvent({ type: "bookmark", resynced: false });
    this.setState(note.state);
  }

  /** Take one event, from the service or from another tab, unless it is known already. */
  private take(wire: Wire): void {
    const event = fromWire(wire);
    if (event.type === "bookmark" && event.resynced) this.revisions.clear();
    const target = targetOf(event);
    if (target) {
      if ((this.revisions.get(target.id) ?? 0n) >= target.revision) return;
      this.revisions.set(target.id, target.revision);
      if (target.final) this.current.delete(target.id);
      else this.current.set(target.id, wire);
      if (target.final) this.forgetSome();
    }
    this.options.onEvent(event);
  }

  /** Revisions are kept against repetition at a hand-over only; the oldest go first. */
  private forgetSome(): void {
    while (this.revisions.size > 20_000 + this.current.size) {
      const oldest = this.revisions.keys().next().value;
      if (oldest === undefined) return;
      this.revisions.delete(oldest);
    }
  }

  private setState(state: WatchState): void {
    if (this.state === state) return;
    this.state = state;
    this.options.onState?.(state);
  }

  private say(note: Note): void {
    if (!this.stopped.signal.aborted) this.channel?.postMessage(note);
  }
}

function targetOf(event: WatchEvent): { id: string; revision: bigint; final: boolean } | undefined {
  if (event.type === "file") {
    return { id: event.file.fileId, revision: event.file.revision, final: isFinal(fileStatusWord(event.file.status)) };
  }
  if (event.type === "batch") {
    const { batchId, revision, status } = event.batch;
    return { id: batchId, revision, final: isFinal(batchStatusWord(status)) };
  }
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
