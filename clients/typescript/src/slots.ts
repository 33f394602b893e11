/** How many uploads send at once; the others wait in order, many of one kind behind a few. Must not know what they do. */

import type { Bell } from "./pause.js";

export type Release = () => void;

interface Waiting {
  cost: number;
  turn: () => void;
}

export class Slots {
  private taken = 0;
  private readonly queue: Waiting[] = [];
  /** Those that go first: one file must not wait for the ten thousand of a batch. */
  private readonly first: Waiting[] = [];

  /** `most` at once, or `mostSmall` of those that wait for the server more than they send; of both kinds in between. */
  constructor(
    private readonly most: number,
    private readonly mostSmall = most,
  ) {}

  /** Wait for a turn, or until `hurried`, looked at when the bell rings: who is cancelled need not wait. */
  async take(bell: Bell, hurried: () => boolean, oneOfMany = false, isSmall = false): Promise<Release> {
    if (hurried()) return () => {};
    const cost = isSmall ? this.most : this.mostSmall;
    const isNext = this.first.length === 0 && (!oneOfMany || this.queue.length === 0);
    if (isNext && this.hasRoom(cost)) return this.give(cost);
    let granted: Release | undefined;
    const turn = (): void => {
      granted = this.give(cost);
      bell.ring();
    };
    const queue = oneOfMany ? this.queue : this.first;
    const waiting = { cost, turn };
    queue.push(waiting);
    while (!granted && !hurried()) await bell.heard(2 ** 31 - 1, () => new Promise(() => {}));
    if (granted) return granted;
    queue.splice(queue.indexOf(waiting), 1);
    this.next();
    return () => {};
  }

  private hasRoom(cost: number): boolean {
    return this.taken + cost <= this.most * this.mostSmall;
  }

  private give(cost: number): Release {
    this.taken += cost;
    let given = true;
    return () => {
      if (!given) return;
      given = false;
      this.taken -= cost;
      this.next();
    };
  }

  private next(): void {
    for (;;) {
      const queue = this.first.length > 0 ? this.first : this.queue;
      if (queue[0] === undefined || !this.hasRoom(queue[0].cost)) return;
      queue.shift()?.turn();
    }
  }
}
