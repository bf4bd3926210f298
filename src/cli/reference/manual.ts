/** The manual pages: one of `dirigo`, one of each of its commands, and those of the ipvsadm family. */
import { SCHEDULERS } from '../../ipvs/schedulers/registry.ts';
import { allCommands, type CommandLine, type OptionLine } from './command-line.ts';
import { ipvsadmOptions } from './ipvsadm-line.ts';
import { bold, italic, ManualPage } from './roff.ts';

/** Section of administration. */
const SECTION = 8;

export interface ManualOptions {
  /** YYYY-MM-DD, at the foot of the pages. */
  date: string;
  version: string;
}

/** What the environment says to `dirigo` and `ipvsadm`. */
export const ENVIRONMENT: Readonly<Record<string, string>> = {
  DIRIGO_SOCKET:
    'Path of the control socket. Default: `/run/dirigo/dirigo.sock` for root, else `dirigo.sock` in the directory that XDG_RUNTIME_DIR names.',
  DIRIGO_STATE: 'Folder of the desired state, where --state is not given.',
  DIRIGO_BPF:
    'Where programs, maps and links of the XDP data path are pinned; those of a real server beside it, with `-realserver` behind. Default: `/sys/fs/bpf/dirigo`.',
  DIRIGO_REALSERVER_STATE:
    'Folder of what `dirigo realserver` changed. Default: `/var/lib/dirigo/realserver`.',
  DIRIGO_ETC: 'Where `dirigo realserver --persist` writes in the place of `/etc`: for images of other hosts.',
};

const FILES: Readonly<Record<string, string>> = {
  '/run/dirigo/dirigo.sock': 'The control socket of a daemon of root.',
  '/sys/fs/bpf/dirigo': 'Pins of the XDP data path. They outlive the daemon; `dirigo down` removes them.',
  '/var/lib/dirigo/realserver': 'What `dirigo realserver` changed, for --undo.',
  '/var/lib/dirigo': 'The desired state, where the Debian package runs the daemon.',
  '/etc/default/dirigo': 'Options of the daemon that the Debian package runs.',
};

/** All pages by their file names. */
export function manualPages(
  program: CommandLine,
  family: readonly CommandLine[],
  options: ManualOptions,
): Map<string, string> {
  const pages = new Map<string, string>();
  for (const command of allCommands(program)) {
    // Help is described where it is asked for; ipvsadm has a page of its own.
    if (['help', 'ipvsadm'].includes(command.path.at(-1) as string)) continue;
    const isProgram = command.path.length === 1;
    const page = isProgram ? programPage(command, family, options) : commandPage(command, program, options);
    pages.set(`${command.path.join('-')}.${SECTION}`, page);
  }
  pages.set(`ipvsadm.${SECTION}`, ipvsadmPage(options));
  pages.set(`ipvsadm-save.${SECTION}`, savePage(options));
  pages.set(`ipvsadm-restore.${SECTION}`, restorePage(options));
  return pages;
}

function beginPage(name: string, summary: string, { date, version }: ManualOptions): ManualPage {
  return new ManualPage(name.toUpperCase(), SECTION, date, `dirigo ${version}`).name(name, summary);
}

function programPage(program: CommandLine, family: readonly CommandLine[], options: ManualOptions): string {
  const page = beginPage('dirigo', 'the Linux Virtual Server as one system', options);
  page.section('SYNOPSIS').synopsis('dirigo', ['[options]', 'command', '[arguments]']);
  page.section('DESCRIPTION').text(program.description);
  page.paragraph(
    'A director picks a real server for each connection to a virtual service and forwards its packets by NAT, direct routing, ' +
      'tunnels or FULLNAT. `dirigo up` is the director; it is configured with `ipvsadm` and needs no kernel module.',
  );
  page.section('COMMANDS');
  for (const command of program.commands) {
    if (command.path.at(-1) === 'help') continue;
    const name = command.path.at(-1) as string;
    page.entry(
      [bold(name), ...command.arguments.map(each => italic(each.name))].join(' '),
      `${command.summary} (see ${name === 'ipvsadm' ? '' : 'dirigo-'}${name}(${SECTION}))`,
    );
  }
  writeOptions(page.section('OPTIONS'), program.options);
  page.section('ENVIRONMENT');
  for (const [name, text] of Object.entries(ENVIRONMENT)) page.entry(bold(name), text);
  page.section('FILES');
  for (const [path, text] of Object.entries(FILES)) page.entry(italic(path), text);
  page.section('EXIT STATUS').text('0, or 1 if the command could not be done, which one line says why.');
  const others = [
    ...allCommands(program)
      .filter(({ path }) => path.length === 2 && !['help', 'ipvsadm'].includes(path[1] as string))
      .map(({ path }) => path.join('-')),
    ...family.map(({ path }) => path.join('-')),
  ];
  return `${seeAlso(page, others)}`;
}

