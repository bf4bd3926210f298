/** A packet's explanation for people: one line a fact, what decided first. */
import { Protocol } from '../wire/ipv4.ts';
import type { Departure, ExplainedConnection, ExplainedServer, PacketExplanation } from './explain.ts';
import type { Candidate, CostCandidate, SelectionExplanation } from './explanation.ts';
import { serviceKeyText } from './specification.ts';

const PROTOCOL_NAMES: Readonly<Record<number, string>> = {
  [Protocol.tcp]: 'TCP',
  [Protocol.udp]: 'UDP',
  [Protocol.sctp]: 'SCTP',
  [Protocol.icmp]: 'ICMP',
  [Protocol.icmpv6]: 'ICMPv6',
};

const VERDICTS = {
  pass: 'left to the host',
  taken: 'sent on',
  dropped: 'dropped',
  undefined: 'not foretold',
} as const;

/**
 * @param nameOf what to call a destination, by its index; default its number
 */
export function explanationText(
  explanation: PacketExplanation,
  nameOf: (destination: number) => string = index => `server #${index}`,
): string {
  const { flow, connection, service, sampling, template, selection, server, departure } = explanation;
  const lines = [flowText(flow)];
  const drop = explanation.drop === undefined ? '' : ` (${explanation.drop})`;
  lines.push(`  ${VERDICTS[explanation.verdict ?? 'undefined']}${drop}: ${explanation.decision}`);
  if (connection) lines.push(`  connection: ${connectionText(connection)}`);
  if (explanation.ended) lines.push(`  it gives way: ${explanation.ended}`);
  if (explanation.mark) lines.push(`  firewall mark ${explanation.mark}`);
  if (service) lines.push(`  service ${serviceKeyText(service.key)}, by its ${service.matchedBy}`);
  if (sampling) {
    lines.push(
      `  drop_packet drops one in ${sampling.oneIn}: ${sampling.dropsThis ? 'this one' : 'not this one'}`,
    );
  }
  if (explanation.callId !== undefined) lines.push(`  Call-ID ${explanation.callId}`);
  if (template) {
    const holds = explanation.templateHolds ? 'holds' : 'no longer holds: its server is gone or quiesced';
    lines.push(`  template: ${connectionText(template)}`, `    ${holds}`);
  }
  if (selection) lines.push(...selectionLines(selection, nameOf).map(line => `  ${line}`));
  if (server) lines.push(`  ${serverText(server)}`);
  if (departure) lines.push(...departureLines(departure).map(line => `  ${line}`));
  return `${lines.join('\n')}\n`;
}

function flowText(flow: PacketExplanation['flow']): string {
  if (flow.family === 0) return 'a frame without IP';
  const protocol = PROTOCOL_NAMES[flow.protocol] ?? `protocol ${flow.protocol}`;
  const flags = flow.flags.length > 0 ? ` [${flow.flags.join(' ').toUpperCase()}]` : '';
  const source = endText(flow.source, flow.sourcePort);
  return `${protocol} ${source} -> ${endText(flow.destination, flow.destinationPort)}${flags}, ${flow.length} bytes`;
}

function endText(address: string, port: number): string {
  if (port === 0) return address;
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

function connectionText(connection: ExplainedConnection): string {
  const { state, expiresIn, client, clientPort, virtual, virtualPort, destination, destinationPort } =
    connection;
  const ends = `${endText(client, clientPort)} ${endText(virtual, virtualPort)} ${endText(destination, destinationPort)}`;
  const by = connection.controlledBy ? ', under a template or control connection' : '';
  const engine = connection.engineData === '' ? '' : `, ${connection.engine} ${connection.engineData}`;
  return `${ends}, ${state}, ${expiresIn} s left, ${connection.packets} packets${engine}${by}`;
}

function serverText(server: ExplainedServer): string {
  const threshold =
    server.upperThreshold === 0
      ? ''
      : `, thresholds ${server.upperThreshold}/${server.lowerThreshold}${server.overloaded ? ' (overloaded)' : ''}`;
  const gone = server.available ? '' : ', deleted';
  return `to ${endText(server.address, server.port)}: ${server.method}, weight ${server.weight}, ${server.active} active, ${server.inactive} inactive${threshold}${gone}`;
}

function departureLines(departure: Departure): string[] {
  const lines = [`${departure.outcome} by ${departure.method}`];
  if (departure.interfaceIndex !== undefined) {
    const to = departure.destinationMac ?? 'a neighbour that is still looked for';
    lines.push(`out of interface ${departure.interfaceIndex} to ${to}, from ${departure.sourceMac}`);
  }
  if (departure.mtu !== undefined) lines.push(`the way takes ${departure.mtu} bytes`);
  lines.push(`TTL ${departure.ttl.before} -> ${departure.ttl.after}`);
  for (const { field, from, to } of departure.changes) lines.push(`${field} ${from} -> ${to}`);
  return lines;
}

function candidateText(candidate: Candidate, nameOf: (destination: number) => string): string {
  const eligible = candidate.eligible ? '' : ', not eligible';
  return `${nameOf(candidate.destination)} (weight ${candidate.weight}, ${candidate.active} active, ${candidate.inactive} inactive${eligible})`;
}

function costText(candidate: CostCandidate, nameOf: (destination: number) => string): string {
  const cost = candidate.cost === undefined ? (candidate.excluded ?? 'no cost') : `cost ${candidate.cost}`;
  return `${candidateText(candidate, nameOf)}: ${cost}`;
}

function selectionLines(selection: SelectionExplanation, nameOf: (destination: number) => string): string[] {
  const chosen =
    selection.chosen === null ? 'left to chance' : selection.chosen < 0 ? 'nobody' : nameOf(selection.chosen);
  switch (selection.kind) {
    case 'sequence':
      return [
        `${selection.weighted ? 'weighted ' : ''}round robin takes ${chosen}`,
        ...selection.passes.map(({ weight, probed, taken }) => {
          const looked =
            probed.map(candidate => candidateText(candidate, nameOf)).join(', ') || 'nobody left';
          return `  pass of weight ${weight}: ${looked}${taken ? ', the last taken' : ''}`;
        }),
      ];
    case 'hash':
      return [
        `${selection.algorithm} of ${selection.address}${selection.port === undefined ? '' : ` port ${selection.port}`} takes ${chosen}`,
        ...selection.probed.map(({ place, destination, eligible }) => {
          const whose = destination < 0 ? 'empty' : nameOf(destination);
          return `  place ${place}: ${whose}${eligible ? '' : ', not eligible'}`;
        }),
      ];
    case 'least-cost':
      return [
        `${selection.cost} takes ${chosen}${selection.idle ? ', which is idle' : ''}`,
        ...selection.candidates.map(candidate => `  ${costText(candidate, nameOf)}`),
      ];
    case 'random':
      return [
        `two draws of ${selection.totalWeight}: ${chosen}`,
        ...selection.candidates.map(
          candidate =>
            `  ${candidateText(candidate, nameOf)}: numbers ${candidate.from}..${candidate.to}, load ${candidate.overhead}`,
        ),
      ];
    case 'locality':
      return [
        `${selection.replicated ? 'lblcr' : 'lblc'} for ${selection.address}: ${selection.decision}, takes ${chosen}`,
        ...(selection.candidates ?? []).map(candidate => `  ${costText(candidate, nameOf)}`),
      ];
  }
}
