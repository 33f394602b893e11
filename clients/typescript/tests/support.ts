/** What the tests share: real server processes, a TCP proxy that can be cut, and servers that answer badly. */

import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdtemp, readdir, rm, stat } from "node:fs/promises";
import { createServer as createHttpServer } from "node:http";
import { connect, createServer } from "node:net";
import type { AddressInfo, Server, Socket } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { EventSource } from "eventsource";
import { WebSocket as NodeWebSocket } from "ws";
import { UploadClient } from "../src/index.js";
import type { ClientOptions, UploadProgress } from "../src/index.js";

export const KiB = 1024;
export const MiB = 1024 * 1024;

const PROGRAM = process.env["UPLOAD_SERVER"] ?? resolve("../../.venv/bin/upload-server");

/** A server process of its own; `ready` before it is used. */
export class TestServer {
  private process: ChildProcess | undefined;
  httpPort = 0;
  grpcPort = 0;

  private constructor(
    readonly dataDir: string,
    private readonly options: readonly string[],
  ) {}

  static async start(...options: string[]): Promise<TestServer> {
    const server = new TestServer(await mkdtemp(join(tmpdir(), "upload-ts-")), options);
    await server.run();
    return server;
  }

  get url(): string {
    return `http://127.0.0.1:${this.httpPort}`;
  }

  /** Start the process, again on the same ports if it ran before. */
  async run(): Promise<void> {
    if (!existsSync(PROGRAM)) throw new Error(`${PROGRAM} is missing: run 'make setup', or set UPLOAD_SERVER`);
    const ports = ["--http-port", String(this.httpPort), "--grpc-port", String(this.grpcPort)];
    const args = ["serve", ...ports, "--data-dir", this.dataDir, "--log-format", "json", ...this.options];
    const child = spawn(PROGRAM, args, { stdio: ["ignore", "ignore", "pipe"] });
    this.process = child;
    const lines = createInterface({ input: child.stderr! });
    await new Promise<void>((resolve, reject) => {
      const tail: string[] = [];
      child.once("exit", (code) => reject(new Error(`the server ended with ${code}: ${tail.slice(-5).join("\n")}`)));
      lines.on("line", (line) => {
        tail.push(line);
        if (tail.length > 20) tail.shift();
        const parsed = line.startsWith("{") ? (JSON.parse(line) as Record<string, unknown>) : {};
        if (parsed["event"] !== "serving") return;
        this.httpPort = Number(parsed["http_port"]);
        this.grpcPort = Number(parsed["grpc_port"]);
        resolve();
      });
    });
  }

  signal(signal: NodeJS.Signals): void {
    this.process?.kill(signal);
  }

  async kill(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    const child = this.process;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once("exit", resolve));
    child.kill(signal);
    await gone;
  }

  async stop(): Promise<void> {
    await this.kill();
    await rm(this.dataDir, { recursive: true, force: true });
  }

  /** Bytes that lie in the sink. */
  async storedBytes(): Promise<number> {
    const folder = join(this.dataDir, "bytes");
    if (!existsSync(folder)) return 0;
    let sum = 0;
    for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
      if (entry.isFile()) sum += (await stat(join(entry.path, entry.name)).catch(() => ({ size: 0 }))).size;
    }
    return sum;
  }
}

/** Counts what is open and how much ever waited in a socket's buffer. */
export class CountingWebSocket extends NodeWebSocket {
  static open = 0;
  static mostOpen = 0;
  static mostBuffered = 0;
  static urls: string[] = [];

  constructor(url: string, protocols?: string[]) {
    super(url, protocols);
    CountingWebSocket.urls.push(url);
    CountingWebSocket.open++;
    CountingWebSocket.mostOpen = Math.max(CountingWebSocket.mostOpen, CountingWebSocket.open);
    this.addEventListener("close", () => CountingWebSocket.open--);
  }

  override send(data: string | Uint8Array): void {
    super.send(data);
    CountingWebSocket.mostBuffered = Math.max(CountingWebSocket.mostBuffered, this.bufferedAmount);
  }

  static reset(): void {
    CountingWebSocket.mostOpen = CountingWebSocket.open;
    CountingWebSocket.mostBuffered = 0;
    CountingWebSocket.urls = [];
  }
}

