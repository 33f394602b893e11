/** What went wrong, told until who told it takes it back: nobody wipes another's notice. */

import { byId, say, told } from "./dom.js";

type Teller = "list" | "upload" | "cancel" | "link" | "rest";

const shown = new Map<Teller, HTMLElement>();

/** Tell a sentence instead of what this teller told before; an empty one takes it back. */
export function notice(teller: Teller, text: string): void {
  const known = shown.get(teller);
  if (known && text) say(known, text);
  else if (known) {
    known.remove();
    shown.delete(teller);
  } else if (text) {
    const element = told("p", "notice", text);
    shown.set(teller, element);
    byId("notices").append(element);
  }
}

/** Whether this teller's sentence is shown. */
export function isTold(teller: Teller): boolean {
  return shown.has(teller);
}
