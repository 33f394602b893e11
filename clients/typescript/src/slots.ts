/** How many uploads send at once; the others wait in order, many of one kind behind a few. Must not know what they do. */

import type { Bell } from "./pause.js";

export type Release = () => void;

export class Slots {
  private taken = 0;
  private readonly queue: (() => void)[] = [];
  /** Those that go first: one file must not wait for the ten thousand of a batch. */
  private readonly first: (() => void)[] = [];

  constructor(private readonly most: number) {}

  /** Wait for a turn, or until `hurried`, looked at when the bell rings: who is cancelled need not wait. */
  async take(bell: Bell, hurried: () => boolean, oneOfMany = false): Promise<Release> {
    if (hurried()) return () => {};
    if (this.taken < this.most) return this.give();
    let granted: Release | undefined;
    const turn = (): void => {
      granted = this.give();
      bell.ring();
    };
    const queue = oneOfMany ? this.queue : this.first;
    queue.push(turn);
    while (!granted && !hurried()) await bell.heard(2 ** 31 - 1, () => new Promise(() => {}));
    if (granted) return granted;
    queue.splice(queue.indexOf(turn), 1);
    return () => {};
  }

  private give(): Release {
    this.taken++;
    let given = true;
    return () => {
      if (!given) return;
      given = false;
      this.taken--;
      (this.first.shift() ?? this.queue.shift())?.();
    };
  }
}
