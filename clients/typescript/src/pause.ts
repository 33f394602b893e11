/** Waiting: how long before the next try, and a wait that ends early. Must not know what is tried. */

/**
 * Waits so many milliseconds, or until the signal says that nobody waits any more. Browsers throttle the timers of pages
 * in the background: a page that must not slow down there gives one that they do not throttle.
 */
export type Sleep = (milliseconds: number, signal?: AbortSignal) => Promise<void>;

export const plainSleep: Sleep = (milliseconds, signal) =>
  new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, milliseconds);
    signal?.addEventListener("abort", done);
    if (signal?.aborted) done();
  });

/** Milliseconds before try number `attempt` (from 0): doubling, bounded, and spread so that pages do not come all at once. */
export function backoff(attempt: number, firstMs = 250, mostMs = 5_000): number {
  const most = Math.min(mostMs, firstMs * 2 ** attempt);
  return most * (0.5 + Math.random() / 2);
}

/** A bell that ends waits. Rings are kept until they are heard. */
export class Bell {
  private ringing = false;
  private readonly waiting = new Set<() => void>();

  ring(): void {
    this.ringing = true;
    for (const wake of this.waiting) wake();
    this.waiting.clear();
  }

  /** Wait for a ring, at most so long. */
  async heard(milliseconds: number, sleep: Sleep = plainSleep): Promise<void> {
    if (!this.ringing) {
      let wake = (): void => {};
      const rung = new Promise<void>((resolve) => (wake = resolve));
      this.waiting.add(wake);
      const enough = new AbortController();
      await Promise.race([rung, sleep(milliseconds, enough.signal)]);
      enough.abort();
      this.waiting.delete(wake);
    }
    this.ringing = false;
  }
}

/** A request id: repeating a request with it has its effect once. */
export function newRequestId(): string {
  // randomUUID exists in secure contexts only; random numbers exist everywhere.
  if (typeof crypto.randomUUID === "function") return crypto.randomUUID();
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** A time of the service, cut to milliseconds; `timestampDate` rounds up, so that two ways to one time could differ. */
export function dateOf(time: { seconds: bigint; nanos: number } | undefined): Date | undefined {
  return time && new Date(Number(time.seconds) * 1000 + Math.floor(time.nanos / 1_000_000));
}
