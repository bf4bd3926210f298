/** What makes a real server one again after a reboot: a unit of systemd, and sysctl.d for settings. */
import { createHash } from 'node:crypto';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SettingStep } from './network-steps.ts';
import { namespaceName } from './record.ts';
import { type Request, requestWords } from './request.ts';
import type { Restoration } from './restoration.ts';
import { type Finding, type Plan, quoted, RUN_IT, type Step } from './step.ts';

/** A file with this text. */
class FileStep implements Step {
  readonly key: string;
  readonly label: string;
  readonly #path: string;
  readonly #text: string;

  constructor(path: string, text: string) {
    this.#path = path;
    this.#text = text;
    this.key = `file ${path}`;
    this.label = this.key;
  }

  commands(): string[] {
    return [
      `mkdir -p ${quoted(dirname(this.#path))}`,
      `cat > ${quoted(this.#path)} <<'END'\n${this.#text}END`,
    ];
  }

  isMade(): boolean {
    return existsSync(this.#path) && readFileSync(this.#path, 'utf8') === this.#text;
  }

  inspect(): Finding | undefined {
    if (this.isMade()) return undefined;
    const state = existsSync(this.#path) ? 'says something else' : 'is missing';
    return {
      level: 'missing',
      text: `${this.#path} ${state}: it does not come back after a reboot`,
      remedy: RUN_IT,
    };
  }

  prepare(): Restoration {
    const before = existsSync(this.#path) ? { before: readFileSync(this.#path, 'utf8') } : {};
    return { kind: 'file', path: this.#path, after: this.#text, ...before, ...folderOf(this.#path) };
  }

  make(): void {
    mkdirSync(dirname(this.#path), { recursive: true });
    writeFileSync(this.#path, this.#text);
  }
}

function folderOf(path: string): { folder?: true } {
  return existsSync(dirname(path)) ? {} : { folder: true };
}

/** What `systemctl enable` does, also where systemd is not running. */
class EnableStep implements Step {
  readonly key: string;
  readonly label: string;
  readonly #target: string;
  readonly #path: string;

  constructor(folder: string, unit: string) {
    this.#target = join(folder, unit);
    this.#path = join(folder, 'multi-user.target.wants', unit);
    this.key = `symlink ${this.#path}`;
    this.label = `${unit} enabled`;
  }

  commands(): string[] {
    return [
      `mkdir -p ${quoted(dirname(this.#path))}`,
      `ln -sf ${quoted(this.#target)} ${quoted(this.#path)}`,
    ];
  }

  isMade(): boolean {
    return lstatSync(this.#path, { throwIfNoEntry: false }) !== undefined;
  }

  inspect(): Finding | undefined {
    if (this.isMade()) return undefined;
    return {
      level: 'missing',
      text: `${this.#target} is not enabled`,
      remedy: this.commands().join('; '),
    };
  }

  prepare(): Restoration {
    return { kind: 'symlink', path: this.#path, ...folderOf(this.#path) };
  }

  make(): void {
    mkdirSync(dirname(this.#path), { recursive: true });
    symlinkSync(this.#target, this.#path);
  }
}

/**
 * Adds to the plan what makes it last.
 * @param etc another folder than /etc, for tests
 * @throws Error where nothing lasts: in a network namespace of its own, or without systemd
 */
export function addPersistence(plan: Plan, request: Request, etc = process.env.DIRIGO_ETC || '/etc'): void {
  if (etc === '/etc' && namespaceName() !== 'host') {
    throw new Error('--persist is for the host itself: this network namespace does not outlive a reboot');
  }
  if (!existsSync(join(etc, 'systemd/system'))) {
    throw new Error('--persist needs systemd: let the boot scripts of this host run what --print prints');
  }
  const units = join(etc, 'systemd/system');
  const settings = plan.steps.flatMap(step => (step instanceof SettingStep ? [step.line()] : []));
  const name = `dirigo-realserver-${request.mode}${suffix(request)}`;
  if (settings.length > 0) {
    const head = `# Made by dirigo realserver --mode ${request.mode} --persist; removed by dirigo realserver --undo\n`;
    plan.steps.push(new FileStep(join(etc, `sysctl.d/90-${name}.conf`), `${head}${settings.join('\n')}\n`));
  }
  for (const unit of request.units) {
    const words = requestWords({ ...request, units: [unit], cgroups: [] });
    plan.steps.push(new FileStep(join(units, `${unit}.d/dirigo-realserver.conf`), dropIn(words)));
  }
  if (request.units.length > 0 && request.cgroups.length === 0) return;
  const unit = `${name}.service`;
  plan.steps.push(
    new FileStep(join(units, unit), serviceUnit(request.mode, requestWords({ ...request, units: [] }))),
  );
  plan.steps.push(new EnableStep(units, unit));
}

/** Requests for different VIPs or cgroups last beside each other. */
function suffix(request: Request): string {
  const words = requestWords(request).join(' ');
  return `-${createHash('sha256').update(words).digest('hex').slice(0, 8)}`;
}

function commandLine(words: readonly string[]): string {
  const program = realpathSync(fileURLToPath(new URL('../../bin/dirigo', import.meta.url)));
  return [program, ...words]
    .map(word => word.replaceAll('%', '%%'))
    .map(quoted)
    .join(' ');
}

/** The settings are in sysctl.d, too: what comes up before this unit is silent from the beginning. */
function serviceUnit(mode: string, words: readonly string[]): string {
  return `[Unit]
Description=Dirigo: this host is a real server (${mode})
Documentation=man:dirigo-realserver(8)
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=${commandLine(words)}

[Install]
WantedBy=multi-user.target
`;
}

/** A unit gets a new cgroup each time it starts: the programs are attached before its own program runs. */
function dropIn(words: readonly string[]): string {
  return `# Made by dirigo realserver --persist; removed by dirigo realserver --undo
[Service]
ExecStartPre=+${commandLine(words)}
`;
}
