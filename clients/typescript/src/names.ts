/** Which names can be sent, told before anything is announced: one bad name must not refuse a whole batch. */

import { UploadError } from "./errors.js";
import { quoted } from "./visible.js";

// Of a whole name, and of each of its segments.
const MAX_NAME_BYTES = 4096;
const MAX_SEGMENT_CHARACTERS = 255;
const MAX_TYPE_BYTES = 127;
// Unicode's Cc, and lone surrogates: they cannot be written in UTF-8.
const CONTROL = /\p{Cc}/u;
const LONE = /\p{Cs}/u;

/** What a file is called: its path in the folder that was chosen, or its name. */
export function nameOf(blob: Blob): string {
  const file = blob as Partial<File>;
  return file.webkitRelativePath || file.name || "unnamed";
}

/** The name as it is sent (NFC). Throws `INVALID_NAME`. */
export function checkedName(name: string): string {
  const normal = name.normalize("NFC");
  const shown = shorten(normal);
  const bytes = new TextEncoder().encode(normal).length;
  if (bytes === 0) throw invalid("A file without a name cannot be uploaded; give it a name.");
  if (bytes > MAX_NAME_BYTES) {
    throw invalid(`“${shown}” cannot be uploaded: its path takes ${bytes} bytes of at most 4096; give it a shorter path.`);
  }
  const longest = Math.max(...normal.split("/").map((part) => [...part].length));
  if (longest > MAX_SEGMENT_CHARACTERS) {
    const length = `${longest} characters of at most 255`;
    throw invalid(`“${shown}” cannot be uploaded: its name has ${length}; give it a shorter name.`);
  }
  if (CONTROL.test(normal) || LONE.test(normal)) {
    throw invalid(`“${shown}” cannot be uploaded: its name holds a character that cannot be shown; rename it.`);
  }
  if (normal.includes("\\")) throw invalid(`“${shown}” cannot be uploaded: its name holds a backslash; rename it.`);
  if (normal.split("/").some((part) => part === "" || part === "." || part === "..")) {
    throw invalid(`“${shown}” cannot be uploaded: between its slashes it needs names other than “.” and “..”; rename it.`);
  }
  return normal;
}

/** The media type as it is sent: browsers make some up; one that the service would refuse says nothing. */
export function checkedType(type: string): string {
  return /^[\x20-\x7e]*$/.test(type) && type.length <= MAX_TYPE_BYTES && type.includes("/") ? type : "";
}

function invalid(message: string): UploadError {
  return new UploadError("INVALID_NAME", message);
}

function shorten(name: string): string {
  const letters = [...name];
  return quoted(letters.length > 60 ? `${letters.slice(0, 57).join("")}…` : name);
}
