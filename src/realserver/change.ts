/** Makes a plan's steps and takes them back. */
import type { ChangeRecord, Entry } from './record.ts';
import type { Request } from './request.ts';
import { type Restoration, restore } from './restoration.ts';
import type { Plan, Step } from './step.ts';

/** `done` and `already`: steps made. `undone`; `gone`, by somebody else; `left`, because somebody changed it since. */
export interface Report {
  what: 'done' | 'already' | 'undone' | 'gone' | 'left';
  text: string;
}

function ownersOf(step: Step, { mode, vips }: Request): string[] {
  const needing = step.vips ?? vips;
  return needing.length > 0 ? needing.map(vip => `${mode} ${vip}`) : [mode];
}

/** What `now` would take back, but to how it was before this program came. */
function toOrigin(now: Restoration, earlier: Restoration | undefined): Restoration {
  if (earlier?.kind !== now.kind) return now;
  const { before: _ours, ...rest } = now as Restoration & { before?: unknown };
  return ('before' in earlier ? { ...rest, before: earlier.before } : rest) as Restoration;
}

/**
 * Makes what is not yet so, in order.
 * @throws Error if something stands in the way, or a step fails: then what was made before it is taken back
 */
export function apply(plan: Plan, request: Request, record: ChangeRecord): Report[] {
  const obstacles = plan.examine().filter(({ level, isOutcome }) => level === 'wrong' && !isOutcome);
  if (obstacles.length > 0) {
    const lines = obstacles.map(({ text, remedy }) => `\n  ${text}\n    ${remedy}`);
    throw new Error(`nothing was changed, because this is in the way:${lines.join('')}`);
  }
  const reports: Report[] = [];
  const made: Entry[] = [];
  try {
    for (const step of plan.steps) {
      const owners = ownersOf(step, request);
      const earlier = record.find(step.key);
      if (earlier) {
        record.put({ ...earlier, owners: [...new Set([...earlier.owners, ...owners])] });
      }
      if (step.isMade()) {
        reports.push({ what: 'already', text: step.label });
        continue;
      }
      const restoration = toOrigin(step.prepare(), earlier?.restoration);
      const entry = {
        key: step.key,
        label: step.label,
        owners: record.find(step.key)?.owners ?? owners,
        restoration,
      };
      record.put(entry);
      if (!earlier) made.push(entry);
      step.make();
      reports.push({ what: 'done', text: step.label });
    }
  } catch (error) {
    for (const entry of made.reverse()) {
      restore(entry.restoration);
      record.remove(entry.key);
    }
    throw new Error(`${(error as Error).message}; what was changed before it has been taken back`);
  }
  return reports;
}

export interface UndoSelection {
  mode?: string;
  vips: readonly string[];
}

/**
 * Takes back what was made, the last first: all of it, or what only the selected mode and VIPs needed.
 * @throws Error after the rest was taken back if a step could not be: it stays in the record
 */
export function undo(record: ChangeRecord, selection: UndoSelection): Report[] {
  const isSelected = (owner: string): boolean => {
    const [mode, vip] = owner.split(' ');
    return (
      (selection.mode === undefined || mode === selection.mode) &&
      (selection.vips.length === 0 || (vip !== undefined && selection.vips.includes(vip)))
    );
  };
  const reports: Report[] = [];
  const failures: string[] = [];
  for (const entry of record.entries.toReversed()) {
    const owners = entry.owners.filter(owner => !isSelected(owner));
    if (owners.length === entry.owners.length) continue;
    if (owners.length > 0) {
      record.put({ ...entry, owners });
      continue;
    }
    try {
      const outcome = restore(entry.restoration);
      if (outcome.result === 'changed') reports.push({ what: 'left', text: outcome.text });
      else reports.push({ what: outcome.result === 'restored' ? 'undone' : 'gone', text: entry.label });
      record.remove(entry.key);
    } catch (error) {
      failures.push((error as Error).message);
    }
  }
  if (failures.length > 0) throw new Error(`not everything could be taken back: ${failures.join('; ')}`);
  return reports;
}
