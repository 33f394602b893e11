/** How the service fares, in one line for who operates it, from `/metrics` of the node that answers. */

import type { GetStatisticsResponse } from "../src/index.js";
import { byId, make, say, setAttribute, show } from "./dom.js";
import { samplesOf } from "./exposition.js";
import type { Sample } from "./exposition.js";
import * as format from "./format.js";
import { may } from "./me.js";

const EVERY_MS = 5_000;
/** Failures of the service; what a caller did wrong is none. */
const ERRORS = new Set(["INTERNAL", "UNKNOWN", "DATA_LOSS", "UNAVAILABLE", "UNIMPLEMENTED"]);

const TAKEN = "upload_taken_bytes_total";
const CALLS = "upload_calls_total";
const ROOM = "upload_storage_room_bytes";
const UPLOADS = "upload_open_uploads";
const WATCHES = "upload_open_watches";
const ORPHANS = "upload_orphan_bytes";
const NAMES = new Set([TAKEN, CALLS, ROOM, UPLOADS, WATCHES, ORPHANS]);

interface Look {
  at: number;
  taken: number;
  errors: number;
}

export class Strip {
  private readonly values = new Map<string, HTMLElement>();
  private before: Look | undefined;

  /** Look again and again, while somebody sees the page. */
  start(): void {
    const look = (): void => {
      if (document.visibilityState === "visible") void this.look();
    };
    look();
    setInterval(look, EVERY_MS);
    document.addEventListener("visibilitychange", look);
  }

  constructor(private readonly read: () => Promise<string>) {
    for (const name of ["Taken", "Open uploads", "Watches", "Room", "Errors", "Orphan bytes", "Cancels too late"]) this.set(name, "…");
  }

  update({ cancelsTooLate }: GetStatisticsResponse): void {
    this.set("Cancels too late", format.number(Number(cancelsTooLate)));
  }

  private async look(): Promise<void> {
    if (!may("metrics")) return;
    let text: string;
    try {
      text = await this.read();
    } catch {
      // The pill says that the service does not answer.
      this.before = undefined;
      return;
    }
    const samples = samplesOf(text, NAMES);
    const sum = (name: string, wanted = (_: Sample): boolean => true): number =>
      (samples.get(name) ?? []).filter(wanted).reduce((total, { value }) => total + value, 0);
    const now = { at: performance.now(), taken: sum(TAKEN), errors: sum(CALLS, ({ labels }) => ERRORS.has(labels["code"] ?? "")) };
    this.tellRates(now);
    this.set("Open uploads", format.number(sum(UPLOADS)));
    this.set("Watches", format.number(sum(WATCHES)));
    const room = sum(ROOM);
    if (samples.has(ROOM)) this.set("Room", format.size(room), room < 1e9);
    const orphans = sum(ORPHANS);
    this.set("Orphan bytes", format.size(orphans), orphans > 0);
    show(byId("strip"), true);
  }

  private tellRates(now: Look): void {
    const { before } = this;
    this.before = now;
    // A server that has started meanwhile counts anew.
    const fresh = !before || now.taken < before.taken || now.errors < before.errors;
    this.set("Taken", fresh ? "…" : format.speed((now.taken - before.taken) / ((now.at - before.at) / 1000)));
    this.set("Errors", format.number(now.errors), !fresh && now.errors > before.errors);
  }

  private set(name: string, text: string, alarming = false): void {
    let value = this.values.get(name);
    if (!value) {
      this.values.set(name, (value = make("dd")));
      byId("strip").append(make("div", "", make("dt", "", name), value));
    }
    say(value, text);
    setAttribute(value, "data-state", alarming ? "alarming" : undefined);
  }
}
