/**
 * How a caller's text is shown to others: nothing in it is invisible, and it turns no other text around.
 * Must not know where it is shown.
 */

/** What has no glyph or steers others, and spaces and marks that show nothing where they stand. */
const HIDDEN = new RegExp(
  [
    String.raw`(?! )[\p{C}\p{Z}]`, // controls, formats, and separators other than the space
    String.raw`(?![\ufe0e\ufe0f])\p{Default_Ignorable_Code_Point}`, // fillers and joiners that fonts leave out
    String.raw`(?<!(?!\u2800)\p{So})[\ufe0e\ufe0f]`, // a choice of colour, unless a symbol is before it
    String.raw`[\u2800\u{1d159}]`, // the blank of Braille, and that of music
    String.raw`^\p{M}|^ |(?<= ) | $`,
  ].join("|"),
  "gu",
);

/** The text with everything invisible written as JSON would escape it: `invoice\u202efdp.exe`. `uploadctl` does the same. */
export function visible(text: string): string {
  return text.replace(HIDDEN, escaped);
}

function escaped(found: string): string {
  return Array.from({ length: found.length }, (_, unit) => `\\u${found.charCodeAt(unit).toString(16).padStart(4, "0")}`).join("");
}

/** A caller's text inside a sentence: visible, and between Unicode's isolates, so that its direction ends with it. */
export function quoted(text: string): string {
  return `\u2068${visible(text)}\u2069`;
}

/** A sentence taken apart, for a page that writes what `quoted` put in as elements of its own. */
export function parts(sentence: string): { text: string; quoted: boolean }[] {
  return sentence
    .split(/(\u2068[^\u2069]*\u2069)/)
    .filter((text) => text !== "")
    .map((text) => (text.startsWith("\u2068") ? { text: text.slice(1, -1), quoted: true } : { text, quoted: false }));
}