export function clientOf(baseUrl: string, options: ClientOptions = {}): UploadClient {
  return new UploadClient({
    baseUrl,
    WebSocket: CountingWebSocket as unknown as typeof WebSocket,
    EventSource: EventSource as unknown as typeof globalThis.EventSource,
    ...options,
  });
}

/** A file as a page has it. */
export function fileOf(bytes: number, name = "example.bin"): { file: File; sha256: string } {
  const data = randomBytes(bytes);
  return { file: new File([data], name), sha256: createHash("sha256").update(data).digest("hex") };
}

/** `onProgress` and a wait for a moment of it. */
export function observer(): {
  onProgress: (progress: UploadProgress) => void;
  seen: UploadProgress[];
  until: (wanted: (progress: UploadProgress) => boolean) => Promise<void>;
} {
  const seen: UploadProgress[] = [];
  const waiting = new Set<() => void>();
  return {
    seen,
    onProgress: (progress) => {
      seen.push(progress);
      for (const look of waiting) look();
    },
    until: (wanted) =>
      new Promise((resolve) => {
        const look = (): void => {
          if (!seen.some(wanted)) return;
          waiting.delete(look);
          resolve();
        };
        waiting.add(look);
        look();
      }),
  };
}

/** A TCP proxy in front of a server: cuts its connections, and refuses new ones while it is `down`. */
export class Proxy {
  private readonly sockets = new Set<Socket>();
  private server: Server | undefined;
  down = false;
  /** Bytes a second towards the server; 0: as fast as it goes. */
  bytesPerSecond = 0;

  static async to(port: number): Promise<Proxy> {
    const proxy = new Proxy();
    proxy.server = createServer((near) => proxy.serve(near, port));
    await new Promise<void>((resolve) => proxy.server!.listen(0, "127.0.0.1", resolve));
    return proxy;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.server!.address() as AddressInfo).port}`;
  }

  private serve(near: Socket, port: number): void {
    if (this.down) {
      near.destroy();
      return;
    }
    const far = connect(port, "127.0.0.1");
    for (const socket of [near, far]) {
      this.sockets.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => {
        this.sockets.delete(socket);
        near.destroy();
        far.destroy();
      });
    }
    far.pipe(near);
    near.on("data", (data) => {
      far.write(data);
      if (this.bytesPerSecond === 0) return;
      near.pause();
      setTimeout(() => near.resume(), (data.length / this.bytesPerSecond) * 1000);
    });
  }

  /** Break every connection without a word. */
  cut(): void {
    for (const socket of this.sockets) socket.resetAndDestroy();
  }

  stop(): void {
    this.cut();
    this.server?.close();
  }
}

/** How a cancel over HTTP can fail. */
export type Fault = "refused" | "silent" | "500" | "502 of a proxy";

/** A `fetch` whose POSTs go to a server that fails so; all else goes where it should. */
export async function faultyFetch(fault: Fault): Promise<{ fetch: typeof fetch; stop: () => void }> {
  const server = createHttpServer((request, response) => {
    request.resume();
    if (fault === "500") {
      const info = { "@type": "type.googleapis.com/google.rpc.ErrorInfo", reason: "DATABASE_FAILURE", domain: "upload.v1" };
      response.writeHead(500, { "content-type": "application/json" });
      response.end(JSON.stringify({ code: 13, message: "The database failed", details: [info] }));
    } else if (fault === "502 of a proxy") {
      response.writeHead(502, { "content-type": "text/html" }).end("<h1>Bad gateway</h1>");
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  if (fault === "refused") await new Promise((resolve) => server.close(resolve));
  const stop = (): void => {
    server.close();
    server.closeAllConnections();
  };
  const redirected: typeof fetch = (input, init) => {
    const url = new URL(String(input));
    if (init?.method === "POST" && url.pathname.includes("/cancel/")) url.port = String(port);
    return fetch(url, init);
  };
  return { fetch: redirected, stop };
}

/** Wait until something is so, looking again and again; for what nobody announces. */
export async function eventually(wanted: () => Promise<boolean> | boolean, milliseconds = 10_000): Promise<void> {
  const until = Date.now() + milliseconds;
  while (!(await wanted())) {
    if (Date.now() > until) throw new Error(`not so after ${milliseconds} ms: ${wanted}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
