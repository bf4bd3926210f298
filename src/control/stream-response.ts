/** Answers that are sent as they come into being, over HTTP. */
import type { ServerResponse } from 'node:http';
import type { Stream, StreamClient } from './routes/route.ts';

export function serveStream(response: ServerResponse, { contentType, begin }: Stream): void {
  response.writeHead(200, { 'Content-Type': contentType, 'Cache-Control': 'no-store' });
  response.flushHeaders();
  const gone = new AbortController();
  // Listeners of its own: a stream of events has as many as it likes.
  response.on('close', () => gone.abort());
  response.on('error', () => gone.abort());
  const client: StreamClient = {
    write: chunk => !gone.signal.aborted && response.write(chunk),
    get waiting() {
      return response.writableLength;
    },
    drained: () =>
      new Promise(resolve => {
        if (gone.signal.aborted || !response.writableNeedDrain) {
          resolve();
          return;
        }
        const settle = (): void => {
          response.off('drain', settle);
          response.off('close', settle);
          resolve();
        };
        response.on('drain', settle);
        response.on('close', settle);
      }),
    gone: gone.signal,
    end: () => response.end(),
    cut: () => response.destroy(),
  };
  begin(client);
}
