/** What the service is asked for by what a view asks for. Must not know what becomes of the answers. */

import { UploadStatus } from "../src/index.js";
import type { Api } from "../src/index.js";
import type { Asked, Filter } from "./view.js";

export type Request = NonNullable<Parameters<Api["listFiles"]>[0]>;

const STATUSES: Readonly<Record<Exclude<Filter, "all">, UploadStatus>> = {
  pending: UploadStatus.PENDING,
  uploading: UploadStatus.UPLOADING,
  completed: UploadStatus.COMPLETED,
  failed: UploadStatus.FAILED,
  cancelled: UploadStatus.CANCELLED,
};

export const NEWEST_FIRST = "created_at desc";

/** What the service is asked for when files are listed one by one. */
export function requestOf(asked: Asked): Request {
  return {
    ...timesOf(asked),
    orderBy: NEWEST_FIRST,
    statuses: asked.status === "all" ? [] : [STATUSES[asked.status]],
    filenamePrefix: asked.name,
    owner: asked.owner,
    cancelledBy: asked.by,
    batchId: asked.batch,
  };
}

export function timesOf({ after, before }: Asked) {
  return { ...(after && { createdAfter: timestamp(after) }), ...(before && { createdBefore: timestamp(before) }) };
}

function timestamp(date: Date) {
  const milliseconds = date.getTime();
  const seconds = Math.floor(milliseconds / 1000);
  return { seconds: BigInt(seconds), nanos: (milliseconds - 1000 * seconds) * 1_000_000 };
}
