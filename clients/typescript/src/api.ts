/**
 * The unary calls over HTTP: messages in, messages or errors out.
 * Must not know retries of its callers' meaning: it repeats only what failed without an answer and is safe to repeat.
 */

import { create, fromJson, toJson } from "@bufbuild/protobuf";
import type { DescMessage, JsonObject, JsonValue, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { errorOfStatus, noAnswer, ServiceError, UploadError } from "./errors.js";
import {
  BatchSchema,
  CancelBatchRequestSchema,
  CancelBatchResponseSchema,
  CancelFileRequestSchema,
  CancelFileResponseSchema,
  DeleteContentRequestSchema,
  FileSchema,
  GetCallerResponseSchema,
  GetStatisticsRequestSchema,
  GetStatisticsResponseSchema,
  InitiateBatchRequestSchema,
  InitiateBatchResponseSchema,
  InitiateUploadRequestSchema,
  InitiateUploadResponseSchema,
  ListAuditEventsRequestSchema,
  ListAuditEventsResponseSchema,
  ListBatchesRequestSchema,
  ListBatchesResponseSchema,
  ListFilesRequestSchema,
  ListFilesResponseSchema,
  PutFileRequestSchema,
} from "./gen/upload/v1/upload_pb.js";
import { backoff, plainSleep } from "./pause.js";
import type { Sleep } from "./pause.js";
import { fetchAs } from "./token.js";
import type { TokenSource } from "./token.js";

export interface ApiOptions {
  /** Where the service's HTTP port is; the page's own origin if left out. */
  baseUrl?: string | URL;
  /** Another `fetch`, for example one that adds a header. */
  fetch?: typeof fetch;
  /**
   * Gives the token that says who calls; sent over https, or to this machine only. Asked once, and again when the service
   * refuses what it gave: the call is then repeated once.
   */
  token?: TokenSource | undefined;
  sleep?: Sleep;
  /** Gives the W3C `traceparent` of a call, or of a cancel with all its calls: `newTraceparent`, or your own tracing's. */
  traceparent?: () => string;
}

export interface CallOptions {
  signal?: AbortSignal | undefined;
  /** Milliseconds that an answer may take. */
  timeoutMs?: number;
  /** How often to repeat a call that had no answer or a passing failure. */
  retries?: number;
  /** Of several calls that are one action; else each call has its own, if any. */
  traceparent?: string | undefined;
}

const TIMEOUT_MS = 30_000;
/** A call that has had no answer for so long may wait for a connection: browsers allow six a host. */
const SLOW_MS = 1_000;

/** The service's unary calls. */
export class Api {
  readonly baseUrl: string;
  /** Says who calls, where there is a token. */
  readonly fetch: typeof fetch;
  /** Whether a token says who calls, so that what is refused for one may do better with the next. */
  readonly hasToken: boolean;
  readonly sleep: Sleep;
  readonly traceparent: () => string | undefined;
  /** Are told of each call that has had no answer for a second. */
  readonly slowCalls = new Set<(call: Promise<unknown>) => void>();

  constructor(options: ApiOptions = {}) {
    const page = typeof location === "undefined" ? undefined : location.href;
    this.baseUrl = new URL(options.baseUrl ?? "/", page).href.replace(/\/$/, "");
    const plain = options.fetch ?? globalThis.fetch.bind(globalThis);
    this.hasToken = options.token !== undefined;
    this.fetch = options.token ? fetchAs(options.token, this.baseUrl, plain) : plain;
    this.sleep = options.sleep ?? plainSleep;
    this.traceparent = options.traceparent ?? (() => undefined);
  }

  /** Announce a file. Give a `requestId` to make a repetition safe. */
  initiateUpload(request: MessageInitShape<typeof InitiateUploadRequestSchema>, options?: CallOptions) {
    const body = bodyOf(InitiateUploadRequestSchema, request);
    return this.post("/api/v1/upload/initiate", body, InitiateUploadResponseSchema, options);
  }

  /** Announce 1 to 10,000 files that belong together. */
  initiateBatch(request: MessageInitShape<typeof InitiateBatchRequestSchema>, options?: CallOptions) {
    const body = bodyOf(InitiateBatchRequestSchema, request);
    return this.post("/api/v1/batch/initiate", body, InitiateBatchResponseSchema, options);
  }

  /** Announce and send a file of at most 256 KiB, all at once. Give a `requestId` to make a repetition safe. */
  putFile(request: MessageInitShape<typeof PutFileRequestSchema>, options?: CallOptions) {
    return this.post("/api/v1/upload/put", bodyOf(PutFileRequestSchema, request), FileSchema, options);
  }

  /** Where the bytes of a completed file are, for a link. */
  contentUrl(fileId: string): string {
    return `${this.baseUrl}/api/v1/files/${encodeURIComponent(fileId)}/content`;
  }

  /** Ask once for the bytes from `at` on, up to before `end`; with `etag` for those bytes only. */
  async getContent(
    fileId: string,
    { at, end, etag, signal }: { at: number; end: number | undefined; etag: string | undefined; signal: AbortSignal | undefined },
  ): Promise<Response> {
    const headers: Record<string, string> = {};
    if (at > 0 || end !== undefined) headers["range"] = `bytes=${at}-${end === undefined ? "" : end - 1}`;
    if (etag !== undefined) headers["if-match"] = etag;
    const url = this.contentUrl(fileId);
    let response: Response;
    try {
      response = await this.fetch(url, { headers, cache: "no-store", ...(signal && { signal }) });
    } catch (error) {
      if (signal?.aborted) throw signal.reason;
      throw error instanceof UploadError ? error : noAnswer(url, error);
    }
    if (response.ok) return response;
    throw errorOfStatus(parsed(await response.text()), response.status);
  }

  /** Let go of a completed file's bytes, once and for all. Give a `requestId` to make a repetition safe. */
  deleteContent(request: MessageInitShape<typeof DeleteContentRequestSchema> & { fileId: string }, options?: CallOptions) {
    const { file_id: _, ...query } = bodyOf(DeleteContentRequestSchema, request);
    const path = withQuery(`/api/v1/files/${encodeURIComponent(request.fileId)}/content`, query);
    return this.call(path, { method: "DELETE" }, FileSchema, options);
  }

  /** One file. */
  getFile(fileId: string, options?: CallOptions) {
    return this.get(`/api/v1/files/${encodeURIComponent(fileId)}`, {}, FileSchema, options);
  }

  /** One page of files, the oldest first or `{ orderBy: "created_at desc" }`. */
  listFiles(request: MessageInitShape<typeof ListFilesRequestSchema> = {}, options?: CallOptions) {
    return this.get("/api/v1/files", bodyOf(ListFilesRequestSchema, request), ListFilesResponseSchema, options);
  }

  /** One batch. */
  getBatch(batchId: string, options?: CallOptions) {
    return this.get(`/api/v1/batch/${encodeURIComponent(batchId)}`, {}, BatchSchema, options);
  }

  /** One page of batches, the oldest first or `{ orderBy: "created_at desc" }`. */
  listBatches(request: MessageInitShape<typeof ListBatchesRequestSchema> = {}, options?: CallOptions) {
    return this.get("/api/v1/batches", bodyOf(ListBatchesRequestSchema, request), ListBatchesResponseSchema, options);
  }

  /**
   * What there is in the whole service, by state, and what happened in each step of the last `windowSeconds`, a whole
   * multiple of `stepSeconds`, itself a whole multiple of 10. A watch with its `resumeToken` goes on from there.
   */
  getStatistics(last: { windowSeconds?: number; stepSeconds?: number } = {}, options?: CallOptions) {
    const { windowSeconds, stepSeconds } = last;
    const query = bodyOf(GetStatisticsRequestSchema, {
      ...(windowSeconds && { window: { seconds: BigInt(windowSeconds) } }),
      ...(stepSeconds && { step: { seconds: BigInt(stepSeconds) } }),
    });
    return this.get("/api/v1/statistics", query, GetStatisticsResponseSchema, options);
  }

  /** Who calls, as the server knows it, and what that caller may. */
  getCaller(options?: CallOptions) {
    return this.get("/api/v1/me", {}, GetCallerResponseSchema, options);
  }

  /** One page of the audit trail, the oldest first or `{ orderBy: "event_id desc" }`. */
  listAuditEvents(request: MessageInitShape<typeof ListAuditEventsRequestSchema> = {}, options?: CallOptions) {
    const query = bodyOf(ListAuditEventsRequestSchema, request);
    return this.get("/api/v1/audit/events", query, ListAuditEventsResponseSchema, options);
  }

  /** Ask once for a cancel. `UploadClient.cancel` is the one that makes sure. */
  cancelFile(request: MessageInitShape<typeof CancelFileRequestSchema> & { fileId: string }, options?: CallOptions) {
    const { file_id: _, ...body } = bodyOf(CancelFileRequestSchema, request);
    const path = `/api/v1/upload/cancel/${encodeURIComponent(request.fileId)}`;
    return this.post(path, body, CancelFileResponseSchema, options);
  }

  /** Ask once for a cancel of a batch. `UploadClient.cancelBatch` is the one that makes sure. */
  cancelBatch(request: MessageInitShape<typeof CancelBatchRequestSchema> & { batchId: string }, options?: CallOptions) {
    const { batch_id: _, ...body } = bodyOf(CancelBatchRequestSchema, request);
    const path = `/api/v1/batch/cancel/${encodeURIComponent(request.batchId)}`;
    return this.post(path, body, CancelBatchResponseSchema, options);
  }

  /** A ticket that opens one WebSocket of a file, soon and from this page's origin: a socket can send no token. */
  async createTicket(fileId: string, options: CallOptions = {}): Promise<string> {
    const headers = { "content-type": "application/json" };
    const init = { method: "POST", headers, body: JSON.stringify({ file_id: fileId }) };
    const answer = (await this.once("/api/v1/tickets", init, options)) as { ticket?: string } | null;
    return answer?.ticket ?? "";
  }

  private get<O extends DescMessage>(path: string, query: JsonObject, answer: O, options?: CallOptions) {
    return this.call(withQuery(path, query), {}, answer, { retries: 2, ...options });
  }

  private post<O extends DescMessage>(path: string, body: JsonObject, answer: O, options?: CallOptions) {
    const headers = { "content-type": "application/json" };
    return this.call(path, { method: "POST", headers, body: JSON.stringify(body) }, answer, options);
  }

  private call<O extends DescMessage>(path: string, init: RequestInit, answer: O, options?: CallOptions) {
    const traceparent = options?.traceparent ?? this.traceparent();
    const headers = { ...init.headers, ...(traceparent && { traceparent }) };
    const call = this.repeated(path, { ...init, headers }, answer, options);
    const timer = setTimeout(() => this.slowCalls.forEach((tell) => tell(call)), SLOW_MS);
    const over = (): void => clearTimeout(timer);
    call.then(over, over);
    return call;
  }

  private async repeated<O extends DescMessage>(
    path: string,
    init: RequestInit,
    answer: O,
    options: CallOptions = {},
  ): Promise<MessageShape<O>> {
    for (let attempt = 0; ; attempt++) {
      try {
        return fromJson(answer, await this.once(path, init, options), { ignoreUnknownFields: true });
      } catch (error) {
        if (attempt >= (options.retries ?? 0) || !mayPass(error) || options.signal?.aborted) throw error;
        await this.sleep(Math.min(waitOf(error) ?? backoff(attempt), 30_000));
      }
    }
  }

  private async once(path: string, init: RequestInit, options: CallOptions): Promise<JsonValue> {
    const url = this.baseUrl + path;
    const clock = AbortSignal.timeout(options.timeoutMs ?? TIMEOUT_MS);
    const signal = options.signal ? AbortSignal.any([clock, options.signal]) : clock;
    let response: Response;
    let text: string;
    try {
      response = await this.fetch(url, { ...init, signal, cache: "no-store" });
      text = await response.text();
    } catch (error) {
      if (options.signal?.aborted) throw options.signal.reason;
      if (error instanceof UploadError) throw error;
      throw noAnswer(url, error);
    }
    const body = parsed(text);
    if (!response.ok) throw errorOfStatus(body, response.status);
    if (body === undefined) throw errorOfStatus(undefined, 404);
    return body;
  }
}

/** How many milliseconds the service asks to wait, if it does. */
export function waitOf(error: unknown): number | undefined {
  return error instanceof ServiceError ? error.retryAfterMs : undefined;
}

/** Whether a repetition may do better: nobody answered, no token was to be had, or the service failed or was busy. */
export function mayPass(error: unknown): boolean {
  if (error instanceof ServiceError) return error.transient;
  return error instanceof UploadError && (error.reason === "NO_ANSWER" || error.reason === "NO_TOKEN");
}

function withQuery(path: string, query: JsonObject): string {
  const fields = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const one of Array.isArray(value) ? value : [value]) fields.append(name, String(one));
  }
  const text = fields.toString();
  return `${path}${text && "?"}${text}`;
}

function bodyOf<I extends DescMessage>(schema: I, request: MessageInitShape<I>): JsonObject {
  return toJson(schema, create(schema, request), { useProtoFieldName: true }) as JsonObject;
}

function parsed(text: string): JsonValue | undefined {
  try {
    return JSON.parse(text) as JsonValue;
  } catch {
    return undefined;
  }
}
