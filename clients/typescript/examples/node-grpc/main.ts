/**
 * Upload half of a file over gRPC, cancel it, and see everyone hear of it.
 *
 *     npx esbuild examples/node-grpc/main.ts --bundle --platform=node --format=esm --packages=external \
 *       --outfile=.build/example.mjs && node .build/example.mjs localhost:50051
 */

import { create } from "@bufbuild/protobuf";
import { credentials, status } from "@grpc/grpc-js";
import type { ServiceError } from "@grpc/grpc-js";
import {
  CancelFileRequestSchema,
  InitiateUploadRequestSchema,
  UploadFileRequestSchema,
  UploadService,
  UploadStatus,
  WatchStatusRequestSchema,
} from "../../src/gen/upload/v1/upload_pb.js";
import { call, clientOf } from "./service.js";

const CHUNK_BYTES = 256 * 1024;

/** Play it; `tell` hears each step. */
export async function play(target: string, tell: (line: string) => void): Promise<void> {
  const client = clientOf(UploadService, target, credentials.createInsecure());
  const initiate = create(InitiateUploadRequestSchema, { filename: "from node.bin", sizeBytes: BigInt(4 * CHUNK_BYTES) });
  const { file } = await call(client.initiateUpload.bind(client), initiate);
  const fileId = file!.fileId;
  tell(`announced ${file!.filename}`);

  // The watch ends by itself once the file is final.
  const watch = client.watchStatus(create(WatchStatusRequestSchema, { fileIds: [fileId], untilFinal: true }));
  const watched = new Promise<void>((resolve, reject) => watch.on("end", resolve).on("error", reject));
  watch.on("data", ({ event }) => {
    if (event.case === "file") tell(`watch: ${UploadStatus[event.value.status]?.toLowerCase()}`);
  });

  const upload = client.uploadFile();
  upload.write(create(UploadFileRequestSchema, { message: { case: "header", value: { fileId } } }));
  for (let sent = 0; sent < 2; sent++) {
    upload.write(create(UploadFileRequestSchema, { message: { case: "data", value: new Uint8Array(CHUNK_BYTES) } }));
  }
  const stopped = new Promise<void>((resolve) => {
    upload.on("data", ({ message }) => {
      if (message.case !== "stopped") return;
      tell(`upload: stopped by ${message.value.cancelledBy}: ${message.value.cancelReason}`);
      // Who heeds it within a second hears why the stream ends.
      upload.end();
    });
    upload.on("error", (error: ServiceError) => {
      tell(`upload: ${status[error.code]}`);
      resolve();
    });
  });
  await new Promise<void>((resolve) => upload.once("data", () => resolve()));

  const cancel = create(CancelFileRequestSchema, { fileId, reason: "only a demonstration", requestId: crypto.randomUUID() });
  const answer = await call(client.cancelFile.bind(client), cancel);
  tell(answer.message);
  await Promise.all([stopped, watched]);

  const again = await call(client.cancelFile.bind(client), cancel);
  tell(`the same request id: ${again.message}`);
  for (const request of [{ fileId }, { fileId: "no-such-file" }]) {
    const refused = await call(client.cancelFile.bind(client), create(CancelFileRequestSchema, request)).catch((error) => error);
    tell(`${request.fileId === fileId ? "another" : "an unknown id"}: ${status[refused.code]}`);
  }
  client.close();
}

const target = process.argv[2];
if (target?.includes(":")) await play(target, (line) => console.log(line));
