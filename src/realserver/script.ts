/** A plan as a script for a shell: what the command would do, to read, to keep or to run. */
import type { Plan } from './step.ts';
import { quoted } from './step.ts';

/** @param words of the command that it stands for */
export function shellScript(plan: Plan, words: readonly string[]): string {
  const lines = ['#!/bin/sh', `# dirigo ${words.map(quoted).join(' ')}`, 'set -e'];
  for (const step of plan.steps) lines.push(...step.commands());
  for (const sentence of plan.advice()) lines.push(`# ${sentence}`);
  return `${lines.join('\n')}\n`;
}
