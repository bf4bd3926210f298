/** What commands `dirigo` has: help, man pages and completions are made from this. */
import { readFileSync } from 'node:fs';
import { Command } from 'commander';
import { addApply } from './apply.ts';
import { addArp } from './arp.ts';
import { addCapture } from './capture.ts';
import { addCompletion } from './completion.ts';
import { addDown } from './down.ts';
import { addDrain } from './drain.ts';
import { addMarks } from './marks.ts';
import { addPlan } from './plan.ts';
import { addRealserver } from './realserver.ts';
import { addReload } from './reload.ts';
import { addReplay } from './replay.ts';
import { addRollback } from './rollback.ts';
import { addSession } from './session.ts';
import { addSetting } from './setting.ts';
import { addState } from './state.ts';
import { addStatus } from './status.ts';
import { addTop } from './top.ts';
import { addUp } from './up.ts';

function packageVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}

/** The program with all its commands; nothing has run yet. */
export function createProgram(): Command {
  const program = new Command('dirigo')
    .description(
      'The Linux Virtual Server as one system: director, ipvsadm, XDP fast path and a lab to watch it in.',
    )
    .version(packageVersion())
    // What stands behind a command belongs to it: `dirigo arp` has options of its own besides those of its subcommands.
    .enablePositionalOptions()
    .configureHelp({ showGlobalOptions: true });

  addSession(program);
  addUp(program);
  addDown(program);
  addReload(program);
  addStatus(program);
  addTop(program);
  addSetting(program);
  addMarks(program);
  addState(program);
  addPlan(program);
  addApply(program);
  addRollback(program);
  addDrain(program);
  addReplay(program);
  addCapture(program);
  addArp(program);
  addRealserver(program);
  addCompletion(program);
  program
    .command('ipvsadm')
    .summary('configure and list the virtual server (as the command ipvsadm)')
    .description('The same as the command ipvsadm; see `dirigo ipvsadm --help`.')
    .argument('[words...]');
  pointToHelp(program, 'dirigo');
  return program;
}

/** An error points to the help of the command that it is about. */
function pointToHelp(command: Command, words: string): void {
  command.showHelpAfterError(`(see \`${words} --help\`)`);
  for (const each of command.commands) pointToHelp(each, `${words} ${each.name()}`);
}