function commandPage(command: CommandLine, program: CommandLine, options: ManualOptions): string {
  const name = command.path.join('-');
  const page = beginPage(name, command.summary, options);
  page.section('SYNOPSIS');
  const typed = command.path.join(' ');
  if (command.commands.length > 0) page.synopsis(typed, ['command', '[arguments]']);
  else {
    page.synopsis(typed, [
      ...(command.options.length > 0 ? ['[options]'] : []),
      ...command.arguments.map(({ name, isRequired, isVariadic }) => {
        const text = isVariadic ? `${name}...` : name;
        return isRequired ? text : `[${text}]`;
      }),
    ]);
  }
  page.section('DESCRIPTION').text(command.description);
  const described = command.arguments.filter(({ description }) => description !== '');
  if (described.length > 0) page.section('ARGUMENTS');
  for (const { name, description } of described) page.entry(italic(name), sentence(description));
  if (command.commands.length > 0) page.section('COMMANDS');
  for (const each of command.commands) page.entry(bold(each.path.at(-1) as string), sentence(each.summary));
  writeOptions(page.section('OPTIONS'), command.options);
  if (command.notes !== '') page.section('NOTES').text(command.notes);
  const siblings = command.commands
    .filter(each => each.path.at(-1) !== 'help')
    .map(each => each.path.join('-'));
  return `${seeAlso(page, [...program.path, ...siblings])}`;
}

function writeOptions(page: ManualPage, options: readonly OptionLine[]): ManualPage {
  for (const option of options) page.entry(optionTerm(option), sentence(option.description));
  return page;
}

function optionTerm(option: OptionLine): string {
  const { argument, value } = option;
  const names = option.names.map(bold).join(', ');
  if (argument === 'none') return names;
  const shown = value === '' ? 'value' : value;
  return argument === 'optional' ? `${names} [${italic(shown)}]` : `${names} ${italic(shown)}`;
}

