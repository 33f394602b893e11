/** What the service counts, asked for again when something has changed, but not more often than once a second. */

import type { Api, GetStatisticsResponse } from "../src/index.js";
import { throttled } from "./dom.js";

const BARS = 30;

export class Statistics {
  latest: GetStatisticsResponse | undefined;
  /** The window of the latest answer; another may have been chosen since. */
  latestSeconds = 300;
  windowSeconds = 300;
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
      const answer = await this.api.getStatistics({ windowSeconds, stepSeconds: windowSeconds / BARS });
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
