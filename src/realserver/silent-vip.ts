/** What direct routing and tunnels have in common: the VIP on lo, and nobody hears of it. */
import { type Family, familyOf } from '../wire/address.ts';
import { effective, wayToClients } from './host.ts';
import { examineReplies, examineSilence, receivingInterfaces } from './network-position.ts';
import { AddressStep, SettingStep } from './network-steps.ts';
import { familiesOf, type Request } from './request.ts';
import type { Finding, Plan, Step } from './step.ts';

/**
 * The settings come first: at no moment the VIP is there and answered for. IPv6 needs none, because the kernel answers
 * neighbour solicitations only for addresses of the interface they come in by (ndisc_recv_ns in net/ipv6/ndisc.c).
 */
export function planSilentVip(request: Request): Plan & { receiving: string[] } {
  const receiving = receivingInterfaces(request);
  const families = familiesOf(request.vips);
  const vips4 = request.vips.filter(vip => familyOf(vip) === 4);
  const steps: Step[] = [];
  if (vips4.length > 0)
    steps.push(...arpSettings(receiving, vips4), ...reversePathSettings(receiving, vips4));
  for (const vip of request.vips) steps.push(new AddressStep(vip, 'lo'));
  return {
    receiving,
    steps,
    examine: () => [
      ...examineSilence(request.vips, receiving),
      ...examineReplies(families),
      ...examineDirectorAsGateway(request, families),
    ],
    advice: () => [],
  };
}

function arpSettings(receiving: readonly string[], vips: readonly string[]): Step[] {
  return ['all', ...receiving].flatMap(device => [
    new SettingStep({
      name: { family: 4, device, key: 'arp_ignore' },
      value: 1,
      accepted: [1, 2],
      combined: 'largest',
      vips,
      effect:
        'this host answers ARP requests for the VIP, and clients may come here instead of to the director',
    }),
    new SettingStep({
      name: { family: 4, device, key: 'arp_announce' },
      value: 2,
      combined: 'largest',
      vips,
      effect: "this host's own ARP requests may name the VIP as theirs, and neighbours learn it",
    }),
  ]);
}

/**
 * Strict reverse path filtering drops clients' packets where replies to them leave by another interface; 2 accepts what
 * has any way back. The larger of an interface's value and that of `all` counts, so the interface's is enough.
 */
function reversePathSettings(receiving: readonly string[], vips: readonly string[]): Step[] {
  const way = wayToClients(4);
  return receiving
    .filter(device => way && way.device !== device)
    .filter(device => effective({ family: 4, device, key: 'rp_filter' }) === 1)
    .map(
      device =>
        new SettingStep({
          name: { family: 4, device, key: 'rp_filter' },
          value: 2,
          combined: 'own',
          vips,
          effect: `packets of clients are dropped, because replies to them leave by ${way?.device}`,
        }),
    );
}

/** In these modes replies go around the director; one that is their gateway takes them for forged. */
function examineDirectorAsGateway(request: Request, families: readonly Family[]): Finding[] {
  return families.flatMap(family => {
    const gateway = wayToClients(family)?.gateway;
    const isDirector = request.directors.some(
      ({ address }) => familyOf(address) === family && address === gateway,
    );
    if (!isDirector) return [];
    return [
      {
        level: 'warning',
        text: `replies leave by the director ${gateway}, which holds the VIP itself and may drop them as forged`,
        remedy: 'give the default route a gateway other than the director',
      },
    ];
  });
}

export function planDirectRouting(request: Request): Plan {
  return planSilentVip(request);
}
