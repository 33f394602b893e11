/** Asks for the reason of what cannot be taken back, beside its button. Must not know what that is. */

import { make, say, setAttribute, told } from "./dom.js";

const USUAL = ["Wrong file", "Sent to the wrong place", "No longer needed", "Takes too long"];
/** As many characters as the service takes. */
const MOST_CHARACTERS = 500;

let asked = 0;

/**
 * Open or close the question of `button` at the end of `row`, which says what is at stake; `confirmed` hears the reason,
 * which may be empty.
 */
export function toggleAsk(
  row: HTMLElement,
  button: HTMLElement,
  what: string,
  warning: string,
  confirmed: (reason: string) => void,
  usualReasons: readonly string[] = USUAL,
): void {
  if (closeAsk(row)) return;
  for (const open of document.querySelectorAll<HTMLElement>(".ask")) closeAsk(open.parentElement!);
  const input = make("input");
  input.type = "text";
  input.autocomplete = "off";
  input.id = `reason ${++asked}`.replace(" ", "-");
  input.addEventListener("input", () => {
    const characters = [...input.value];
    if (characters.length > MOST_CHARACTERS) input.value = characters.slice(0, MOST_CHARACTERS).join("");
  });
  const about = told("p", "warning", warning);
  about.id = `${input.id}-about`;
  setAttribute(input, "aria-describedby", about.id);
  const label = make("label", "", "Why? Everyone sees it; may be left empty");
  label.htmlFor = input.id;
  const yes = pressable("button cancel", what);
  yes.type = "submit";
  const usual = usualReasons.map((text) => {
    const pick = pressable("button", text);
    pick.addEventListener("click", () => {
      input.value = text;
      yes.focus();
    });
    return pick;
  });
  const no = pressable("button", "Keep it");
  const form = make("form", "ask", about, label, input, make("div", "usual", ...usual), make("div", "side", yes, no));
  const close = (): void => {
    closeAsk(row);
    button.focus();
  };
  no.addEventListener("click", close);
  form.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    // The dialog around it stays.
    event.preventDefault();
    close();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    close();
    confirmed(input.value.trim());
  });
  setAttribute(button, "aria-expanded", "true");
  row.append(form);
  input.focus();
}

/** Take the question of this row away; whether there was one. */
export function closeAsk(row: HTMLElement): boolean {
  const form = row.querySelector(":scope > .ask");
  form?.remove();
  for (const button of row.querySelectorAll(":scope > .side > .cancel")) setAttribute(button, "aria-expanded", "false");
  return form !== null;
}

function pressable(className: string, text: string): HTMLButtonElement {
  const button = make("button", className);
  button.type = "button";
  say(button, text);
  return button;
}
