/** The worker behind `ticker.ts`: says a number back after a while. */

self.addEventListener("message", (event: MessageEvent<{ id: number; milliseconds: number }>) => {
  const { id, milliseconds } = event.data;
  setTimeout(() => postMessage(id), milliseconds);
});

export {};
