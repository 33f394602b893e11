/** What is dropped or chosen, as files with the paths they have in their folders. Must not know what becomes of them. */

import type { BatchFile } from "../src/index.js";
import { byId } from "./dom.js";
import { notice } from "./notices.js";

/** Give what people choose and drop from now on. */
export function takeFiles(take: (files: BatchFile[]) => void): void {
  takeChosen(take);
  takeDropped(take);
}

function takeChosen(take: (files: BatchFile[]) => void): void {
  for (const id of ["files", "folder"]) {
    const input = byId<HTMLInputElement>(id);
    input.addEventListener("change", () => {
      if (input.files) take(filesOfInput(input.files));
      input.value = "";
    });
  }
}

function takeDropped(take: (files: BatchFile[]) => void): void {
  const zone = byId("drop");
  const over = (shown: boolean) => (event: DragEvent) => {
    event.preventDefault();
    zone.classList.toggle("over", shown);
  };
  addEventListener("dragover", over(true));
  addEventListener("dragleave", over(false));
  addEventListener("drop", (event) => {
    over(false)(event);
    if (!event.dataTransfer) return;
    filesOfDrop(event.dataTransfer).then(
      take,
      () => notice("upload", "What was dropped could not be read; check that it is still there, and drop it again."),
    );
  });
}

/** Everything in a drop, folders included. The items have to be taken before the first await: they are gone after it. */
async function filesOfDrop(transfer: DataTransfer): Promise<BatchFile[]> {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.() ?? undefined);
  if (entries.every((entry) => entry === undefined)) return filesOfInput(transfer.files);
  const found: BatchFile[] = [];
  for (const entry of entries) if (entry) await walk(entry, found);
  return byName(found);
}

/** Everything chosen in an input. */
function filesOfInput(files: FileList): BatchFile[] {
  return byName([...files].map((blob) => ({ blob, filename: blob.webkitRelativePath || blob.name })));
}

/** Folders are read in no order that people would know. */
function byName(files: BatchFile[]): BatchFile[] {
  const names = new Intl.Collator(undefined, { numeric: true });
  return files.sort((a, b) => names.compare(a.filename ?? "", b.filename ?? ""));
}

async function walk(entry: FileSystemEntry, found: BatchFile[]): Promise<void> {
  if (entry.isFile) {
    const blob = await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject));
    found.push({ blob, filename: entry.fullPath.replace(/^\//, "") });
    return;
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  // A reader gives some hundred entries at a time, and an empty answer at the end.
  for (;;) {
    const some = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (some.length === 0) return;
    for (const child of some) await walk(child, found);
  }
}
