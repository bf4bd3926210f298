/** By what ways the daemon can be reached beside its owner's socket: what `dirigo up` was told, checked. */

import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { BlockList, isIP } from 'node:net';
import { createSecureContext } from 'node:tls';
import { readToken } from './admission.ts';
import { readNamedText } from './named-file.ts';

export interface AccessOptions {
  /** Name or number of a group whose members may use the socket. */
  group?: string;
  /** `127.0.0.1:8080`, `[::1]:8080` */
  listen?: string;
  tokenFile?: string;
  tlsCert?: string;
  tlsKey?: string;
  /** TCP without TLS beyond this host. */
  plainTcp?: boolean;
}

export interface TcpAccess {
  host: string;
  port: number;
  token: string;
  /** PEM. */
  tls?: { certificate: string; key: string };
}

export interface Access {
  gid?: number;
  tcp?: TcpAccess;
}

/** @throws Error whose message is one line: what is wrong and what to do */
export function readAccess(options: AccessOptions): Access {
  const { group, listen } = options;
  if (listen === undefined) {
    const foreign = (['tokenFile', 'tlsCert', 'tlsKey', 'plainTcp'] as const).find(
      name => options[name] !== undefined,
    );
    if (foreign) throw new Error(`--${OPTION_NAMES[foreign]} is for --listen`);
  }
  return {
    ...(group !== undefined && { gid: groupNumber(group, readFileSync('/etc/group', 'utf8')) }),
    ...(listen !== undefined && { tcp: readTcp(listen, options) }),
  };
}

const OPTION_NAMES = {
  tokenFile: 'token-file',
  tlsCert: 'tls-cert',
  tlsKey: 'tls-key',
  plainTcp: 'plain-tcp',
} as const;

function readTcp(listen: string, options: AccessOptions): TcpAccess {
  const { host, port } = parseEndpoint(listen);
  const { tokenFile, tlsCert, tlsKey, plainTcp } = options;
  if (tokenFile === undefined) {
    throw new Error('--listen needs a token, or anybody could command the director: --token-file FILE');
  }
  if ((tlsCert === undefined) !== (tlsKey === undefined)) {
    throw new Error('--tls-cert and --tls-key belong together');
  }
  if (tlsCert === undefined && !isLoopback(host) && !plainTcp) {
    throw new Error(
      `without TLS the token can be read on the way to ${host}: --tls-cert FILE --tls-key FILE, a loopback address, or --plain-tcp to do it nevertheless`,
    );
  }
  return {
    host,
    port,
    token: readToken(tokenFile),
    ...(tlsCert !== undefined && tlsKey !== undefined && { tls: readTls(tlsCert, tlsKey) }),
  };
}

/** @throws Error that says what is expected */
export function parseEndpoint(text: string): { host: string; port: number } {
  const [, six, four, digits] = /^(?:\[(.+)\]|([^:]+)):([0-9]{1,5})$/.exec(text) ?? [];
  const host = six ?? four ?? '';
  const port = Number(digits);
  if (isIP(host) !== (six === undefined ? 4 : 6) || !(port <= 65535)) {
    throw new Error(`--listen ${text}: it has to be an address and a port, as 127.0.0.1:8080 or [::1]:8080`);
  }
  return { host, port };
}

function isLoopback(host: string): boolean {
  const loopback = new BlockList();
  loopback.addSubnet('127.0.0.0', 8, 'ipv4');
  loopback.addAddress('::1', 'ipv6');
  return loopback.check(host, isIP(host) === 6 ? 'ipv6' : 'ipv4');
}

function readTls(certPath: string, keyPath: string): { certificate: string; key: string } {
  const certificate = readNamedText(certPath);
  const key = readNamedText(keyPath);
  try {
    createSecureContext({ cert: certificate, key });
    const { validTo } = new X509Certificate(certificate);
    if (Date.parse(validTo) < Date.now()) throw new Error(`it was valid until ${validTo}`);
  } catch (error) {
    throw new Error(
      `the certificate ${certPath} with the key ${keyPath} cannot be used: ${(error as Error).message}`,
    );
  }
  return { certificate, key };
}

/**
 * @param file the text of /etc/group
 * @throws Error if there is no such group
 */
export function groupNumber(group: string, file: string): number {
  if (/^[0-9]{1,9}$/.test(group)) return Number(group);
  for (const line of file.split('\n')) {
    const [name, , gid] = line.split(':');
    if (name === group && gid !== undefined && /^[0-9]+$/.test(gid)) return Number(gid);
  }
  throw new Error(`there is no group ${group}: \`groupadd --system ${group}\` makes it`);
}
