/** Who asks: what the kernel says of the other end of a connection. */

export type Peer =
  /** A process on this host, over the control socket. */
  | { kind: 'local'; uid: number; pid: number }
  /** Somebody with the token, over TCP. */
  | { kind: 'remote'; address: string };

/** One word for logs. */
export function peerText(peer: Peer): string {
  return peer.kind === 'local' ? `uid ${peer.uid} (pid ${peer.pid})` : peer.address;
}

/** Whose requests are counted together. */
export function peerKey(peer: Peer): string {
  return peer.kind === 'local' ? `uid ${peer.uid}` : peer.address;
}
