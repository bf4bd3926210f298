/** Manual pages and completions: complete, well-formed by the judgement of real formatters, and real shells complete with them. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Command } from 'commander';
import { buildReference } from '../../../packaging/build-reference.ts';
import { missing } from '../../../test/requirements.ts';
import { Terminal } from '../../../test/terminal.ts';
import { OPTIONS } from '../../ipvsadm/options.ts';
import { createProgram } from '../program.ts';
import { ENVIRONMENT } from './manual.ts';

const root = join(import.meta.dirname, '../../..');

let folder: string;
/** A directory with an ipvsadm that knows one service with two servers. */
let tools: string;

before(() => {
  folder = mkdtempSync(join(tmpdir(), 'dirigo-reference-'));
  tools = join(folder, 'bin');
  buildReference(folder);
  execFileSync('mkdir', [tools]);
  const rules = [
    '-A -t 10.0.0.3:80 -s rr',
    '-a -t 10.0.0.3:80 -r 10.0.0.7:80 -g',
    '-a -t 10.0.0.3:80 -r 10.0.0.8:80 -g',
  ];
  writeFileSync(
    join(tools, 'ipvsadm'),
    `#!/bin/sh\nprintf '%s\\n' ${rules.map(line => `'${line}'`).join(' ')}\n`,
  );
  chmodSync(join(tools, 'ipvsadm'), 0o755);
});

after(() => rmSync(folder, { recursive: true, force: true }));

const page = (name: string): string => readFileSync(join(folder, 'man', `${name}.8`), 'utf8');
/** A word as pages have it. */
const literal = (word: string): string => word.replaceAll('-', '\\-');

describe('manual pages', () => {
  test('there is one of each command, with each of its options and arguments', () => {
    const visit = (command: Command, path: string[]): void => {
      if (path[1] === 'ipvsadm') return;
      const text = page(path.join('-'));
      for (const { short, long, hidden } of command.options) {
        if (hidden) continue;
        for (const name of [short, long])
          if (name) assert.ok(text.includes(literal(name)), `${path.join(' ')} ${name}`);
      }
      for (const each of command.registeredArguments) {
        assert.ok(text.includes(literal(each.name())), `${path.join(' ')} ${each.name()}`);
      }
      for (const each of command.commands) visit(each, [...path, each.name()]);
    };
    visit(createProgram(), ['dirigo']);
  });

  test('that of ipvsadm has each entry of the option table', () => {
    const text = page('ipvsadm');
    for (const { short, long } of OPTIONS) {
      if (long) assert.ok(text.includes(`\\fB${literal(`--${long}`)}\\fR`), long);
      if (short) assert.ok(text.includes(`\\fB${literal(`-${short}`)}\\fR`), short);
    }
  });

  test('every variable of the environment is described', () => {
    const used = new Set<string>();
    for (const file of [...globSync('src/**/*.ts', { cwd: root }), ...globSync('bin/*', { cwd: root })]) {
      if (/\.(test|fixture)\.ts$/.test(file)) continue;
      for (const [name] of readFileSync(join(root, file), 'utf8').matchAll(/\bDIRIGO_[A-Z_]+\b/g))
        used.add(name);
    }
    assert.deepEqual([...used].sort(), Object.keys(ENVIRONMENT).sort());
  });

  test('groff and mandoc find nothing wrong', { skip: missing('man', 'mandoc') }, () => {
    for (const file of globSync('man/*', { cwd: folder })) {
      const shown = spawnSync('man', ['--warnings', '-l', join(folder, file)], {
        encoding: 'utf8',
        env: { ...process.env, LC_ALL: 'C.UTF-8', MANWIDTH: '80' },
      });
      assert.equal(shown.stderr, '', file);
      assert.equal(shown.status, 0);
      assert.match(shown.stdout, /^NAME$/m);
    }
    const checked = spawnSync(
      'mandoc',
      ['-Tlint', '-Wwarning', ...globSync('man/*', { cwd: folder }).map(file => join(folder, file))],
      {
        encoding: 'utf8',
      },
    );
    assert.equal(checked.stdout + checked.stderr, '');
  });
});

