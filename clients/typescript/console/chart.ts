/** Uploads and cancels over time, as the service counts them: bars, words, and the same as a table. */

import { dateOf } from "../src/index.js";
import type { GetStatisticsResponse } from "../src/index.js";
import { byId, make, say, svg } from "./dom.js";
import * as format from "./format.js";

const [WIDTH, HEIGHT, BASE, LEFT] = [360, 150, 128, 40];

interface Bucket {
  from: number;
  begun: number;
  cancelled: number;
  late: number;
}

/** Draw what the service counts of the last `seconds`. */
export function renderChart(statistics: GetStatisticsResponse, seconds: number): void {
  const buckets = statistics.buckets.map((bucket) => ({
    from: dateOf(bucket.startAt)?.getTime() ?? 0,
    begun: Number(bucket.begun),
    cancelled: Number(bucket.cancelled),
    late: Number(bucket.cancelsTooLate),
  }));
  if (buckets.length === 0) return;
  byId("chart").replaceChildren(draw(buckets, seconds));
  const { begun, cancelled, late } = sum(buckets);
  const counted = `${format.number(begun)} begun, ${format.number(cancelled)} cancelled.`;
  say(byId("share"), `${counted} ${lateSentence(late, dateOf(statistics.countedSince), buckets[0]!.from)}`);
  if (byId("chart-table").closest("details")?.open) byId("chart-table").replaceChildren(table(buckets, seconds));
}

/** Refused cancels are kept nowhere: the server counts them since its start. */
function lateSentence(late: number, since: Date | undefined, from: number): string {
  const came = late === 1 ? "1 cancel came" : `${late === 0 ? "No" : format.number(late)} cancels came`;
  if (!since || since.getTime() <= from) return `${came} too late.`;
  return `${came} too late since ${format.when(since)}, when the server started; before that it is not known.`;
}

function sum(buckets: readonly Bucket[]): { begun: number; cancelled: number; late: number } {
  const total = { begun: 0, cancelled: 0, late: 0 };
  for (const { begun, cancelled, late } of buckets) {
    total.begun += begun;
    total.cancelled += cancelled;
    total.late += late;
  }
  return total;
}

function draw(buckets: readonly Bucket[], seconds: number): SVGElement {
  const { begun, cancelled, late } = sum(buckets);
  const label = `The last ${words(seconds)}: ${begun} uploads begun, ${cancelled} cancelled, ${late} cancels too late`;
  const root = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label });
  const most = Math.max(4, ...buckets.map((bucket) => Math.max(bucket.begun, bucket.cancelled + bucket.late)));
  const top = niceTop(most);
  const y = (value: number): number => BASE - (value / top) * (BASE - 10);
  for (const value of [0, top / 2, top]) {
    root.append(svg("line", { class: "grid", x1: LEFT, x2: WIDTH, y1: y(value), y2: y(value) }));
    const text = svg("text", { class: "tick", x: LEFT - 5, y: y(value) + 3.5, "text-anchor": "end" });
    text.textContent = format.short(value);
    root.append(text);
  }
  const step = (WIDTH - LEFT) / buckets.length;
  buckets.forEach((bucket, index) => {
    const x = LEFT + index * step;
    const bar = (name: string, from: number, value: number, shift: number): void => {
      if (value === 0) return;
      const height = y(from) - y(from + value);
      root.append(svg("rect", { class: name, x: x + shift, y: y(from + value), width: step / 2 - 1, height, rx: 1 }));
    };
    bar("begun", 0, bucket.begun, 0.5);
    bar("cancelled", 0, bucket.cancelled, step / 2);
    bar("late", bucket.cancelled, bucket.late, step / 2);
    // Whoever points at a step of time is told its values.
    const hover = svg("rect", { class: "hover", x, y: 0, width: step, height: BASE });
    const title = svg("title", {});
    title.textContent = `From ${clock(bucket.from)}: ${bucket.begun} begun, ${bucket.cancelled} cancelled, ${bucket.late} too late`;
    hover.append(title);
    root.append(hover);
  });
  const middle = Math.floor(buckets.length / 2);
  const times: [number, string, string][] = [
    [LEFT, clock(buckets[0]!.from), "start"],
    [LEFT + middle * step, clock(buckets[middle]!.from), "middle"],
    [WIDTH, "now", "end"],
  ];
  for (const [x, words, anchor] of times) {
    const text = svg("text", { class: "tick", x, y: HEIGHT - 6, "text-anchor": anchor });
    text.textContent = words;
    root.append(text);
  }
  return root;
}

/** The next of 4, 6, 8, 10, 20, 40, …: halves are whole. */
function niceTop(most: number): number {
  for (let ten = 1; ; ten *= 10) for (const step of [2, 4, 6, 8, 10]) if (step * ten >= most) return step * ten;
}

function words(seconds: number): string {
  return seconds < 3600 ? `${seconds / 60} minutes` : seconds < 86_400 ? "hour" : "day";
}

function clock(time: number): string {
  return new Date(time).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", hour12: false });
}

function table(buckets: readonly Bucket[], seconds: number): HTMLElement {
  const head = make("tr", "", ...["From", "Begun", "Cancelled", "Too late"].map((name) => column(name)));
  const rows = buckets
    .filter(({ begun, cancelled, late }) => begun + cancelled + late > 0)
    .reverse()
    .map(({ from, begun, cancelled, late }) =>
      make("tr", "", ...[clock(from), begun, cancelled, late].map((cell) => make("td", "", String(cell)))),
    );
  if (rows.length === 0) return make("p", "soft", `Nothing in the last ${words(seconds)}.`);
  return make("table", "", make("thead", "", head), make("tbody", "", ...rows));
}

function column(name: string): HTMLElement {
  const cell = make("th", "", name);
  cell.scope = "col";
  return cell;
}
