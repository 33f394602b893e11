/** What was dropped or chosen, as files with the paths they have in their folders. */

import type { BatchFile } from "../src/index.js";

/** Everything in a drop, folders included. The items have to be taken before the first await: they are gone after it. */
export async function filesOfDrop(transfer: DataTransfer): Promise<BatchFile[]> {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.() ?? undefined);
  if (entries.every((entry) => entry === undefined)) return filesOfInput(transfer.files);
  const found: BatchFile[] = [];
  for (const entry of entries) if (entry) await walk(entry, found);
  return byName(found);
}

/** Everything chosen in an input. */
export function filesOfInput(files: FileList): BatchFile[] {
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
