/**
 * Server-sent events over `fetch`, which can say who calls where an EventSource cannot. To a watch it is one, but that it
 * never opens a connection again. Must not know what the events say.
 */

/** What a watch uses of an EventSource. */
export type EventStream = Pick<EventSource, "readyState" | "close"> & Pick<EventTarget, "addEventListener">;

const CONNECTING = 0;
const OPEN = 1;
const CLOSED = 2;

export class FetchedEvents extends EventTarget {
  /** Closed after an answer that is no stream; connecting after a break. */
  readyState = CONNECTING;
  private readonly left = new AbortController();

  constructor(url: string, fetched: typeof fetch) {
    super();
    void this.read(url, fetched).finally(() => {
      if (!this.left.signal.aborted) this.dispatchEvent(new Event("error"));
    });
  }

  close(): void {
    this.readyState = CLOSED;
    this.left.abort();
  }

  private async read(url: string, fetched: typeof fetch): Promise<void> {
    const { signal } = this.left;
    try {
      const headers = { accept: "text/event-stream" };
      const response = await fetched(url, { headers, cache: "no-store", signal });
      const isStream = response.headers.get("content-type")?.startsWith("text/event-stream");
      if (response.status !== 200 || !response.body || !isStream) {
        this.close();
        this.dispatchEvent(new Event("error"));
        return;
      }
      this.readyState = OPEN;
      for await (const [type, data] of eventsOf(response.body)) {
        if (signal.aborted) return;
        this.dispatchEvent(new MessageEvent(type, { data }));
      }
      this.readyState = CONNECTING;
    } catch {
      if (!signal.aborted) this.readyState = CONNECTING;
    }
  }
}

/** The type and the text of each event that comes whole. */
async function* eventsOf(body: ReadableStream<Uint8Array>): AsyncGenerator<[type: string, data: string]> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  let type = "message";
  let data: string[] = [];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) {
      const [, field, text = ""] = /^([^:\r]*)(?:: ?(.*?))?\r?$/.exec(line) ?? [];
      if (field === "data") data.push(text);
      else if (field === "event") type = text;
      else if (line === "" || line === "\r") {
        if (data.length > 0) yield [type, data.join("\n")];
        type = "message";
        data = [];
      }
    }
  }
}
