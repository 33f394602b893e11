/**
 * A list of the service, of which the page holds a part: pages one below the other, the newest rows first, read on at
 * both ends. Must not know what its rows are. Bounded: where one end grows, the other is let go and can be read again.
 */

export interface Row {
  createdAt: Date;
}

interface Answer<R> {
  rows: R[];
  nextPageToken: string;
  /** Down to when was looked, where that is further than the rows go. */
  back?: Date | undefined;
}

interface Page<R> {
  /** What it is read by. */
  token: string;
  rows: R[];
  back?: Date | undefined;
}

/** So many rows are read at a time. */
export const PAGE = 60;
/** The most rows of one list that a page holds. */
export const MOST_ROWS = 5 * PAGE;

export class Listing<R extends Row> {
  private pages: Page<R>[] = [];
  /** The tokens of pages above those that are held. */
  private above: string[] = [];
  private next: string | undefined = "";
  private flat: readonly R[] | undefined = [];
  private reading: Promise<void> | undefined;

  constructor(
    private readonly read: (pageToken: string) => Promise<Answer<R>>,
    /** Whether a row that changes belongs here. */
    private readonly wants: (row: R) => boolean,
    private readonly most = MOST_ROWS,
  ) {}

  /** In the order of the service. */
  get rows(): readonly R[] {
    return (this.flat ??= this.pages.flatMap(({ rows }) => rows));
  }

  /** Whether the service has more rows below those that are held. */
  get more(): boolean {
    return this.next !== undefined;
  }

  /** Whether rows above those that are held were let go. */
  get cut(): boolean {
    return this.above.length > 0;
  }

  /** From which time on every row is held, the newest first … */
  get start(): number {
    return this.cut ? (this.rows[0]?.createdAt.getTime() ?? -Infinity) : Infinity;
  }

  /** … and down to which time. */
  get end(): number {
    if (!this.more) return -Infinity;
    return (this.pages.at(-1)?.back ?? this.rows.at(-1)?.createdAt)?.getTime() ?? Infinity;
  }

  /** Read on downwards; once at a time. */
  load(): Promise<void> {
    return this.once(() => this.loadBelow());
  }

  /** Read again what was let go above; once at a time. */
  loadBack(): Promise<void> {
    return this.once(() => this.loadAbove());
  }

  private once(load: () => Promise<void>): Promise<void> {
    this.reading ??= load().finally(() => (this.reading = undefined));
    return this.reading;
  }

  private async loadBelow(): Promise<void> {
    const token = this.next;
    if (token === undefined) return;
    const answer = await this.read(token);
    const rows = this.unheld(answer.rows);
    const last = this.pages.at(-1);
    // After the newest were cut short: the rest of the first page.
    if (token === "" && last) {
      last.rows.push(...rows);
      last.back = answer.back;
    } else this.pages.push({ token, rows, back: answer.back });
    this.next = answer.nextPageToken || undefined;
    this.flat = undefined;
    while (this.rows.length > this.most && this.pages.length > 1) this.letGo(this.pages.shift()!, "above");
  }

  /** Down to what is held: since it was let go, rows may have come in between. */
  private async loadAbove(): Promise<void> {
    const first = this.above.at(-1);
    if (first === undefined) return;
    const read: Page<R>[] = [];
    const top = this.rows[0];
    for (let token = first; ; ) {
      const { rows, nextPageToken, back } = await this.read(token);
      const met = rows.some((row) => this.rows.includes(row)) || (top && rows.some((row) => row.createdAt < top.createdAt));
      const known = new Set(read.flatMap((page) => page.rows));
      read.push({ token, back, rows: this.unheld(rows).filter((row) => !known.has(row) && !(top && row.createdAt < top.createdAt)) });
      if (met || !nextPageToken || nextPageToken === this.pages[0]?.token) break;
      if (read.length * PAGE >= this.most) {
        // Too many have come in between: what is held below is read again from here.
        this.above.pop();
        this.pages = read;
        this.next = nextPageToken;
        this.flat = undefined;
        return;
      }
      token = nextPageToken;
    }
    this.above.pop();
    this.pages.unshift(...read);
    this.flat = undefined;
    while (this.rows.length > this.most && this.pages.length > read.length + 1) this.letGo(this.pages.pop()!, "below");
  }

  private unheld(rows: readonly R[]): R[] {
    const held = new Set(this.rows);
    return rows.filter((row) => !held.has(row));
  }

  private letGo({ token }: Page<R>, where: "above" | "below"): void {
    if (where === "above") this.above.push(token);
    else this.next = token;
    this.flat = undefined;
  }

  /** A row is new or has changed: put it where it belongs, if it belongs to what is held. */
  take(row: R): void {
    const page = this.pages.find(({ rows }) => rows.includes(row));
    if (page && this.wants(row)) return;
    if (page) page.rows.splice(page.rows.indexOf(row), 1);
    else if (this.wants(row) && row.createdAt.getTime() >= this.end && row.createdAt.getTime() <= this.start) this.insert(row);
    else return;
    this.flat = undefined;
  }

  private insert(row: R): void {
    const isBelow = ({ createdAt }: R): boolean => createdAt <= row.createdAt;
    let page = this.pages.find(({ rows }) => rows.some(isBelow)) ?? this.pages.at(-1);
    if (!page) this.pages.push((page = { token: "", rows: [] }));
    const at = page.rows.findIndex(isBelow);
    page.rows.splice(at < 0 ? page.rows.length : at, 0, row);
    this.flat = undefined;
    // The oldest go, so that a page that is open for a week holds no more than one of a minute.
    while (this.rows.length > this.most && this.pages.length > 1) this.letGo(this.pages.pop()!, "below");
    if (page.rows.length > this.most && this.pages.length === 1 && !this.cut) {
      page.rows.length = PAGE;
      page.back = undefined;
      this.next = "";
      this.flat = undefined;
    }
  }

  /** One row stands for another of the same thing. */
  replace(old: R, row: R): void {
    for (const { rows } of this.pages) if (rows.includes(old)) rows[rows.indexOf(old)] = row;
    this.flat = undefined;
  }
}
