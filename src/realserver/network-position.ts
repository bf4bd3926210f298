/** Which interfaces packets to a VIP come in by, and what is wrong with how the host holds the VIP. */
import { type Family, familyOf } from '../wire/address.ts';
import {
  effective,
  type Interface,
  interfaces,
  proxiedAddresses,
  readSetting,
  settingText,
  wayTo,
  wayToClients,
} from './host.ts';
import { familiesOf, type Request } from './request.ts';
import type { Finding } from './step.ts';

/**
 * The interfaces that were named, else those towards the directors, else that of the default route, else the only one.
 * @throws Error if none of this says it
 */
export function receivingInterfaces(request: Request): string[] {
  const all = interfaces();
  for (const name of request.interfaces) {
    const found = all.find(each => each.name === name);
    if (!found)
      throw new Error(`there is no interface ${name}; there are ${all.map(each => each.name).join(', ')}`);
    if (found.isLoopback)
      throw new Error(`--interface ${name}: name the one that packets to the VIP come in by`);
  }
  if (request.interfaces.length > 0) return request.interfaces;
  const found = new Set<string>();
  for (const family of familiesOf(request.vips.length > 0 ? request.vips : ['0.0.0.0'])) {
    const directors = request.directors.filter(({ address }) => familyOf(address) === family);
    for (const { address } of directors) {
      const device = wayTo(address)?.device;
      if (device) found.add(device);
    }
    const device = directors.length === 0 ? wayToClients(family)?.device : undefined;
    if (device && device !== 'lo') found.add(device);
  }
  if (found.size > 0) return [...found];
  const candidates = all.filter(({ isSilent }) => !isSilent);
  const [only] = candidates;
  if (candidates.length === 1 && only) return [only.name];
  const names = candidates.map(({ name }) => name).join(', ') || 'none';
  throw new Error(
    `which interface do packets to the VIP come in by? Name it with --interface (there are: ${names})`,
  );
}

/** What is wrong with a VIP that has to be silent on this host, and with the interfaces it is reached by. */
export function examineSilence(vips: readonly string[], receiving: readonly string[]): Finding[] {
  const all = interfaces();
  return [
    ...vips.flatMap(vip => examineVip(vip, all)),
    ...all.filter(({ name }) => receiving.includes(name)).flatMap(each => examineInterface(each, vips)),
    ...examineFlux(vips, all, receiving),
  ];
}

function examineVip(vip: string, all: readonly Interface[]): Finding[] {
  const findings: Finding[] = [];
  const family = familyOf(vip);
  const bits = family === 4 ? 32 : 128;
  for (const { name, isSilent, addresses } of all) {
    for (const found of addresses.filter(({ address }) => address === vip)) {
      const remove = `ip address delete ${vip}/${found.prefixLength} dev ${name}`;
      if (!isSilent) {
        findings.push({
          level: 'wrong',
          text: `${vip} is on ${name}, which answers who has it: clients' packets come here and not to the director`,
          remedy: remove,
        });
      } else if (found.prefixLength !== bits) {
        findings.push({
          level: 'wrong',
          text: `${vip} is on ${name} with /${found.prefixLength}: the whole network counts as this host`,
          remedy: `${remove}; ip address add ${vip}/${bits} dev ${name}`,
        });
      } else if (found.isTentative || found.hasFailedDetection) {
        findings.push({
          level: 'wrong',
          text: `${vip} on ${name} waits for, or failed, duplicate address detection: it is not used`,
          remedy: `${remove}; ip address add ${vip}/${bits} dev ${name} nodad`,
        });
      }
    }
  }
  if (family === 6) {
    for (const { address, device } of proxiedAddresses().filter(each => each.address === vip)) {
      findings.push({
        level: 'wrong',
        text: `${device} answers neighbour solicitations for ${address} as a proxy`,
        remedy: `ip -6 neigh delete proxy ${address} dev ${device}`,
      });
    }
  }
  return findings;
}

function examineInterface({ name, isUp }: Interface, vips: readonly string[]): Finding[] {
  const findings: Finding[] = [];
  if (!isUp) {
    findings.push({ level: 'wrong', text: `${name} is down`, remedy: `ip link set ${name} up` });
  }
  for (const device of [name, 'lo']) {
    const setting = { family: 6, device, key: 'disable_ipv6' } as const;
    if (vips.some(vip => familyOf(vip) === 6) && readSetting(setting) !== 0) {
      findings.push({
        level: 'wrong',
        text: `IPv6 is switched off on ${device}`,
        remedy: `sysctl -w ${settingText(setting)}=0`,
      });
    }
  }
  if (!interfaces().find(each => each.isLoopback)?.isUp) {
    findings.push({
      level: 'wrong',
      text: 'lo is down: its addresses are not reached',
      remedy: 'ip link set lo up',
    });
  }
  return findings;
}

/** Interfaces besides the one that packets come in by that answer for the VIP: each is an answer too many. */
function examineFlux(
  vips: readonly string[],
  all: readonly Interface[],
  receiving: readonly string[],
): Finding[] {
  if (!vips.some(vip => familyOf(vip) === 4)) return [];
  const findings: Finding[] = [];
  const ignoring = (device: string): number => effective({ family: 4, device, key: 'arp_ignore' });
  const onLo = readSetting({ family: 4, device: 'lo', key: 'arp_ignore' }) ?? 0;
  const loud = all.filter(({ name, isUp, isSilent }) => isUp && !isSilent && ignoring(name) === 0);
  if (onLo > 0 && loud.length > 0) {
    findings.push({
      level: 'missing',
      text: 'arp_ignore is set on lo, where no ARP request arrives: what counts is the interface it comes in by, or all',
      remedy: 'sysctl -w net.ipv4.conf.all.arp_ignore=1',
    });
  }
  for (const { name } of loud.filter(each => !receiving.includes(each.name))) {
    findings.push({
      level: 'missing',
      text: `${name} answers ARP requests for the VIP too (ARP flux): arp_ignore is 0 there and for all`,
      remedy: 'sysctl -w net.ipv4.conf.all.arp_ignore=1',
    });
  }
  return findings;
}

/** No way to clients: replies do not leave. */
export function examineReplies(families: readonly Family[]): Finding[] {
  return families
    .filter(family => !wayToClients(family))
    .map(family => ({
      level: 'warning',
      text: `there is no default route for IPv${family}: replies reach only clients on this host's own networks`,
      remedy: `ip -${family} route add default via <gateway>`,
    }));
}
