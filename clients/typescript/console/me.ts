/** Who uses this page, as the service knows it, and what they may. Empty where nobody has to say who calls. */
export const me: { principal: string; may: ReadonlySet<string> | undefined } = { principal: "", may: undefined };

export function may(what: "cancel" | "download" | "metrics" | "write" | "audit"): boolean {
  return me.may?.has(what) ?? true;
}
