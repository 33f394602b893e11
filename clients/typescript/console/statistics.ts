/** What the service counts, asked for again when something has changed, but not more often than once a second. */

import type { Api, GetStatisticsResponse } from "../src/index.js";
import { throttled } from "./dom.js";

/** How long a bar's time is, by the window: few enough that bars are wide, and hours are the clock's. In seconds. */
const STEPS: Readonly<Record<number, number>> = { 300: 20, 3600: 240, 86_400: 3600 };

export class Statistics {
  latest: GetStatisticsResponse | undefined;
  /** The window of the latest answer; another may have been chosen since. */
  latestSeconds = 3600;
  windowSeconds = 3600;
  private asking = false;
  private changed = false;
  private readonly askSoon = throttled(1_000, () => void this.ask().catch(() => {}));

  constructor(
    private readonly api: Api,
    private readonly onAnswer: () => void,
  ) {
    document.addEventListener("visibilitychange", () => this.renew());
  }

  /** Something has changed; nobody needs the figures of a page that nobody sees. */
  renew(): void {
    this.changed = true;
    if (document.visibilityState === "visible" && !this.asking) this.askSoon();
  }

  /** Ask now. */
  async ask(): Promise<GetStatisticsResponse> {
    this.asking = true;
    this.changed = false;
    try {
      const { windowSeconds } = this;
      const answer = await this.api.getStatistics({ windowSeconds, stepSeconds: STEPS[windowSeconds] ?? windowSeconds / 30 });
      this.latest = answer;
      this.latestSeconds = windowSeconds;
      this.onAnswer();
      return answer;
    } finally {
      this.asking = false;
      if (this.changed) this.renew();
    }
  }
}
