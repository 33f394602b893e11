/**
 * How many cancels came too late, over time. Refused calls are no events of the service: they are counted in its metrics,
 * which one tab reads every few seconds for all; the samples outlive a reload.
 */

export interface Sample {
  /** Milliseconds of the epoch. */
  at: number;
  /** Since the server started. */
  cancelled: number;
  tooLate: number;
}

const STORED = "upload-console cancels";
const MOST_SAMPLES = 2_000;
const EVERY_MS = 3_000;

export class History {
  samples: Sample[] = [];
  private timer: ReturnType<typeof setInterval> | undefined;

  constructor(private readonly onChange: () => void) {
    this.samples = stored();
  }

  /** Whether this tab is the one that reads. */
  lead(leading: boolean): void {
    clearInterval(this.timer);
    if (!leading) return;
    this.timer = setInterval(() => void this.read(), EVERY_MS);
    void this.read();
  }

  /** Totals since the server started, as last read. */
  get latest(): Sample | undefined {
    return this.samples.at(-1);
  }

  /** Cancels that came too late, each with about when. */
  *tooLate(): Iterable<{ at: number; count: number }> {
    for (let index = 1; index < this.samples.length; index++) {
      const [before, now] = [this.samples[index - 1]!, this.samples[index]!];
      // Counters start anew with the server.
      const count = now.tooLate >= before.tooLate ? now.tooLate - before.tooLate : now.tooLate;
      if (count > 0) yield { at: now.at, count };
    }
  }

  private async read(): Promise<void> {
    try {
      const response = await fetch("/metrics", { signal: AbortSignal.timeout(EVERY_MS), cache: "no-store" });
      if (!response.ok) return;
      const sample = { at: Date.now(), ...totals(await response.text()) };
      const last = this.latest;
      if (last && last.cancelled === sample.cancelled && last.tooLate === sample.tooLate) return;
      this.add(sample);
      localStorage.setItem(STORED, JSON.stringify(this.samples));
    } catch {
      // The server is away or the storage full: the chart waits.
    }
  }

  private add(sample: Sample): void {
    this.samples.push(sample);
    if (this.samples.length > MOST_SAMPLES) this.samples.splice(0, this.samples.length - MOST_SAMPLES);
    this.onChange();
  }
}

/** Sum `upload_cancels_total{source=…,outcome=…}` by outcome. */
export function totals(exposition: string): { cancelled: number; tooLate: number } {
  const sums = { cancelled: 0, tooLate: 0 };
  for (const match of exposition.matchAll(/^upload_cancels_total\{([^}]*)\} (\S+)$/gm)) {
    const outcome = /outcome="([^"]*)"/.exec(match[1] ?? "")?.[1];
    if (outcome === "cancelled") sums.cancelled += Number(match[2]);
    if (outcome === "too_late") sums.tooLate += Number(match[2]);
  }
  return sums;
}

function stored(): Sample[] {
  try {
    const found: unknown = JSON.parse(localStorage.getItem(STORED) ?? "[]");
    return Array.isArray(found) ? (found as Sample[]).filter(({ at }) => typeof at === "number") : [];
  } catch {
    return [];
  }
}
