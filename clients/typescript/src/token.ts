/**
 * Who calls: a `fetch` that sends a token along, and another one once the service has refused it. Must not know calls.
 * No token gets into an error, nor on its way in plain text.
 */

import { errorOfStatus, UploadError } from "./errors.js";

/** Gives a token: asked once, and again when the service refuses what it gave. */
export type TokenSource = () => Promise<string>;

// What can stand in a header: the error of one that cannot would quote it.
const SENDABLE = /^[\x21-\x7e]+$/;
const LOOPBACK = /^(localhost|.+\.localhost|127(\.\d+){3}|\[::1\])$/;

/** `fetch` as the caller whom the token names. Throws `TOKEN_EXPOSED` where it would travel in plain text. */
export function fetchAs(source: TokenSource, baseUrl: string, plain: typeof fetch): typeof fetch {
  checkSafe(new URL(baseUrl));
  let held: Promise<string> | undefined;
  const token = (): Promise<string> => {
    const asked = (held ??= tokenOf(source));
    asked.catch(() => forget(asked)); // a source that has failed is asked again
    return asked;
  };
  const forget = (refused: Promise<string>): void => {
    if (held === refused) held = undefined;
  };
  return async (input, init = {}) => {
    for (let again = false; ; again = true) {
      const shown = token();
      const headers = new Headers(init.headers);
      headers.set("authorization", `Bearer ${await whileWanted(shown, init.signal)}`);
      // The service never redirects, and nobody else is to have the token.
      const response = await plain(input, { ...init, headers, redirect: "error" });
      if (!(await isRefused(response))) return response;
      forget(shown);
      if (again) return response;
    }
  };
}

function checkSafe({ protocol, hostname, host }: URL): void {
  if (protocol === "https:" || LOOPBACK.test(hostname)) return;
  throw new UploadError(
    "TOKEN_EXPOSED",
    `Anybody on the way to ${host} could read the token, so it is not sent there; use an https:// address.`,
  );
}

async function tokenOf(source: TokenSource): Promise<string> {
  let token: string;
  try {
    token = (await source()).trim();
  } catch (cause) {
    throw new UploadError("NO_TOKEN", "There is no telling the server who you are just now; try again, or sign in again.", {}, { cause });
  }
  if (SENDABLE.test(token)) return token;
  throw new UploadError("CREDENTIAL_MISSING", "You are not signed in; sign in and repeat this.");
}

/** Whether the token is none, or none any more. */
async function isRefused(response: Response): Promise<boolean> {
  if (response.status !== 401) return false;
  const { reason } = errorOfStatus(await response.clone().json().catch(() => undefined), 401);
  return reason === "CREDENTIAL_EXPIRED" || reason === "CREDENTIAL_INVALID";
}

/** A token that is long in coming must not hold up a call that is over. */
function whileWanted<T>(promise: Promise<T>, signal: AbortSignal | null | undefined): Promise<T> {
  if (!signal) return promise;
  return new Promise<T>((resolve, reject) => {
    const over = (): void => reject(signal.reason);
    signal.addEventListener("abort", over, { once: true });
    if (signal.aborted) over();
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", over));
  });
}
