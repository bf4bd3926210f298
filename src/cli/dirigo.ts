/** `dirigo`: runs the command that was asked for. */
import { ipvsadm } from './ipvsadm.ts';
import { createProgram } from './program.ts';

// ipvsadm has a grammar of its own, -h included.
if (process.argv[2] === 'ipvsadm') await ipvsadm(process.argv.slice(3));
else await createProgram().parseAsync();
