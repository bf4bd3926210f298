/** What `dirigo up` is told about the guard over ARP and neighbour discovery. */
import type { Command } from 'commander';
import type { Binding } from '../arp/cluster-knowledge.ts';
import type { GuardSettings } from '../control/neighbour-keeper.ts';
import type { GuardMode } from '../guard/guard-service.ts';
import { repeated } from './arp-options.ts';

export interface GuardUpOptions {
  guard: string[];
  guardDirector: string[];
  guardVrid: string[];
  guardGateway: string[];
  guardWebhook?: string;
}

const MODES: readonly GuardMode[] = ['watch', 'protect', 'enforce'];

export function addGuardOptions(command: Command): Command {
  command
    .option(
      '--guard <interface[:mode]>',
      'xdp: guard ARP and neighbour discovery there; mode watch (default), protect or enforce, see docs/arp.md (repeat)',
      repeated,
      [],
    )
    .option(
      '--guard-director <mac>',
      'a MAC of another director, where the VIPs may be (repeat)',
      repeated,
      [],
    )
    .option('--guard-vrid <number>', 'a virtual router whose MACs may have the VIPs (repeat)', repeated, [])
    .option('--guard-gateway <address[=mac,…]>', 'a gateway, and where it may be (repeat)', repeated, [])
    .option('--guard-webhook <url>', 'POST each of its events there, as JSON');
  for (const option of command.options) {
    if (option.long?.startsWith('--guard') && Array.isArray(option.defaultValue)) {
      option.defaultValueDescription = 'none';
    }
  }
  return command;
}

/** @throws Error that names the option that makes no sense */
export async function guardSettings(options: GuardUpOptions): Promise<GuardSettings | undefined> {
  const { guard, guardDirector, guardVrid, guardGateway, guardWebhook } = options;
  if (guard.length === 0) {
    if (guardDirector.length + guardVrid.length + guardGateway.length > 0 || guardWebhook !== undefined) {
      throw new Error('the options --guard-… tell the guard something, but there is no --guard');
    }
    return undefined;
  }
  const { ClusterKnowledge, EMPTY_CLUSTER } = await import('../arp/cluster-knowledge.ts');
  const { checkWebhookUrl } = await import('../guard/webhook.ts');
  const settings = {
    interfaces: guard.map(parseGuarded),
    directors: guardDirector,
    virtualRouters: guardVrid.map(Number),
    gateways: guardGateway.map(parseBinding),
  };
  new ClusterKnowledge({ ...EMPTY_CLUSTER, ...settings });
  return { ...settings, ...(guardWebhook === undefined ? {} : { webhook: checkWebhookUrl(guardWebhook) }) };
}

function parseGuarded(text: string): { name: string; mode: GuardMode } {
  const [, name = text, word] = /^(.*):([a-z]+)$/.exec(text) ?? [];
  const mode = word === undefined ? 'watch' : MODES.find(each => each === word);
  if (!mode) throw new Error(`--guard ${text}: the mode is watch, protect or enforce`);
  return { name, mode };
}

/** `10.0.0.254` or `10.0.0.254=00:50:56:e1:eb:34`, several MACs with commas. @throws Error */
export function parseBinding(text: string): Binding {
  const [address = '', macs, ...others] = text.split('=');
  if (others.length > 0 || macs === '') {
    throw new Error(`"${text}" is no binding such as 10.0.0.7=00:0c:29:3b:07:73`);
  }
  return { address, macs: macs?.split(',') ?? [] };
}
