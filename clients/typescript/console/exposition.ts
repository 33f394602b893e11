/** Reads what `/metrics` tells (Prometheus' text format). Must not know what the names mean. */

export interface Sample {
  labels: Readonly<Record<string, string>>;
  value: number;
}

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

/** The samples of these names. */
export function samplesOf(text: string, names: ReadonlySet<string>): Map<string, Sample[]> {
  const found = new Map<string, Sample[]>();
  for (const line of text.split("\n")) {
    const [, name = "", labels = "", value = ""] = LINE.exec(line) ?? [];
    if (!names.has(name)) continue;
    const samples = found.get(name) ?? [];
    samples.push({ labels: Object.fromEntries([...labels.matchAll(LABEL)].map(([, key, text]) => [key, text])), value: Number(value) });
    found.set(name, samples);
  }
  return found;
}
