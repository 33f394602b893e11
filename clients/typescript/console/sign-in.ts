/**
 * Signs the page in where the service asks who calls, and again when it does not know any more. The token goes into a
 * cookie that no script can read: nothing here keeps it.
 */

import { UploadError } from "../src/index.js";
import type { Api } from "../src/api.js";
import { errorOfStatus } from "../src/errors.js";
import { byId, say } from "./dom.js";
import { me } from "./me.js";

/** Beside the page, whatever prefix a proxy serves it under. */
const PATH = "auth/session";

export class SignIn {
  /** Whether the form is shown. */
  asking = false;
  private principal: string | undefined;
  private readonly form = byId<HTMLFormElement>("sign-in");

  /** `onBack`: the person who was signed in is so again. */
  constructor(private readonly onBack: () => void) {
    this.form.addEventListener("submit", (event) => event.preventDefault());
  }

  /** `fetch` that shows the form when the service does not know who calls; the call fails all the same. */
  readonly fetch: typeof fetch = async (input, init) => {
    const response = await fetch(input, init);
    // Before the page knows who it is, `begin` asks.
    if (this.principal && response.status === 401) {
      const error = errorOfStatus(await response.clone().json().catch(() => undefined), 401);
      if (error.notSignedIn && !this.asking) void this.ask().then(this.onBack);
    }
    return response;
  };

  /** Resolves once the service knows who calls, or does not ask; until then the page shows the form. */
  async begin(api: Api): Promise<void> {
    try {
      const caller = await api.getCaller({ retries: 0 });
      me.may = new Set(caller.may);
      if (caller.principal) this.show(caller.principal);
    } catch (error) {
      // Of anything else the page says itself what is wrong.
      if (error instanceof UploadError && error.reason.startsWith("CREDENTIAL_")) await this.ask();
    }
  }

  /** Show the form until somebody has signed in; for another person than before the page begins anew. */
  private async ask(): Promise<void> {
    const input = byId<HTMLInputElement>("token");
    const error = byId("sign-in-error");
    this.turn(true);
    input.focus();
    for (;;) {
      await new Promise((resolve) => this.form.addEventListener("submit", resolve, { once: true }));
      const token = input.value.trim();
      input.value = "";
      const found = await signIn(token);
      say(error, "problem" in found ? found.problem : "");
      if ("problem" in found) continue;
      if (this.principal && this.principal !== found.principal) {
        location.reload();
        return new Promise(() => {});
      }
      this.turn(false);
      return this.show(found.principal);
    }
  }

  /** Show the form instead of everything else, or the other way round. */
  private turn(asking: boolean): void {
    this.asking = asking;
    this.form.hidden = !asking;
    byId("main").hidden = asking;
    byId<HTMLDialogElement>("details").close();
    say(byId("live-text"), asking ? "Not signed in" : "Connecting…");
  }

  private show(principal: string): void {
    say(byId("who-name"), principal);
    byId("who").hidden = false;
    if (!this.principal) byId("sign-out").addEventListener("click", signOut);
    this.principal = me.principal = principal;
  }
}

/** Returns who has signed in, or what went wrong. */
async function signIn(token: string): Promise<{ principal: string } | { problem: string }> {
  try {
    const headers = { authorization: `Bearer ${token}` };
    const response = await fetch(PATH, { method: "POST", headers });
    if (response.status === 401) return { problem: "This token is not valid here." };
    if (!response.ok) return { problem: "The service refused to sign this page in." };
    const caller = (await (await fetch("api/v1/me", { cache: "no-store" })).json()) as { principal?: string; may?: string[] };
    me.may = new Set(caller.may);
    return caller.principal ? { principal: caller.principal } : { problem: "The browser keeps no cookie of this page." };
  } catch {
    return { problem: "The service did not answer; or this is no token." };
  }
}

function signOut(): void {
  // The page that begins anew has closed its watch and its uploads.
  void fetch(PATH, { method: "DELETE" }).finally(() => location.reload());
}
