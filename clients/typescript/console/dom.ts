/** Small helpers of the page: no framework, no markup from text. */

import { parts } from "../src/visible.js";

/** The element with this id, which the page has. */
export function byId<E extends HTMLElement = HTMLElement>(id: string): E {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found as E;
}

type Child = Node | string | undefined;

/** Make an element: its class, and its children. */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  className = "",
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  if (className) element.className = className;
  for (const child of children) if (child !== undefined) element.append(child);
  return element;
}

/** Make an element that says a sentence in which callers' texts may be `quoted`. */
export function told<K extends keyof HTMLElementTagNameMap>(tag: K, className: string, text: string): HTMLElementTagNameMap[K] {
  const element = make(tag, className);
  say(element, text);
  return element;
}

/** Make an SVG element with attributes. */
export function svg(tag: string, attributes: Record<string, string | number>): SVGElement {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  return element;
}

const SAID = new WeakMap<Element, string>();

/**
 * Set text only when it differs: screen readers and layout take notice of every change. What is `quoted` in it becomes an
 * element of its own direction.
 */
export function say(element: Element, text: string): void {
  if (SAID.get(element) === text) return;
  SAID.set(element, text);
  element.replaceChildren(...parts(text).map((part) => (part.quoted ? theirs(part.text) : part.text)));
}

function theirs(text: string): HTMLElement {
  const element = make("bdi", "", text);
  element.dir = "auto";
  return element;
}

export function setAttribute(element: Element, name: string, value: string | undefined): void {
  if (value === undefined) element.removeAttribute(name);
  else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

export function show(element: HTMLElement, shown: boolean): void {
  if (element.hidden === shown) element.hidden = !shown;
}

/** Bring a list's children into this order, moving as few as possible. */
export function arrange(parent: Element, wanted: readonly Element[]): void {
  const keep = new Set(wanted);
  for (const child of [...parent.children]) if (!keep.has(child)) child.remove();
  let at = parent.firstElementChild;
  for (const element of wanted) {
    if (element === at) at = at.nextElementSibling;
    else parent.insertBefore(element, at);
  }
}

/** Do it soon, once, however often it is asked for: at most every `milliseconds`. */
export function throttled(milliseconds: number, work: () => void): () => void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let last = -Infinity;
  return () => {
    if (timer !== undefined) return;
    const wait = Math.max(0, last + milliseconds - performance.now());
    timer = setTimeout(() => {
      timer = undefined;
      last = performance.now();
      work();
    }, wait);
  };
}
