/** What the view lists as a file of its own: CSV or JSON lines. Must not know the list that is shown. */

import { toJson } from "@bufbuild/protobuf";
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { UploadError } from "../src/index.js";
import type { Api, UploadedFile } from "../src/index.js";
import { FileSchema } from "../src/gen/upload/v1/upload_pb.js";
import { byId, make, say, setAttribute } from "./dom.js";
import * as format from "./format.js";
import { requestOf } from "./requests.js";
import { passes } from "./view.js";
import type { Asked } from "./view.js";

type Format = "csv" | "jsonl";

const KINDS = { csv: "text/csv", jsonl: "application/x-ndjson" };
/** The service's bound. */
const PAGE = 1_000;

export class Export {
  private running: AbortController | undefined;

  constructor(
    private readonly api: Api,
    asked: () => Asked,
  ) {
    for (const kind of ["csv", "jsonl"] as const) {
      byId(`export-${kind}`).addEventListener("click", () => void this.begin(kind, asked()));
    }
    byId("export-stop").addEventListener("click", () => this.running?.abort());
  }

  private async begin(kind: Format, asked: Asked): Promise<void> {
    if (this.running) return;
    const running = (this.running = new AbortController());
    byId("export-stop").hidden = false;
    try {
      const blob = await this.collect(kind, asked, running.signal);
      save(blob, `uploads.${kind}`);
    } catch (error) {
      const words = running.signal.aborted ? "Export stopped." : `Nothing was exported. ${error instanceof UploadError ? error.message : ""}`;
      say(byId("export-note"), words);
    } finally {
      this.running = undefined;
      byId("export-stop").hidden = true;
    }
  }

  /** A blob of a page at a time: the browser may keep them on its disk. */
  private async collect(kind: Format, asked: Asked, signal: AbortSignal): Promise<Blob> {
    const parts: Blob[] = [];
    let [count, pageToken] = [0, ""];
    if (kind === "csv") parts.push(new Blob([`${COLUMNS.join(",")}\r\n`]));
    do {
      const answer = await this.api.listFiles({ ...requestOf(asked), pageSize: PAGE, pageToken }, { signal });
      const files = answer.files.filter((file) => passes(asked, file));
      parts.push(new Blob(files.map((file) => (kind === "csv" ? csvOf(file) : jsonOf(file)))));
      count += files.length;
      pageToken = answer.nextPageToken;
      say(byId("export-note"), `${format.count(count, "file")} ${pageToken ? "so far" : "exported"}`);
    } while (pageToken);
    return new Blob(parts, { type: KINDS[kind] });
  }
}

function save(blob: Blob, name: string): void {
  const link = make("a");
  link.href = URL.createObjectURL(blob);
  setAttribute(link, "download", name);
  link.click();
  // The browser has taken it by then.
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

const COLUMNS = FileSchema.fields.map(({ name }) => name);

function fieldsOf(file: UploadedFile): JsonObject {
  return toJson(FileSchema, file, { useProtoFieldName: true, alwaysEmitImplicit: true }) as JsonObject;
}

function jsonOf(file: UploadedFile): string {
  return `${JSON.stringify(fieldsOf(file))}\n`;
}

function csvOf(file: UploadedFile): string {
  const fields = fieldsOf(file);
  return `${COLUMNS.map((column) => cell(fields[column])).join(",")}\r\n`;
}

/** Quoted, and never a formula: names and reasons are strangers' texts. */
function cell(value: JsonValue | undefined): string {
  const text = value === undefined || value === null ? "" : String(value);
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return `"${safe.replaceAll('"', '""')}"`;
}
