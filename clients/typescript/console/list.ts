/** The list of uploads: which rows stand in it, and that nothing moves under a hand. Must not know requests. */

import { say, show } from "./dom.js";
import * as format from "./format.js";
import type { Model } from "./model.js";
import type { BatchRow, FileRow } from "./row.js";
import type { Rows } from "./rows.js";
import { isSifted } from "./view.js";
import { emptyLine } from "./words.js";

/** Where rows are to be read. */
export type Direction = "below" | "above";

export class List {
  /** What was shown when somebody began to aim at a row: nothing may move away under a hand. */
  private held: readonly (FileRow | BatchRow)[] | undefined;
  private visible = 0;
  private readonly ends: Readonly<Record<Direction, HTMLElement>>;
  private readonly seen: IntersectionObserver;

  constructor(
    private readonly model: Model,
    private readonly rows: Rows,
    private readonly parent: HTMLElement,
    private readonly empty: HTMLElement,
    below: HTMLElement,
    above: HTMLElement,
    private readonly fresh: HTMLElement,
    /** Read more of what is shown. */
    read: (where: Direction) => void,
    newest: () => void,
  ) {
    this.ends = { below, above };
    this.watchAim();
    fresh.addEventListener("click", () => (model.more.above ? newest() : this.showFresh()));
    // Scrolled to an end, the list goes on; the button is for who does not scroll.
    this.seen = new IntersectionObserver((seen) => {
      for (const { isIntersecting, target } of seen) if (isIntersecting) read(target === below ? "below" : "above");
    }, { rootMargin: "300px" });
    for (const where of ["below", "above"] as const) {
      this.ends[where].querySelector("button")!.addEventListener("click", () => read(where));
    }
  }

  private watchAim(): void {
    let [pointed, focused] = [false, false];
    const aim = (pointing: boolean, focusing: boolean): void => {
      [pointed, focused] = [pointing, focusing];
      if (pointed || focused) this.hold();
      else this.release();
    };
    const { parent } = this;
    parent.addEventListener("pointerenter", () => aim(true, focused));
    parent.addEventListener("pointerleave", () => aim(false, focused));
    // Whoever works with a mouse aims with it; a focus that a press has left behind is no aim.
    parent.addEventListener("focusin", (event) => aim(pointed, (event.target as Element).matches(":focus-visible")));
    parent.addEventListener("focusout", (event) => aim(pointed, parent.contains(event.relatedTarget as Node | null)));
  }

  /** Keep what is shown where it is: what is new waits behind a button. */
  private hold(): void {
    this.held ??= this.model.items();
  }

  private release(): void {
    if (!this.held) return;
    this.held = undefined;
    this.render();
  }

  /** Show what is new, also to who aims at a row. */
  showFresh(): void {
    if (this.held) this.held = this.model.items();
    this.render();
  }

  /** More rows were read: they come before or after what is shown, whoever aims at a row. */
  showRead(where: Direction): void {
    const anchor = this.anchor();
    if (this.held) {
      const known = new Set(this.held);
      const last = this.held.at(-1)?.createdAt.getTime() ?? Infinity;
      const now = this.model.items();
      if (where === "above") this.held = now;
      else this.held = [...this.held, ...now.filter((item) => !known.has(item) && item.createdAt.getTime() <= last)];
    }
    // An end that is still seen is told again.
    this.visible = -1;
    this.render();
    this.scrollTo(anchor);
  }

  /** A row that is seen, and where: rows above it come and go. */
  private anchor(): { row: Element; y: number } | undefined {
    for (const row of this.parent.children) {
      const { top, bottom } = row.getBoundingClientRect();
      if (bottom > 0) return { row, y: top };
    }
    return undefined;
  }

  private scrollTo(anchor: { row: Element; y: number } | undefined): void {
    if (!anchor?.row.isConnected) return;
    const moved = anchor.row.getBoundingClientRect().top - anchor.y;
    if (Math.abs(moved) > 1) scrollBy({ top: moved, behavior: "instant" });
  }

  render(): void {
    const now = this.model.items();
    const items = this.held?.filter((item) => this.model.isCurrent(item)) ?? now;
    this.tellFresh(now);
    this.rows.show(this.parent, items);
    this.tellEnds(items.length);
  }

  private tellEnds(count: number): void {
    const { more, asked, sifted } = this.model;
    const further = isSifted(asked);
    const back = sifted.back ? `, back to ${format.day(sifted.back)}` : "";
    say(this.ends.below.querySelector("button")!, further ? `Look further: ${format.count(sifted.files, "file")} looked through${back}` : "Show older rows");
    show(this.ends.below, more.below);
    show(this.ends.above, more.above);
    // Whether an end is seen is told anew when it has moved.
    for (const end of Object.values(this.ends)) {
      if (count !== this.visible) this.seen.unobserve(end);
      // Where nothing may be found, only a press goes on.
      if (further) this.seen.unobserve(end);
      else this.seen.observe(end);
    }
    this.visible = count;
    show(this.empty, count === 0 && !more.below && !more.above);
    say(this.empty, emptyLine(asked, this.model.own.length > 0));
  }

  private tellFresh(now: readonly (FileRow | BatchRow)[]): void {
    const { above } = this.model.more;
    const known = new Set(this.held);
    const count = this.held ? now.filter((item) => !known.has(item)).length : 0;
    show(this.fresh, above || count > 0);
    if (above) say(this.fresh, "Back to the newest");
    else if (count > 0) say(this.fresh, `Show ${count.toLocaleString("en")} newer`);
  }
}
