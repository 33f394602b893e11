/**
 * Signs the page in where the service asks who calls. The token goes into a cookie that no script can read: nothing here
 * keeps it.
 */

import { UploadError } from "../src/index.js";
import type { Api } from "../src/api.js";
import { byId, say } from "./dom.js";

const PATH = "/auth/session";

/** Resolves once the service knows who calls, or does not ask; until then the page shows a form. */
export async function signedIn(api: Api): Promise<void> {
  try {
    const me = await api.getCaller({ retries: 0 });
    if (me.principal) showWho(me.principal);
  } catch (error) {
    if (!(error instanceof UploadError && error.reason.startsWith("CREDENTIAL_"))) return; // the page says what is wrong
    await asked();
  }
}

/** Show the form; never resolves: a page that has signed in begins anew. */
function asked(): Promise<never> {
  const form = byId<HTMLFormElement>("sign-in");
  const input = byId<HTMLInputElement>("token");
  const error = byId("sign-in-error");
  form.hidden = false;
  byId("main").hidden = true;
  say(byId("live-text"), "Not signed in");
  input.focus();
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const token = input.value.trim();
    input.value = "";
    void signIn(token).then((problem) => (problem ? say(error, problem) : location.reload()));
  });
  return new Promise<never>(() => {});
}

/** Returns what went wrong, or nothing. */
async function signIn(token: string): Promise<string> {
  try {
    const headers = { authorization: `Bearer ${token}` };
    const response = await fetch(PATH, { method: "POST", headers });
    if (response.ok) return "";
    return response.status === 401 ? "This token is not valid here." : "The service refused to sign this page in.";
  } catch {
    return "The service did not answer; or this is no token.";
  }
}

function showWho(principal: string): void {
  say(byId("who-name"), principal);
  byId("who").hidden = false;
  byId("sign-out").addEventListener("click", () => {
    // The page that begins anew has closed its watch and its uploads.
    void fetch(PATH, { method: "DELETE" }).finally(() => location.reload());
  });
}
