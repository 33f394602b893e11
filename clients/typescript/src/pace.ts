/** How fast it goes, from what was heard in the last seconds. Must not know what is counted. */

const WINDOW_MS = 6_000;

export class Pace {
  private samples: { at: number; bytes: number }[] = [];

  /** So many bytes in all, by now. */
  note(bytes: number, at = performance.now()): void {
    this.samples.push({ at, bytes });
    while (this.samples.length > 2 && at - (this.samples[0]?.at ?? at) > WINDOW_MS) this.samples.shift();
  }

  /** Forget: a pause is not a speed. */
  restart(): void {
    this.samples = [];
  }

  /** Bytes a second, or undefined while there is too little to tell. */
  get bytesPerSecond(): number | undefined {
    const [first, last] = [this.samples[0], this.samples.at(-1)];
    if (!first || !last || last.at - first.at < 200) return undefined;
    return (last.bytes - first.bytes) / ((last.at - first.at) / 1000);
  }
}
