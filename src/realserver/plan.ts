/** What each mode needs on this host. */
import { planFullnat } from './fullnat.ts';
import { planNat } from './nat.ts';
import type { Request } from './request.ts';
import { planDirectRouting } from './silent-vip.ts';
import type { Finding, Plan } from './step.ts';
import { planTunnel } from './tunnel.ts';

/** @throws Error if the host does not show what a mode has to know: an interface, a cgroup */
export function planFor(request: Request): Plan {
  switch (request.mode) {
    case 'dr':
      return planDirectRouting(request);
    case 'tun':
      return planTunnel(request);
    case 'nat':
      return planNat(request);
    case 'fullnat':
      return planFullnat(request);
  }
}

export interface Check {
  /** Nothing is missing or wrong. */
  ready: boolean;
  findings: Finding[];
  advice: string[];
}

/** Looks at everything a mode needs, and changes nothing. */
export function check(plan: Plan): Check {
  const all = [...plan.steps.flatMap(step => step.inspect() ?? []), ...plan.examine()];
  const texts = new Set<string>();
  const findings = all.filter(({ text }) => !texts.has(text) && texts.add(text));
  return {
    ready: findings.every(({ level }) => level === 'warning'),
    findings,
    advice: plan.advice(),
  };
}
