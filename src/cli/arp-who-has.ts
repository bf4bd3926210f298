/** `dirigo arp who-has`: asks the segment for an address and shows everybody who answers. */
import type { Command } from 'commander';
import type { Answer } from '../arp/who-has.ts';
import { openSegment, seconds, stationAddress, wholeNumber } from './arp-options.ts';
import { orFail } from './failure.ts';

interface WhoHasOptions {
  interface?: string;
  namespace?: string;
  source?: string;
  count: number;
  interval: number;
  timeout: number;
  duplicate?: true;
  json?: true;
}

/** Exit statuses besides 0 and, for errors, 1. */
const NOBODY = 2;
const SEVERAL = 3;

/** What is said of the answers, besides themselves. */
export interface Conclusion {
  status: number;
  text: string;
}

export function addWhoHas(arp: Command): void {
  arp
    .command('who-has')
    .summary('ask who has an address; lists every MAC that answers')
    .description(
      'Ask everybody on the segment for an address, by ARP or neighbour discovery frames of its own, and list every MAC\n' +
        'that answers, with the time it took and who made the card. It neither looks at the table nor stops at the first\n' +
        'answer: two answers for a VIP are the classic fault of direct routing.',
    )
    .argument('<address>')
    .option('-i, --interface <name>', 'ask on this interface (default: the one that the routes say)')
    .option('--namespace <name>', 'in this network namespace')
    .option('--source <address>', 'the address that asks (default: one of the interface)')
    .option('--count <n>', 'questions to send', wholeNumber(1, 1000), 2)
    .option('--interval <seconds>', 'time between two of them', seconds(0.01, 60), 200)
    .option('--timeout <seconds>', 'time to wait behind the last one', seconds(0.01, 60), 1000)
    .option(
      '--duplicate',
      'ask without a source address, to see whether the address is free (RFC 5227, RFC 4862)',
    )
    .option('--json', 'print it as JSON')
    .addHelpText(
      'after',
      '\nStatus: 0 one station has it (with --duplicate: nobody, it is free); 1 it could not be asked;\n' +
        '2 nobody answered; 3 several have it, this host included (with --duplicate: somebody has it).',
    )
    .action((address: string, options: WhoHasOptions) => orFail(() => whoHas(address, options)));
  // Commander would print the milliseconds.
  const command = arp.commands.find(each => each.name() === 'who-has');
  for (const option of command?.options ?? []) {
    if (option.long === '--interval') option.defaultValueDescription = '0.2';
    if (option.long === '--timeout') option.defaultValueDescription = '1';
  }
}

async function whoHas(text: string, options: WhoHasOptions): Promise<void> {
  if (options.duplicate && options.source !== undefined) {
    throw new Error('--duplicate asks without a source address: leave --source away');
  }
  const { formatAddress, formatMac } = await import('../wire/address.ts');
  const { familyOfBytes, sourceFor } = await import('../guard/segment.ts');
  const { unspecified } = await import('../arp/who-has.ts');
  const { enquire } = await import('../guard/enquiry.ts');
  const target = await stationAddress(text);
  const { segment, own, state } = await openSegment(target, options.interface, options.namespace);
  const given = options.source === undefined ? undefined : await stationAddress(options.source);
  if (given && given.length !== target.length) {
    throw new Error(`${options.source} and ${text} are not of the same family`);
  }
  const none = unspecified(familyOfBytes(target));
  const source = options.duplicate ? none : (given ?? sourceFor(own, target, state) ?? none);
  const address = formatAddress(target);
  const asked = `Who has ${address}? ${source === none ? 'Asked without an address' : `Tell ${formatAddress(source)}`} (${own.name})`;
  if (!options.json) process.stdout.write(`${asked}\n`);
  const { count, interval, timeout } = options;
  const answers = await enquire(segment, { target, source, count, interval, timeout });
  segment.close();
  const isOwn = state.addresses.some(each => formatAddress(each.bytes) === address);
  const conclusion = conclude(address, answers, isOwn, options.duplicate === true);
  const { vendorOf } = await import('./vendor.ts');
  if (options.json) {
    const stations = answers.map(answer => ({ ...answer, vendor: vendorOf(answer.mac) ?? null }));
    const report = {
      address,
      interface: own.name,
      source: source === none ? null : formatAddress(source),
      questions: count,
      stations,
      ownMac: isOwn ? formatMac(own.mac) : null,
      conclusion: conclusion.text,
    };
    process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
  } else {
    for (const answer of answers)
      process.stdout.write(`${answerLine(address, answer, vendorOf(answer.mac))}\n`);
    if (conclusion.text) process.stdout.write(`${conclusion.text}\n`);
  }
  process.exitCode = conclusion.status;
}

function answerLine(address: string, answer: Answer, vendor: string | undefined): string {
  const { mac, time, count, ethernetSource } = answer;
  const times = count === 1 ? '1 answer' : `${count} answers`;
  const through = ethernetSource === undefined ? '' : `, in a frame from ${ethernetSource}`;
  return `${address} is at ${mac}  ${time.toFixed(3)} ms  ${times}  ${vendor ?? 'vendor not known'}${through}`;
}

/** What the answers mean. */
export function conclude(
  address: string,
  answers: readonly Answer[],
  isOwn: boolean,
  isProbe: boolean,
): Conclusion {
  if (isProbe) {
    if (isOwn) return { status: SEVERAL, text: `${address} is in use: this host has it.` };
    if (answers.length === 0) return { status: 0, text: `${address} is free: nobody has it.` };
    return { status: SEVERAL, text: `${address} is in use.` };
  }
  const holders = answers.length + (isOwn ? 1 : 0);
  if (answers.length === 0) {
    return isOwn
      ? { status: 0, text: `This host has ${address} itself, and nobody else answers for it.` }
      : { status: NOBODY, text: `Nobody has ${address}: no answer.` };
  }
  if (holders === 1) return { status: 0, text: '' };
  const who = isOwn
    ? `This host has ${address} itself, and ${answers.length === 1 ? 'another station answers' : `${answers.length} others answer`} for it, too.`
    : `${answers.length} stations answer for ${address}.`;
  return {
    status: SEVERAL,
    text: `${who} If it is a VIP, a real server does not keep silent about it: set arp_ignore=1 and
arp_announce=2 there, or two directors hold it at the same time. Else it is a duplicate address, or somebody spoofs it.`,
  };
}
