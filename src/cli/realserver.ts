/** `dirigo realserver`: what a real server needs in each mode. */
import { type Command, Option } from 'commander';
import type { Report } from '../realserver/change.ts';
import type { Check } from '../realserver/plan.ts';
import type { RequestWords } from '../realserver/request.ts';
import { orFail } from './failure.ts';

interface RealserverOptions extends Omit<RequestWords, 'mode'> {
  mode?: string;
  check?: true;
  print?: true;
  undo?: true;
  persist?: true;
  json?: true;
}

/** Status of `--check` if it could not be made; 1 is that something is missing. */
const CHECK_FAILED = 2;

const collect = (value: string, before: string[]): string[] => [...before, value];

const HELP = `
Modes:
  dr       the VIP on lo, and silence about it (arp_ignore, arp_announce)
  tun      the same, and packets are taken out of the director's tunnels
  nat      replies leave by the director: the default route
  fullnat  programs see the client's address, not the director's: from the TCP option TOA

Without --check, --print or --undo the server is made ready, and what was there before is recorded for --undo. What is
so already stays and is not recorded. Running it again adds to it.
--check: status 0 ready, 1 something is missing or wrong, 2 the check could not be made.

Examples:
  dirigo realserver --mode dr --vip 10.0.0.3 --vip 2001:db8::3
  dirigo realserver --mode tun --vip 10.0.0.3 --director 10.0.9.5 --tunnel gue
  dirigo realserver --mode nat --director 10.0.0.5
  dirigo realserver --mode fullnat --lip 10.0.0.32/28 --unit nginx.service
  dirigo realserver --mode dr --vip 10.0.0.3 --check
  dirigo realserver --undo

See docs/realserver.md.`;

export function addRealserver(program: Command): void {
  program
    .command('realserver')
    .summary('make this host a real server, check it, undo it')
    .description('Make this host ready to be a real server of a virtual service, and take it back.')
    .addOption(
      new Option('--mode <mode>', 'how the director forwards').choices(['dr', 'tun', 'nat', 'fullnat']),
    )
    .addOption(
      new Option('--vip <address>', 'of the service; repeat for more').argParser(collect).default([], 'none'),
    )
    .option('--check', 'say what is missing or wrong, and change nothing')
    .option('--print', 'print equivalent shell commands, and change nothing')
    .option('--undo', 'take back what was made: all of it, or what only the given --mode and --vip needed')
    .option('--persist', 'also after a reboot (systemd): a unit, and sysctl.d where settings are needed')
    .option('--json', 'with --check: as JSON')
    .addOption(
      new Option(
        '--interface <interface>',
        'dr, tun, nat: that packets to the VIP come in by; repeat for more',
      )
        .argParser(collect)
        .default([], 'that towards the director, or of the default route'),
    )
    .addOption(
      new Option(
        '--director <address>',
        "nat: the director on this network; tun: address or prefix of a director, others' tunnels are refused; dr: it is not to be the gateway; repeat for more",
      )
        .argParser(collect)
        .default([], 'none'),
    )
    .option(
      '--clients-on-lan',
      "nat: clients on this host's own network get their replies by the director too",
    )
    .addOption(
      new Option('--client <address>', 'nat: a client whose replies --check looks up; repeat for more')
        .argParser(collect)
        .default([], 'one that is far away'),
    )
    .addOption(
      new Option('--tunnel <type>', 'tun: ipip, gue or gre; repeat for more')
        .argParser(collect)
        .default([], 'all three'),
    )
    .option('--gue-port <port>', 'tun: the UDP port of GUE', '6080')
    .addOption(
      new Option('--decapsulation <how>', "tun: by the kernel's tunnel devices, or by a BPF program")
        .choices(['auto', 'bpf', 'device'])
        .default('auto', 'auto: devices where the kernel has them and no --director restricts who may send'),
    )
    .option(
      '--advmss [bytes]',
      'tun: announce segments on the default routes that fit into the tunnel (or of that many bytes)',
    )
    .addOption(
      new Option(
        '--lip <prefix>',
        'fullnat: local address of the director, or a prefix of them: only these are believed; repeat for more',
      )
        .argParser(collect)
        .default([], 'none'),
    )
    .addOption(
      new Option('--cgroup <folder>', 'fullnat: the cgroup whose programs see clients; repeat for more')
        .argParser(collect)
        .default([], 'none'),
    )
    .addOption(
      new Option('--unit <unit>', 'fullnat: the systemd unit whose programs see clients; repeat for more')
        .argParser(collect)
        .default([], 'none'),
    )
    .addHelpText('after', HELP)
    .action((options: RealserverOptions) => realserver(options));
}

