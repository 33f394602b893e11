/**
 * A @grpc/grpc-js client made of the generated service: its messages are read and written by @bufbuild/protobuf, so that
 * the same generated file serves browsers over HTTP and Node over gRPC.
 */

import { fromBinary, toBinary } from "@bufbuild/protobuf";
import type { DescMessage, DescMethod, MessageShape } from "@bufbuild/protobuf";
import { makeGenericClientConstructor } from "@grpc/grpc-js";
import type {
  CallOptions,
  ChannelCredentials,
  Client,
  ClientDuplexStream,
  ClientReadableStream,
  ClientUnaryCall,
  MethodDefinition,
  ServiceError,
} from "@grpc/grpc-js";

type Done<O> = (error: ServiceError | null, answer: O) => void;
type Unary<I, O> = (request: I, options: CallOptions, done: Done<O>) => ClientUnaryCall;

type Method<M> = M extends { methodKind: infer K; input: infer I extends DescMessage; output: infer O extends DescMessage }
  ? K extends "unary"
    ? Unary<MessageShape<I>, MessageShape<O>>
    : K extends "server_streaming"
      ? (request: MessageShape<I>) => ClientReadableStream<MessageShape<O>>
      : () => ClientDuplexStream<MessageShape<I>, MessageShape<O>>
  : never;

interface Service {
  readonly typeName: string;
  readonly methods: readonly DescMethod[];
  readonly method: object;
}

/** The methods of a generated service as grpc-js has them. */
export type GrpcClient<S extends Service> = Client & { [M in keyof S["method"]]: Method<S["method"][M]> };

/** Make a client of a generated service. */
export function clientOf<S extends Service>(service: S, target: string, credentials: ChannelCredentials): GrpcClient<S> {
  const definitions = Object.fromEntries(service.methods.map((method) => [method.localName, definitionOf(method)]));
  const Constructor = makeGenericClientConstructor(definitions, service.typeName);
  return new Constructor(target, credentials) as unknown as GrpcClient<S>;
}

/** What grpc-js needs to know of a method. */
function definitionOf(method: DescMethod): MethodDefinition<MessageShape<DescMessage>, MessageShape<DescMessage>> {
  return {
    path: `/${method.parent.typeName}/${method.name}`,
    requestStream: method.methodKind === "client_streaming" || method.methodKind === "bidi_streaming",
    responseStream: method.methodKind === "server_streaming" || method.methodKind === "bidi_streaming",
    requestSerialize: (message) => Buffer.from(toBinary(method.input, message)),
    requestDeserialize: (bytes) => fromBinary(method.input, bytes),
    responseSerialize: (message) => Buffer.from(toBinary(method.output, message)),
    responseDeserialize: (bytes) => fromBinary(method.output, bytes),
  };
}

/** A unary call as a promise. It always has a deadline: without one it could wait for ever. */
export function call<I, O>(method: Unary<I, O>, request: I, seconds = 10): Promise<O> {
  const deadline = new Date(Date.now() + seconds * 1000);
  return new Promise((resolve, reject) => {
    method(request, { deadline }, (error, answer) => (error ? reject(error) : resolve(answer)));
  });
}
