/** Echo requests and their answers (RFC 792, RFC 4443). */
import { parseAddress } from '../wire/address.ts';
import { Protocol } from '../wire/ipv4.ts';
import type { Host } from './host.ts';
import type { EchoReply, IcmpError } from './icmp.ts';

export interface PingOptions {
  /** Requests; default 1. */
  count?: number;
  /** Between requests, ms; default 1000. */
  interval?: number;
  /** Wait for the last answer, ms; default 10 s. */
  timeout?: number;
  /** Bytes behind the ICMP header; default 56. */
  size?: number;
  /** TTL or hop limit; default 64. */
  ttl?: number;
}

/** What came back for one request. */
export interface PingAnswer {
  sequence: number;
  from: string;
  /** Round trip, ms; undefined for an error. */
  time: number | undefined;
  ttl: number;
  /** ICMP bytes of a reply. */
  length: number;
  error: IcmpError['kind'] | undefined;
}

export interface PingReport {
  address: string;
  sent: number;
  answers: PingAnswer[];
  /** From the first request to the last answer, ms. */
  elapsed: number;
  /** Most requests that were unanswered at the same time. */
  pipe: number;
}

/**
 * Pings an address; resolves when every request was answered or the wait is over.
 * @throws RangeError if `address` is no IP address; Error `Network is unreachable` without a route
 */
export async function ping(host: Host, address: string, options: PingOptions = {}): Promise<PingReport> {
  const destination = parseAddress(address);
  if (!destination) throw new RangeError(`${address} is not an IP address`);
  const count = options.count ?? 1;
  const data = Uint8Array.from({ length: options.size ?? 56 }, (_, index) => index & 0xff);
  const isIpv4 = destination.length === 4;
  const sentAt = new Map<number, number>();
  const report: PingReport = { address, sent: 0, answers: [], elapsed: 0, pipe: 0 };
  const answered = new Set<number>();
  const started = host.now;
  let finish = (): void => {};
  const finished = new Promise<void>(resolve => {
    finish = resolve;
  });
  const take = (answer: PingAnswer): void => {
    report.answers.push(answer);
    answered.add(answer.sequence);
    if (answered.size === count) finish();
  };
  const identifier = host.icmp.listen({
    reply: (reply: EchoReply) => {
      const sent = sentAt.get(reply.sequence);
      if (sent === undefined) return;
      const { sequence, from, ttl, length } = reply;
      take({ sequence, from, ttl, length, time: host.now - sent, error: undefined });
    },
    error: (error: IcmpError) => {
      const { from, sequence, kind } = error;
      if (sentAt.has(sequence)) take({ from, sequence, time: undefined, ttl: 0, length: 0, error: kind });
    },
  });
  try {
    for (let sequence = 1; sequence <= count; sequence++) {
      if (sequence > 1) await host.simulation.sleep(options.interval ?? 1000);
      const payload = host.icmp.echoRequest(isIpv4, identifier, sequence & 0xffff, data);
      const protocol = isIpv4 ? Protocol.icmp : Protocol.icmpv6;
      sentAt.set(sequence & 0xffff, host.now);
      const result = host.ip.send({ destination, protocol, payload, ttl: options.ttl });
      if (result === 'no-route') throw new Error('Network is unreachable');
      report.sent++;
      report.pipe = Math.max(report.pipe, report.sent - answered.size);
      report.elapsed = host.now - started;
    }
    const timer = host.simulation.after(options.timeout ?? 10_000, finish);
    await finished;
    timer.cancel();
  } finally {
    host.icmp.unlisten(identifier);
  }
  report.elapsed = host.now - started;
  return report;
}
