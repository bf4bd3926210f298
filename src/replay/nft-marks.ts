/**
 * Mark rules as `nft` has them, translated to the director's own. Of nft's language only what gives marks is known: the
 * protocol, addresses, ports and interface of a packet, and `meta mark set`.
 */
import { type MarkedProtocol, type MarkRule, MarkRuleError, parseMarkRule } from '../ipvs/mark-rules.ts';

/**
 * The mark rules in a table as `nft -f` reads it. Where nft lets the last rule that matches win, here the first does:
 * they come out in reverse.
 * @throws MarkRuleError at a rule with anything else in it
 */
export function parseNftMarks(text: string): MarkRule[] {
  return text
    .split(/[\n;]/)
    .map(line => line.trim())
    .filter(line => line !== '' && !isFrame(line))
    .flatMap(parseRule)
    .reverse();
}

/** Everything around the rules: tables, chains, their types and closing braces. */
function isFrame(line: string): boolean {
  return /^(table|chain|type|policy|flush|add|#|\})/.test(line);
}

interface Condition {
  protocols: string[];
  from: string[];
  to: string[];
  sport: string[];
  port: string[];
  on: string[];
  mark: string | undefined;
}

function parseRule(line: string): MarkRule[] {
  const words = splitWords(line);
  const rule: Condition = { protocols: [], from: [], to: [], sport: [], port: [], on: [], mark: undefined };
  for (let at = 0; at < words.length; at++) {
    const [first, second, third] = words.slice(at, at + 3).map(word => word[0]);
    const value = words[at + 2];
    if (first === 'counter') continue;
    if (first === 'iifname' || first === 'iif') {
      rule.on = words[++at]?.map(name => name.replace(/"/g, '')) ?? [];
      continue;
    }
    if (first === 'meta' && second === 'mark' && third === 'set' && words[at + 3]) {
      rule.mark = words[at + 3]?.[0];
      at += 3;
      continue;
    }
    if (value === undefined) throw unknown(line, first);
    if (first === 'meta' && second === 'l4proto') rule.protocols = value;
    else if ((first === 'ip' || first === 'ip6') && second === 'daddr') rule.to = value;
    else if ((first === 'ip' || first === 'ip6') && second === 'saddr') rule.from = value;
    else if (first === 'ip' && second === 'protocol') rule.protocols = value;
    else if (isPortOwner(first) && second === 'dport') rule.port = value;
    else if (isPortOwner(first) && second === 'sport') rule.sport = value;
    else throw unknown(line, first);
    if (first !== 'th' && isPortOwner(first)) rule.protocols = [first];
    at += 2;
  }
  if (rule.mark === undefined) throw new MarkRuleError(`nft rule "${line}": it sets no mark`);
  return expand(rule);
}

/** Words, sets in braces as one word with several values. */
function splitWords(line: string): string[][] {
  return [...line.matchAll(/\{([^}]*)\}|(\S+)/g)].map(([, set, word]) =>
    set === undefined ? [word as string] : set.split(',').map(value => value.trim()),
  );
}

function isPortOwner(word: string | undefined): word is MarkedProtocol | 'th' {
  return word === 'tcp' || word === 'udp' || word === 'sctp' || word === 'th';
}

/** One rule for each combination of the values in sets. */
function expand(rule: Condition): MarkRule[] {
  let texts = [rule.protocols.join(',')];
  for (const word of ['from', 'to', 'sport', 'port', 'on'] as const) {
    const values = rule[word];
    if (values.length > 0) texts = texts.flatMap(text => values.map(value => `${text} ${word} ${value}`));
  }
  return texts.map(text => parseMarkRule(`${text} mark ${rule.mark}`));
}

function unknown(line: string, word: string | undefined): MarkRuleError {
  return new MarkRuleError(`nft rule "${line}": "${word}" cannot be translated to a mark rule`);
}
