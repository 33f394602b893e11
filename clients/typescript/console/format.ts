/** Numbers and times as people read them. */

import { quoted } from "../src/visible.js";

const UNITS = ["bytes", "kB", "MB", "GB", "TB"];

export function size(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < UNITS.length - 1) {
    value /= 1000;
    unit++;
  }
  if (bytes === 1) return "1 byte";
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${UNITS[unit]}`;
}

export function speed(bytesPerSecond: number): string {
  return `${size(Math.max(0, bytesPerSecond))}/s`;
}

export function duration(seconds: number): string {
  const whole = Math.ceil(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const DAY = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });

/** The time of day, with the day unless it is today. */
export function when(date: Date): string {
  const today = date.toDateString() === new Date().toDateString();
  return today ? CLOCK.format(date) : `${DAY.format(date)}, ${CLOCK.format(date)}`;
}

/** The day and the time, for facts that are read much later. */
export function day(date: Date): string {
  return `${date.toLocaleDateString(undefined, { year: "numeric", month: "short", day: "numeric" })}, ${CLOCK.format(date)}`;
}

export function exactly(date: Date): string {
  return `${date.toISOString().replace("T", " ").replace(/Z$/, "")} UTC`;
}

export function number(value: number): string {
  return value.toLocaleString("en");
}

const SHORT = new Intl.NumberFormat("en", { notation: "compact" });

/** A number for little room: 20K. */
export function short(value: number): string {
  return SHORT.format(value);
}

export function percent(part: number, whole: number): string {
  return whole > 0 ? `${Math.floor((100 * part) / whole)} %` : "";
}

const WHO: Readonly<Record<string, string>> = {
  user: "a user",
  batch_cancel: "the cancel of its batch",
  websocket_close: "the end of its page's connection",
  all_files: "the cancels of all its files",
  system: "the service",
  retention: "the service, which keeps no bytes for longer",
};

/** Who did it, in words; `me` is who uses this page. */
export function who(by: string, me = ""): string {
  const person = by.startsWith("user:") ? by.slice(5) : "";
  if (person && person === me) return "you";
  return WHO[by] ?? quoted(person || by || "somebody");
}

export function count(number: number, one: string, many = `${one}s`): string {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}
