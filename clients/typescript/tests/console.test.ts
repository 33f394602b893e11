/** What the page at `/` decides without elements: the part of a list that it holds, its address, what a search means. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { samplesOf } from "../console/exposition.js";
import { Listing, MOST_ROWS, PAGE } from "../console/listing.js";
import { Model } from "../console/model.js";
import { askedOf, EVERYTHING, hashOf, idIn, passes, placeOf } from "../console/view.js";
import { Api, BatchStatus } from "../src/index.js";
import { BatchSchema } from "../src/gen/upload/v1/upload_pb.js";

interface Row {
  createdAt: Date;
  id: number;
}

/** Rows by time, the newest first, a page at a time after the row that the last one ended with; the order of ties is the id's. */
class Shelf {
  readonly rows: Row[] = [];

  add(id: number, time = id): Row {
    const row = { id, createdAt: new Date(time) };
    this.rows.push(row);
    this.rows.sort((a, b) => b.createdAt.getTime() - a.createdAt.getTime() || b.id - a.id);
    return row;
  }

  readonly read = (token: string): Promise<{ rows: Row[]; nextPageToken: string }> => {
    const isAfter = ({ createdAt, id }: Row): boolean => {
      const [time = 0, last = 0] = token.split(" ").map(Number);
      return createdAt.getTime() < time || (createdAt.getTime() === time && id < last);
    };
    const left = token === "" ? this.rows : this.rows.filter(isAfter);
    const rows = left.slice(0, PAGE);
    const last = rows.at(-1);
    return Promise.resolve({ rows, nextPageToken: left.length > PAGE && last ? `${last.createdAt.getTime()} ${last.id}` : "" });
  };
}

function ids(listing: Listing<Row>): number[] {
  return listing.rows.map(({ id }) => id);
}

/** From `first` down to `last`. */
function down(first: number, last: number): number[] {
  return Array.from({ length: first - last + 1 }, (_, index) => first - index);
}

test("a list is held in part, and nothing is left out on the way down and up, whatever comes in between", async () => {
  const shelf = new Shelf();
  for (let id = 1; id <= 1000; id++) shelf.add(id, id <= 500 ? 1 : id);
  const listing = new Listing<Row>(shelf.read, () => true);
  await listing.load();
  listing.take(shelf.add(1001));
  assert.deepEqual(ids(listing), down(1001, 941));
  while (listing.more) {
    await listing.load();
    assert.ok(listing.rows.length <= MOST_ROWS + 1);
  }
  assert.equal(listing.rows.at(-1)!.id, 1);
  assert.ok(listing.cut);
  // The page shows the part that it holds: what is new above it waits there.
  for (let id = 1002; id <= 1200; id++) listing.take(shelf.add(id));
  assert.ok(listing.rows[0]!.id < 400);
  while (listing.cut) {
    const [before] = ids(listing);
    await listing.loadBack();
    const now = ids(listing);
    assert.deepEqual(now, down(now[0]!, now.at(-1)!));
    assert.ok(now[0]! > before!);
  }
  assert.equal(listing.rows[0]!.id, 1200);
  assert.ok(listing.more);
});

test("however many came in above what is held, the way up reads no more than the bound, and goes on below", async () => {
  const shelf = new Shelf();
  for (let id = 1; id <= 1000; id++) shelf.add(id);
  let pages = 0;
  const read = (token: string) => (pages++, shelf.read(token));
  const listing = new Listing<Row>(read, () => true);
  while (listing.more) await listing.load();
  for (let id = 1001; id <= 5000; id++) listing.take(shelf.add(id));
  while (listing.cut) {
    pages = 0;
    await listing.loadBack();
    assert.ok(pages * PAGE <= MOST_ROWS && listing.rows.length <= MOST_ROWS, `${pages} pages, ${listing.rows.length} rows`);
  }
  assert.deepEqual(ids(listing), down(5000, 5001 - MOST_ROWS));
  const passed = new Set(ids(listing));
  while (listing.more) {
    await listing.load();
    for (const id of ids(listing)) passed.add(id);
  }
  assert.equal(passed.size, 5000);
});

test("what was looked through belongs to a list down to where that was, whether something was found or not", async () => {
  const listing = new Listing<Row>(() => Promise.resolve({ rows: [], nextPageToken: "x", back: new Date(5) }), () => true);
  await listing.load();
  for (const id of [7, 3]) listing.take({ id, createdAt: new Date(id) });
  assert.deepEqual(ids(listing), [7]);
});

