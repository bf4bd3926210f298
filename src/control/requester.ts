/** Who asked for what happens now: follows a request through everything that is done for it. */
import { AsyncLocalStorage } from 'node:async_hooks';
import type { Peer } from './peer.ts';

const storage = new AsyncLocalStorage<Peer>();

/** Does something for `peer`. */
export function onBehalfOf<Result>(peer: Peer, work: () => Result): Result {
  return storage.run(peer, work);
}

/** Undefined: nobody, the daemon does it by itself. */
export function requester(): Peer | undefined {
  return storage.getStore();
}
