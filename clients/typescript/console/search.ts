/** The search box, the times and the states: which part of the service is shown. Must not know what is shown. */

import type { GetStatisticsResponse } from "../src/index.js";
import { byId, make, say, show, throttled } from "./dom.js";
import { askedOf, FILTERS } from "./view.js";
import type { View } from "./view.js";
import { BADGES, countOf } from "./words.js";

const TYPING_MS = 300;

export class Search {
  private readonly numbers = new Map<string, HTMLElement>();
  private readonly inputs = new Map<string, HTMLInputElement>();
  private readonly text = byId<HTMLInputElement>("search");
  private readonly since = byId<HTMLSelectElement>("since");

  /** `chosen` hears of another view; `typing` says that more may follow. */
  constructor(private readonly chosen: (view: View, typing: boolean) => void) {
    for (const filter of FILTERS) {
      const input = make("input");
      input.type = "radio";
      input.name = "filter";
      input.value = filter;
      input.checked = filter === "all";
      input.addEventListener("change", () => this.tell(false));
      const number = make("span", "number");
      this.numbers.set(filter, number);
      this.inputs.set(filter, input);
      byId("filters").append(make("label", "", input, make("span", "", filter === "all" ? "All" : BADGES[filter], " ", number)));
    }
    const soon = throttled(TYPING_MS, () => this.tell(true));
    this.text.addEventListener("input", soon);
    byId("look").addEventListener("submit", (event) => {
      event.preventDefault();
      this.tell(false);
    });
    this.since.addEventListener("change", () => this.tell(false));
  }

  /** Show what the URL says. */
  show(view: View): void {
    // Who types goes on typing.
    if (this.text.value.trim() !== view.text) this.text.value = view.text;
    this.since.value = view.since;
    this.inputs.get(view.status)!.checked = true;
    const { problem } = askedOf(view, new Date());
    say(byId("search-problem"), problem);
    // The numbers are of the whole service.
    for (const number of this.numbers.values()) show(number, view.text.trim() === "" && view.since === "");
  }

  update(statistics: GetStatisticsResponse): void {
    for (const [filter, number] of this.numbers) say(number, countOf(statistics, filter as View["status"]).toLocaleString("en"));
  }

  private tell(typing: boolean): void {
    const status = FILTERS.find((filter) => this.inputs.get(filter)?.checked) ?? "all";
    this.chosen({ status, text: this.text.value.trim(), since: this.since.value }, typing);
  }
}
