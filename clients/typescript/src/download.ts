/** A completed file's bytes, over as many connections as it takes. Must not know what the caller does with them. */

import type { Api } from "./api.js";
import { mayPass, waitOf } from "./api.js";
import { noAnswer, UploadError } from "./errors.js";
import { backoff } from "./pause.js";

export interface DownloadOptions {
  /** The first byte that is wanted. */
  offset?: number;
  /** How many bytes are wanted; all from `offset` on if left out. */
  length?: number;
  signal?: AbortSignal;
}

/** Tries in a row that bring nothing. */
const TRIES = 8;

/** Yield the bytes; a connection that breaks is opened again where it broke, and only for the same bytes. */
export async function* download(
  api: Api,
  fileId: string,
  { offset = 0, length, signal }: DownloadOptions = {},
): AsyncGenerator<Uint8Array, void, undefined> {
  let at = offset;
  let end = length === undefined ? undefined : offset + length;
  let etag: string | undefined;
  for (let failed = 0; end === undefined || at < end; ) {
    try {
      const response = await api.getContent(fileId, { at, end, etag, signal });
      etag ??= response.headers.get("etag") ?? undefined;
      const announced = response.headers.get("content-length");
      // A file may be shorter than what was asked for.
      if (announced !== null) end = at + Number(announced);
      const reader = response.body?.getReader();
      if (!reader) {
        // React Native's `fetch` has no streams.
        const whole = new Uint8Array(await response.arrayBuffer());
        if (whole.length > 0) yield whole;
        return;
      }
      try {
        for (;;) {
          const { done, value } = await reader.read();
          if (done) return;
          at += value.length;
          failed = 0;
          yield value;
        }
      } finally {
        reader.cancel().catch(() => {});
      }
    } catch (error) {
      if (signal?.aborted) throw signal.reason;
      const told = error instanceof UploadError ? error : noAnswer(fileId, error);
      if (++failed >= TRIES || !mayPass(told)) throw told;
      await api.sleep(waitOf(told) ?? backoff(failed));
    }
  }
}
