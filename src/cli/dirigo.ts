/** `dirigo`: puts the commands together. */
import { readFileSync } from 'node:fs';
import { Command } from 'commander';
import { addDown } from './down.ts';
import { ipvsadm } from './ipvsadm.ts';
import { addMarks } from './marks.ts';
import { addReplay } from './replay.ts';
import { addSession } from './session.ts';
import { addSetting } from './setting.ts';
import { addStatus } from './status.ts';
import { addUp } from './up.ts';

function packageVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}

const program = new Command('dirigo')
  .description(
    'The Linux Virtual Server as one system: director, ipvsadm, XDP fast path and a lab to watch it in.',
  )
  .version(packageVersion())
  .configureHelp({ showGlobalOptions: true })
  .showHelpAfterError('(see `dirigo --help`)');

addSession(program);
addUp(program);
addDown(program);
addStatus(program);
addSetting(program);
addMarks(program);
addReplay(program);
program
  .command('ipvsadm')
  .summary('configure and list the virtual server (as the command ipvsadm)')
  .description('The same as the command ipvsadm; see `dirigo ipvsadm --help`.')
  .argument('[words...]');

// ipvsadm has a grammar of its own, -h included.
if (process.argv[2] === 'ipvsadm') await ipvsadm(process.argv.slice(3));
else await program.parseAsync();
