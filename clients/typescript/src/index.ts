/** The public surface. */

export { Api } from "./api.js";
export type { ApiOptions, CallOptions } from "./api.js";
export { BatchCancellation, BatchUpload } from "./batch.js";
export type { BatchFile, BatchOptions } from "./batch.js";
export { Cancellation } from "./cancel.js";
export type { BatchCancelOutcome, CancelOptions, CancelOutcome } from "./cancel.js";
export { UploadClient } from "./client.js";
export type { ClientOptions } from "./client.js";
export type { DownloadOptions } from "./download.js";
export { hasReason, ServiceError, UploadError } from "./errors.js";
export type { LocalReason, Reason, ServiceReason } from "./errors.js";
export { BatchStatus, UploadStatus } from "./gen/upload/v1/upload_pb.js";
export type { AuditEvent, Batch, File as UploadedFile, GetCallerResponse, GetStatisticsResponse } from "./gen/upload/v1/upload_pb.js";
export type { DeleteOptions, PutOptions, UploadOptions, UploadProgress, UploadState } from "./options.js";
export { dateOf } from "./pause.js";
export type { Sleep } from "./pause.js";
export { SharedWatch } from "./shared.js";
export type { SharedWatchOptions } from "./shared.js";
export { batchStatusWord, fileStatusWord, isFinal } from "./statuses.js";
export type { StatusWord } from "./statuses.js";
export type { TokenSource } from "./token.js";
export { newTraceparent } from "./trace.js";
export { Upload } from "./upload.js";
export { Watch } from "./watch.js";
export type { WatchEvent, WatchOptions, WatchState, WatchTargets } from "./watch.js";