describe('completions for bash', { skip: missing('bash') }, () => {
  /** What the function answers for the last of these words, as bash splits them. */
  function complete(program: string, ...words: string[]): string[] {
    const line = words.join(' ').replace(/ ?([:=]) ?/g, '$1');
    const script = `source "$1"; COMP_WORDS=("\${@:2}"); COMP_CWORD=$((\${#COMP_WORDS[@]} - 1))
      COMP_LINE=$LINE COMP_POINT=\${#LINE}; _${program}; printf '%s\\n' "\${COMPREPLY[@]}"`;
    const file = join(folder, 'completions/bash', program);
    return execFileSync('bash', ['-c', script, 'bash', file, ...words], {
      encoding: 'utf8',
      cwd: tools,
      env: { ...process.env, LINE: line, PATH: `${tools}:${process.env.PATH}` },
      stdio: ['ignore', 'pipe', 'inherit'],
    })
      .split('\n')
      .filter(word => word !== '');
  }

  test('commands, options, values', () => {
    assert.deepEqual(complete('dirigo', 'dirigo', 'statu'), ['status']);
    assert.deepEqual(complete('dirigo', 'dirigo', 'status', '--j'), ['--json']);
    assert.deepEqual(complete('dirigo', 'dirigo', 'up', '--datapath', ''), ['virtual', 'xdp']);
    assert.deepEqual(complete('dirigo', 'dirigo', 'up', '--datapath', '=', 'v'), ['virtual']);
    assert.deepEqual(complete('dirigo', 'dirigo', 'up', '--datapath', 'xdp', '--interface', 'l'), ['lo']);
    assert.deepEqual(complete('dirigo', 'dirigo', 'completion', 'z'), ['zsh']);
    assert.deepEqual(complete('dirigo', 'dirigo', 'help', 'statu'), ['status']);
    assert.deepEqual(complete('dirigo', 'dirigo', 'marks', '--load', 'ipv'), ['ipvsadm']);
  });

  test('what the table holds', () => {
    assert.deepEqual(complete('ipvsadm', 'ipvsadm', '-A', '-t', 'x', '-s', 'w'), ['wrr', 'wlc']);
    assert.deepEqual(complete('ipvsadm', 'ipvsadm', '--start-daemon', ''), ['master', 'backup']);
    assert.deepEqual(complete('ipvsadm', 'ipvsadm', '-D', '-t', '10'), ['10.0.0.3:80']);
    assert.deepEqual(complete('ipvsadm', 'ipvsadm', '-D', '-t', '10.0.0.3', ':', '8'), ['80']);
    assert.deepEqual(complete('dirigo', 'dirigo', 'ipvsadm', '-d', '-t', 'x', '-r', ''), [
      '10.0.0.7:80',
      '10.0.0.8:80',
    ]);
  });

  test('at the keyboard', { skip: missing('tmux', 'bash') }, async () => {
    const terminal = new Terminal('bash --norc --noprofile -i', {
      environment: { PATH: `${tools}:${process.env.PATH}` },
    });
    try {
      await terminal.until(/[$#]$/m);
      terminal.type(`for f in ${folder}/completions/bash/*; do source $f; done; clear`);
      terminal.press('Enter');
      terminal.type('ipvsadm -d -t 10.0');
      terminal.press('Tab');
      terminal.type('-r 10.0.0.8:');
      terminal.press('Tab');
      terminal.type('!');
      await terminal.until(/ipvsadm -d -t 10\.0\.0\.3:80 -r 10\.0\.0\.8:80 !/);
    } finally {
      terminal.close();
    }
  });
});

test('completions for zsh, at the keyboard', { skip: missing('tmux', 'zsh') }, async () => {
  const terminal = new Terminal('zsh -f -i', { environment: { PATH: `${tools}:${process.env.PATH}` } });
  try {
    await terminal.until(/[#%]$/m);
    terminal.type(
      `fpath=(${folder}/completions/zsh $fpath); autoload -U compinit; compinit -D -u; clear; echo ready`,
    );
    terminal.press('Enter');
    await terminal.until(/^ready/m);
    terminal.type('dirigo statu');
    terminal.press('Tab');
    await terminal.until(/dirigo status$/m);
    terminal.type('--js');
    terminal.press('Tab');
    await terminal.until(/dirigo status --json/);
    terminal.press('C-u');
    terminal.type('ipvsadm -D -t 10');
    terminal.press('Tab');
    await terminal.until(/ipvsadm -D -t 10\.0\.0\.3:80/);
  } finally {
    terminal.close();
  }
});

test('completions for fish', { skip: missing('fish') }, () => {
  const complete = (line: string): string[] =>
    execFileSync('fish', ['--no-config', '-c', `source $FILES; complete -C "${line}"`], {
      encoding: 'utf8',
      env: {
        ...process.env,
        FILES: join(folder, 'completions/fish', `${line.split(' ')[0]}.fish`),
        PATH: `${tools}:${process.env.PATH}`,
        HOME: folder,
      },
    })
      .split('\n')
      .filter(text => text !== '')
      .map(text => text.split('\t')[0] as string);
  assert.deepEqual(complete('dirigo statu'), ['status']);
  assert.deepEqual(complete('dirigo status --j'), ['--json']);
  assert.deepEqual(complete('dirigo up --datapath '), ['virtual', 'xdp']);
  assert.deepEqual(complete('ipvsadm -D -t '), ['10.0.0.3:80']);
  assert.ok(complete('ipvsadm -A -s ').includes('twos'));
});
