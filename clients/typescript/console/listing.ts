/**
 * A list of the service, of which the page holds the newest: from the top down to where it has read.
 * Must not know what its rows are.
 */

export interface Row {
  createdAt: Date;
}

interface Page<R> {
  rows: R[];
  nextPageToken: string;
}

/** The most rows of one list that a page holds; what is older is left to the filters and to other tools. */
export const MOST_ROWS = 2_000;

export class Listing<R extends Row> {
  /** In the order of the service. */
  readonly rows: R[] = [];
  private nextPageToken: string | undefined = "";
  private reading: Promise<void> | undefined;

  constructor(
    private readonly read: (pageToken: string) => Promise<Page<R>>,
    /** Whether a row that changes belongs here. */
    private readonly wants: (row: R) => boolean,
  ) {}

  /** Whether the service has more rows than are held. */
  get more(): boolean {
    return this.nextPageToken !== undefined;
  }

  /** Whether more can be read: not beyond what a page can show. */
  get readable(): boolean {
    return this.more && this.rows.length < MOST_ROWS;
  }

  /** Down to which time every row is held. */
  get end(): number {
    if (!this.more) return -Infinity;
    return this.rows.at(-1)?.createdAt.getTime() ?? Infinity;
  }

  /** Read the next page; once at a time. */
  load(): Promise<void> {
    this.reading ??= this.loadPage().finally(() => (this.reading = undefined));
    return this.reading;
  }

  private async loadPage(): Promise<void> {
    if (!this.readable) return;
    const page = await this.read(this.nextPageToken ?? "");
    const held = new Set(this.rows);
    this.rows.push(...page.rows.filter((row) => !held.has(row)));
    this.nextPageToken = page.nextPageToken || undefined;
  }

  /** A row is new or has changed: put it where it belongs, if it belongs to what is held. */
  take(row: R): void {
    const at = this.rows.indexOf(row);
    if (this.wants(row)) {
      if (at < 0 && row.createdAt.getTime() >= this.end) this.insert(row);
    } else if (at >= 0) this.rows.splice(at, 1);
  }

  private insert(row: R): void {
    const time = row.createdAt.getTime();
    const at = this.rows.findIndex(({ createdAt }) => createdAt.getTime() <= time);
    this.rows.splice(at < 0 ? this.rows.length : at, 0, row);
    // The oldest go, so that a page that is open for a week holds no more than one of a minute.
    if (this.rows.length > MOST_ROWS) {
      this.rows.length = MOST_ROWS;
      // The next page lies before what has just gone; rows that are held are not taken twice.
      this.nextPageToken = "";
    }
  }
}
