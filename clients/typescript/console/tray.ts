/** What this page uploads, in a place of its own until it is dismissed. Must not know requests. */

import { byId, say, show } from "./dom.js";
import * as format from "./format.js";
import type { Model } from "./model.js";
import { isBatch, isOver } from "./row.js";
import type { BatchRow, FileRow } from "./row.js";
import type { Rows } from "./rows.js";
import { sentOf } from "./words.js";

export class Tray {
  private readonly dismiss = byId("tray-dismiss");

  constructor(
    private readonly model: Model,
    private readonly rows: Rows,
    dismissed: (row: FileRow | BatchRow) => void,
  ) {
    this.dismiss.addEventListener("click", () => {
      for (const row of model.own.filter(isOver)) dismissed(row);
    });
  }

  render(): void {
    const { own } = this.model;
    const over = own.filter(isOver).length;
    show(byId("tray"), own.length > 0);
    for (const row of own) if (isBatch(row) && !isOver(row)) row.pace.note(sentOf(row)?.done ?? 0);
    this.rows.show(byId("tray-list"), own);
    say(byId("tray-title"), over === own.length ? `My uploads: ${format.count(over, "is", "are")} over` : `My uploads: ${own.length - over} of ${own.length} under way`);
    show(this.dismiss, over > 1);
  }
}