test("a list that grows for a week holds no more than its bound, and reads on below", async () => {
  const shelf = new Shelf();
  const listing = new Listing<Row>(shelf.read, () => true);
  await listing.load();
  for (let id = 1; id <= 800; id++) {
    listing.take(shelf.add(id));
    assert.ok(listing.rows.length <= MOST_ROWS);
  }
  while (listing.rows.at(-1)!.id > 300) await listing.load();
  assert.deepEqual(ids(listing), down(listing.rows[0]!.id, listing.rows.at(-1)!.id));
});

test("a batch's status is news once, whether a list or the watch tells of it first", () => {
  const at = (revision: bigint, status: BatchStatus, completedFiles = 0) =>
    create(BatchSchema, { batchId: "b", totalFiles: 2, revision, status, completedFiles });
  const pending = at(1n, BatchStatus.PENDING);
  const changes = [at(2n, BatchStatus.PROCESSING), at(3n, BatchStatus.PROCESSING, 1), at(4n, BatchStatus.COMPLETED, 2)];
  const told = (model: Model): boolean[] => changes.map((batch) => model.takeBatch(batch).isNews);
  const modelOf = (...listed: typeof changes): Model => {
    const model = new Model(new Api({ baseUrl: "http://localhost" }), () => undefined, () => {});
    for (const batch of listed) model.holdBatch(batch);
    return model;
  };
  assert.deepEqual(told(modelOf()), [true, false, true], "no list has it");
  assert.deepEqual(told(modelOf(pending)), [true, false, true], "a list has told that it waits");
  assert.deepEqual(told(modelOf(changes[0]!)), [true, false, true], "a list has told the change before");
  assert.deepEqual(told(modelOf(changes[2]!)), [false, false, true], "a list is far ahead");
  changes.shift();
  assert.deepEqual(told(modelOf(pending)), [true, true], "two changes were told as one");
});

test("an address says what is shown, and is read back so", () => {
  const view = { status: "cancelled", text: 'a/ü "x" owner:ada&b', since: "7d" } as const;
  for (const opened of [undefined, { kind: "files", id: "a/b?c" }, { kind: "batches", id: "ü" }] as const) {
    assert.deepEqual(placeOf(hashOf({ view, opened })), { view, opened });
  }
  assert.deepEqual(placeOf(""), { view: EVERYTHING, opened: undefined });
  assert.deepEqual(placeOf("#/?status=none&since=toString"), { view: EVERYTHING, opened: undefined });
  assert.deepEqual(placeOf("#/files/%ff")?.opened, { kind: "files", id: "%ff" });
  assert.equal(placeOf("#list"), undefined, "an element's");
});

test("what is typed is a name's beginning and words", () => {
  const asked = (text: string, since = "") => askedOf({ status: "all", text, since }, new Date("2026-02-03T00:00:00Z"));
  assert.equal(asked("  photos of May/IMG 0 ").name, "photos of May/IMG 0");
  const all = asked('a.pdf owner:"Ada L" by:bob after:2026-01-31T00:00:00Z', "1d");
  assert.deepEqual([all.name, all.owner, all.by, all.status], ["a.pdf", "Ada L", "user:bob", "cancelled"]);
  assert.deepEqual(all.after, new Date("2026-01-31T00:00:00Z"));
  assert.deepEqual(["user", "batch_cancel", "user:x"].map((by) => asked(`by:${by}`).by), ["user", "batch_cancel", "user:x"]);
  assert.deepEqual(asked("", "1d").after, new Date("2026-02-02T00:00:00Z"));
  assert.match(asked("before:never").problem, /before:never is not a time/);
  assert.equal(asked("known by: heart").name, "known heart");
  const why = asked('a reason:"NO room" id:0867E8');
  assert.deepEqual([why.name, why.status, why.reason, why.id], ["a", "cancelled", "NO room", "0867e8"]);
  const file = { fileId: "0867e8d5", cancelReason: "There is no room left" };
  assert.deepEqual([file, { ...file, fileId: "1867e8d5" }, { ...file, cancelReason: "" }].map((row) => passes(why, row)), [true, false, false]);
  assert.equal(idIn(" 0867E8D5-6751-4AF0-8b1e-3f0000000000 "), "0867e8d5-6751-4af0-8b1e-3f0000000000");
});

test("samples of an exposition are read with their labels", () => {
  const text = '# HELP a b\na{x="1",y="q\\"}"} 2\na 3e2\nb 1\naa 5\n';
  assert.deepEqual(samplesOf(text, new Set(["a"])).get("a"), [
    { labels: { x: "1", y: 'q\\"}' }, value: 2 },
    { labels: {}, value: 300 },
  ]);
});