/** Descriptions of commander's style as a sentence. */
function sentence(text: string): string {
  if (text === '') return '';
  // `xdp: in the kernel` begins with what is typed.
  if (/^\S+:/.test(text)) return `${text}${/[.:!?]$/.test(text) ? '' : '.'}`;
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.:!?]$/.test(text) ? '' : '.'}`;
}

function seeAlso(page: ManualPage, names: readonly string[]): ManualPage {
  const sorted = [...new Set(names)].sort();
  return page.section('SEE ALSO').references(sorted, SECTION);
}

function ipvsadmPage(options: ManualOptions): string {
  const page = beginPage('ipvsadm', 'configure and list the virtual server', options).section('SYNOPSIS');
  const service = '{-t|-u|--sctp-service}';
  for (const parts of [
    ['-A|-E', service, 'service-address', '[-s', 'scheduler]', '[-p', '[timeout]]', '[-M', 'netmask]'],
    ['-A|-E', '-f', 'mark', '[-6]', '[options]'],
    ['-D', service, 'service-address'],
    ['-C'],
    ['-R'],
    ['-S', '[-n]'],
    [
      '-a|-e',
      service,
      'service-address',
      '-r',
      'server-address',
      '[-g|-i|-m]',
      '[-w',
      'weight]',
      '[options]',
    ],
    ['-d', service, 'service-address', '-r', 'server-address'],
    ['-L|-l', '[-c]', '[-n]', '[options]'],
    ['-Z', '[-t', 'service-address]'],
    ['--set', 'tcp', 'tcpfin', 'udp'],
    ['--start-daemon', 'master|backup', '[options]'],
    ['--stop-daemon', 'master|backup'],
  ]) {
    page.synopsis('ipvsadm', parts);
  }
  page
    .section('DESCRIPTION')
    .text(
      "Configures the director that `dirigo up` runs, with the grammar, output, messages and exit statuses of Linux's ipvsadm 1.31. " +
        'Scripts and programs that call the real one work unchanged. It speaks to the daemon over its control socket; ' +
        'changes are on disk before the command returns, where the daemon keeps its state.',
    );
  writeOptions(page.section('COMMANDS'), ipvsadmOptions('commands'));
  writeOptions(page.section('OPTIONS'), ipvsadmOptions('options'));
  page.section('SCHEDULERS');
  for (const name of SCHEDULERS.keys()) page.entry(bold(name), SCHEDULER_TEXTS[name] ?? '');
  page
    .section('EXAMPLES')
    .text(
      'A web site by direct routing:\n\n' +
        '    ipvsadm -A -t 192.0.2.3:80 -s wlc\n' +
        '    ipvsadm -a -t 192.0.2.3:80 -r 192.0.2.7 -g -w 2\n' +
        '    ipvsadm -a -t 192.0.2.3:80 -r 192.0.2.8 -g\n\n' +
        'No new connections to a server, then what is left of them:\n\n' +
        '    ipvsadm -e -t 192.0.2.3:80 -r 192.0.2.7 -g -w 0\n' +
        '    ipvsadm -Lnc',
    );
  page.section('ENVIRONMENT').entry(bold('DIRIGO_SOCKET'), ENVIRONMENT.DIRIGO_SOCKET as string);
  page
    .section('EXIT STATUS')
    .text(
      '0; 1 if nothing was asked for; 2 for a wrong command line or without a daemon; else what the real one returns.',
    );
  return `${seeAlso(page, ['dirigo', 'ipvsadm-save', 'ipvsadm-restore'])}`;
}

/** How each scheduler chooses, in one sentence. */
const SCHEDULER_TEXTS: Readonly<Record<string, string>> = {
  rr: 'Round robin: one server after the other.',
  wrr: 'Weighted round robin: servers with a higher weight more often.',
  lc: 'Least connections: the server with the fewest.',
  wlc: 'Weighted least connections: the fewest relative to the weight. The default.',
  lblc: 'Locality-based least connections: a destination address keeps its server until that is overloaded. For clusters of caches.',
  lblcr: 'The same with a set of servers a destination address.',
  dh: 'Destination hashing: by the destination address.',
  sh: "Source hashing: by the client's address.",
  mh: 'Maglev hashing: like sh, but a change of servers moves few clients.',
  sed: 'Shortest expected delay: the fewest connections, the new one included, relative to the weight.',
  nq: 'Never queue: an idle server if there is one, else as sed.',
  fo: 'Weighted failover: the available server with the highest weight.',
  ovf: 'Weighted overflow: the one with the highest weight that has fewer connections than its weight.',
  twos: 'Power of two choices: the better of two servers drawn at random.',
};

function savePage(options: ManualOptions): string {
  const page = beginPage('ipvsadm-save', 'print the virtual server table as commands', options);
  page.section('SYNOPSIS').synopsis('ipvsadm-save', ['[-n]']);
  page
    .section('DESCRIPTION')
    .text('Prints the virtual server table to standard output, as lines that `ipvsadm-restore` reads.');
  page.section('OPTIONS').entry(bold('-n'), 'Addresses and ports as numbers.');
  return `${seeAlso(page, ['ipvsadm', 'ipvsadm-restore'])}`;
}

function restorePage(options: ManualOptions): string {
  const page = beginPage('ipvsadm-restore', 'replace the virtual server table', options);
  page.section('SYNOPSIS').synopsis('ipvsadm-restore', []);
  page
    .section('DESCRIPTION')
    .text(
      'Clears the virtual server table and builds it anew from standard input: lines as `ipvsadm-save` prints them. ' +
        'Lines that begin with # are left out. To change a running table without a moment in which it is empty, use `dirigo apply`.',
    );
  return `${seeAlso(page, ['ipvsadm', 'ipvsadm-save'])}`;
}
