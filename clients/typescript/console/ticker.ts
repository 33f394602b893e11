/** Timers that go on at full speed in a tab that is in the background: a worker's are not throttled. */

import type { Sleep } from "../src/index.js";

/** Waits by the page's own timers while it is seen, by the worker's while it is not. */
export function backgroundSleep(workerUrl: string): Sleep {
  let worker: Worker | undefined;
  const waiting = new Map<number, () => void>();
  let last = 0;
  const byWorker = (milliseconds: number, done: () => void): (() => void) => {
    if (!worker) {
      worker = new Worker(workerUrl);
      worker.addEventListener("message", (event: MessageEvent<number>) => waiting.get(event.data)?.());
    }
    const id = ++last;
    waiting.set(id, done);
    worker.postMessage({ id, milliseconds });
    return () => waiting.delete(id);
  };
  return (milliseconds, signal) =>
    new Promise((resolve) => {
      let forget = (): unknown => undefined;
      const done = (): void => {
        forget();
        signal?.removeEventListener("abort", done);
        resolve();
      };
      if (document.visibilityState === "visible" || milliseconds > 60_000) {
        const timer = setTimeout(done, milliseconds);
        forget = () => clearTimeout(timer);
      } else forget = byWorker(milliseconds, done);
      signal?.addEventListener("abort", done);
      if (signal?.aborted) done();
    });
}