async function realserver(options: RealserverOptions): Promise<void> {
  const actions = (['check', 'print', 'undo'] as const).filter(action => options[action]);
  if (actions.length > 1) {
    return orFail(async () => {
      throw new Error(`--${actions.join(' and --')} exclude each other: give one of them`);
    });
  }
  if (!options.check) return orFail(() => change(options));
  await orFail(() => runCheck(options));
  // An error is not the same as a server that is not ready.
  if (process.exitCode === 1 && !checked) process.exitCode = CHECK_FAILED;
}

/** Whether `runCheck` came to a result. */
let checked = false;

async function change(options: RealserverOptions): Promise<void> {
  if (options.json) throw new Error('--json goes with --check');
  if (options.undo) return undoChanges(options);
  const { planFor, check } = await import('../realserver/plan.ts');
  const { parseRequest, requestWords } = await import('../realserver/request.ts');
  const { shellScript } = await import('../realserver/script.ts');
  const { addPersistence } = await import('../realserver/persistence.ts');
  const request = parseRequest({ ...options, mode: modeOf(options) });
  const plan = planFor(request);
  if (options.persist) addPersistence(plan, request);
  if (options.print) {
    process.stdout.write(shellScript(plan, requestWords(request)));
    return;
  }
  requireRoot();
  const { ChangeRecord } = await import('../realserver/record.ts');
  const { apply } = await import('../realserver/change.ts');
  const record = new ChangeRecord();
  try {
    if (options.persist) record.persistent = true;
    printReports(apply(plan, request, record));
  } finally {
    record.close();
  }
  const result = check(plan);
  printCheck(result, request.mode);
  if (!result.ready) process.exitCode = 1;
}

async function undoChanges(options: RealserverOptions): Promise<void> {
  requireRoot();
  const { ChangeRecord } = await import('../realserver/record.ts');
  const { undo } = await import('../realserver/change.ts');
  const { formatAddress, parseAddress } = await import('../wire/address.ts');
  const vips = options.vip.map(text => {
    const bytes = parseAddress(text);
    if (!bytes) throw new Error(`--vip ${text}: not an IP address`);
    return formatAddress(bytes);
  });
  const record = new ChangeRecord();
  try {
    const reports = undo(record, { vips, ...(options.mode === undefined ? {} : { mode: options.mode }) });
    printReports(reports);
    if (reports.length === 0) process.stdout.write('nothing to undo: nothing is recorded for this\n');
  } finally {
    record.close();
  }
}

async function runCheck(options: RealserverOptions): Promise<void> {
  const { planFor, check } = await import('../realserver/plan.ts');
  const { parseRequest } = await import('../realserver/request.ts');
  const request = parseRequest({ ...options, mode: modeOf(options) });
  const plan = planFor(request);
  if (options.persist) {
    const { addPersistence } = await import('../realserver/persistence.ts');
    addPersistence(plan, request);
  }
  const result = check(plan);
  checked = true;
  if (options.json) {
    const { mode, vips } = request;
    process.stdout.write(`${JSON.stringify({ mode, vips, ...result }, undefined, 2)}\n`);
  } else printCheck(result, request.mode);
  if (!result.ready) process.exitCode = 1;
}

function modeOf({ mode }: RealserverOptions): string {
  if (mode === undefined) throw new Error('name the mode: --mode dr, tun, nat or fullnat');
  return mode;
}

function requireRoot(): void {
  if (process.geteuid?.() !== 0) {
    throw new Error('changing addresses, settings, routes and programs needs root; --print does not');
  }
}

function printReports(reports: readonly Report[]): void {
  for (const { what, text } of reports) process.stdout.write(`${what.padEnd(8)} ${text}\n`);
}

function printCheck({ ready, findings, advice }: Check, mode: string): void {
  const lines = findings.map(
    ({ level, text, remedy }) => `${level.padEnd(8)} ${text}\n           -> ${remedy}\n`,
  );
  const notes = advice.map(text => `note     ${text}\n`);
  process.stdout.write(`${lines.join('')}${notes.join('')}${ready ? 'ready' : 'not ready'} for ${mode}\n`);
}
