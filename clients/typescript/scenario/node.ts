/** The scenario over gRPC in Node, by the generated code: `TARGET`. Reports in JSON lines. */

import { create, equals } from "@bufbuild/protobuf";
import { credentials } from "@grpc/grpc-js";
import type { ServiceError } from "@grpc/grpc-js";
import {
  CancelFileRequestSchema,
  CancelFileResponseSchema,
  InitiateUploadRequestSchema,
  UploadFileRequestSchema,
  UploadService,
  UploadStatus,
  WatchStatusRequestSchema,
} from "../src/gen/upload/v1/upload_pb.js";
import { call, clientOf } from "../examples/node-grpc/service.js";

const SIZE = 4 << 20;
const CHUNK = 256 * 1024;
const REASON = "only a demonstration";
const say = (step: string, more: object): void => console.log(JSON.stringify({ step, ...more }));

/** Reason and state found; of a Status only the words are looked for, since google.rpc is not generated here. */
function told(error: unknown): { reason: string; status: string } {
  const raw = (error as ServiceError).metadata.get("grpc-status-details-bin")[0] as Buffer;
  const text = raw.toString("latin1");
  return {
    reason: /[A-Z]+(?:_[A-Z]+)+/.exec(text)?.[0] ?? "",
    status: /\x06status\x12.(\w+)/.exec(text)?.[1] ?? "",
  };
}
const refusal = <T>(answer: Promise<T>): Promise<unknown> => answer.then(() => undefined, (error: unknown) => error);

const client = clientOf(UploadService, process.argv[2]!, credentials.createInsecure());
const cancelFile = client.cancelFile.bind(client);
const initiate = create(InitiateUploadRequestSchema, { filename: "matrix.bin", sizeBytes: BigInt(SIZE) });
const file = (await call(client.initiateUpload.bind(client), initiate)).file!;
const { fileId } = file;
say("initiate", { file_id: fileId, filename: file.filename, size_bytes: Number(file.sizeBytes) });

const upload = client.uploadFile();
upload.write(create(UploadFileRequestSchema, { message: { case: "header", value: { fileId } } }));
for (let sent = 0; sent < SIZE / 2; sent += CHUNK) {
  upload.write(create(UploadFileRequestSchema, { message: { case: "data", value: new Uint8Array(CHUNK) } }));
}
let by = "";
const ended = new Promise<unknown>((resolve) => upload.on("error", resolve));
await new Promise<void>((resolve) => {
  upload.on("data", ({ message }) => {
    if (message.case === "progress" && Number(message.value.bytesReceived) === SIZE / 2) resolve();
    if (message.case !== "stopped") return;
    by = message.value.cancelledBy;
    upload.end();
  });
});
say("half", { bytes_received: SIZE / 2 });

const statuses: string[] = [];
const watch = client.watchStatus(create(WatchStatusRequestSchema, { fileIds: [fileId], untilFinal: true }));
const watched = new Promise<void>((resolve, reject) => watch.on("end", resolve).on("error", reject));
await new Promise<void>((resolve) => {
  watch.on("data", ({ event }) => {
    if (event.case === "file") statuses.push(UploadStatus[event.value.status]!.toLowerCase());
    resolve();
  });
});

const cancel = create(CancelFileRequestSchema, { fileId, reason: REASON, requestId: fileId });
const first = await call(cancelFile, cancel);
say("cancel", { result: "cancelled" });
say("upload", { reason: told(await ended).reason, by });
await watched;
say("watch", { statuses });
const again = await call(cancelFile, cancel);
const other = told(await refusal(call(cancelFile, create(CancelFileRequestSchema, { fileId }))));
say("cancel again", {
  same_request: equals(CancelFileResponseSchema, first, again) ? "the same answer" : "another answer",
  new_request: other.reason === "FILE_NOT_CANCELLABLE" ? `already ${other.status}` : other,
});
const unknown = told(await refusal(call(cancelFile, create(CancelFileRequestSchema, { fileId: "no-such-file" }))));
say("unknown", { reason: unknown.reason });
client.close();
