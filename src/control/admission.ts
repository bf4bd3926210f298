/** Who may ask the daemon for something. */

import { createHash, timingSafeEqual } from 'node:crypto';
import { statSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { type PeerCredentials, peerCredentials } from '../datapath/ffi/peer-credentials.ts';
import { readNamedText } from './named-file.ts';
import type { Peer } from './peer.ts';
import { RateLimit } from './rate-limit.ts';
import { RequestRefused } from './refused.ts';

/** Says who makes a request. @throws RequestRefused */
export type Admission = (message: IncomingMessage) => Peer;

/**
 * The owner of the daemon, root, and the members of a group. The mode of the socket keeps others out already; this holds
 * if somebody changed it.
 * @param gid of the group; undefined: none
 */
export function localAdmission(gid: number | undefined): Admission {
  const owner = process.geteuid?.() ?? 0;
  const known = new WeakMap<Socket, PeerCredentials>();
  return ({ socket }) => {
    let credentials = known.get(socket);
    if (!credentials) {
      credentials = peerCredentials(descriptorOf(socket));
      known.set(socket, credentials);
    }
    const { uid, pid, gids } = credentials;
    if (uid === owner || uid === 0 || (gid !== undefined && gids.includes(gid))) {
      return { kind: 'local', uid, pid };
    }
    throw new RequestRefused(
      403,
      `uid ${uid} may not control this daemon: it is uid ${owner}'s${gid === undefined ? '' : ` and group ${gid}'s`}`,
    );
  };
}

/** Node has no public way to the descriptor of a connection. */
function descriptorOf(socket: Socket): number {
  const { _handle: handle } = socket as unknown as { _handle?: { fd?: number } | null };
  if (typeof handle?.fd !== 'number' || handle.fd < 0)
    throw new RequestRefused(403, 'the connection is gone');
  return handle.fd;
}

/** Wrong tokens that an address may send at once, and a second. */
const ATTEMPTS = { burst: 10, rate: 1 };

/** Whoever has the token (RFC 6750, section 2.1). */
export function tokenAdmission(token: string): Admission {
  const expected = digest(token);
  const attempts = new RateLimit(ATTEMPTS);
  return ({ socket, headers }) => {
    const address = socket.remoteAddress ?? 'unknown';
    const [, given] = /^Bearer +([A-Za-z0-9._~+/-]+=*)$/i.exec(headers.authorization ?? '') ?? [];
    if (given !== undefined && timingSafeEqual(digest(given), expected)) return { kind: 'remote', address };
    const wait = attempts.take(address, performance.now());
    if (wait > 0) {
      throw new RequestRefused(429, `too many attempts without the right token: wait ${wait} s`, undefined, {
        'Retry-After': String(wait),
      });
    }
    throw new RequestRefused(
      401,
      given === undefined
        ? 'the token is missing: send the header "Authorization: Bearer TOKEN"'
        : 'the token is not the right one',
      undefined,
      { 'WWW-Authenticate': 'Bearer' },
    );
  };
}

/** Of one length, so that comparing tells nothing of the token's. */
function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

/** Fewest characters of a token: 96 bits, as base64 writes them. */
const SHORTEST_TOKEN = 16;

/**
 * The token that stands in a file.
 * @throws Error whose message is one line
 */
export function readToken(path: string): string {
  const token = readNamedText(path).trim();
  if ((statSync(path).mode & 0o077) !== 0) {
    throw new Error(`${path} can be read by others: chmod 600 ${path}`);
  }
  if (!/^[A-Za-z0-9._~+/-]+=*$/.test(token) || token.length < SHORTEST_TOKEN) {
    throw new Error(
      `${path} holds no token: at least ${SHORTEST_TOKEN} letters, digits or ._~+/- (\`openssl rand -hex 32 > ${path}\`)`,
    );
  }
  return token;
}
