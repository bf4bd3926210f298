/** The switches of `dirigo setting` (/proc/sys/net/ipv4/vs in the kernel), and the rules of firewall marks. */
import { formatMarkRule, MarkRules, parseMarkRule } from '../../ipvs/mark-rules.ts';
import { settingName } from '../../ipvs/settings.ts';
import { list, object, record, text, wholeNumber } from '../schema.ts';
import { directorOf, type Route, type RouteEnvironment, route } from './route.ts';

const NUMBER = wholeNumber(0, 0x7fff_ffff);
const RULES = object(
  { rules: list(text(), { description: 'As `dirigo marks` prints them; the first that fits counts.' }) },
  { title: 'MarkRules' },
);

export function settingRoutes(environment: RouteEnvironment): Route[] {
  const { configuration, datapath } = environment;
  const director = directorOf(environment);
  const marks = () => ({ rules: director.marks.rules.map(formatMarkRule) });
  return [
    route({
      method: 'GET',
      path: '/settings',
      summary: 'List the settings',
      answer: object({ settings: record(NUMBER) }, { description: 'All settings by their names.' }),
      handle: () => ({ settings: { ...director.settings } }),
    }),
    route({
      method: 'POST',
      path: '/settings',
      summary: 'Change a setting',
      body: object({
        name: text({ examples: ['expire_nodest_conn'] }),
        value: text({ description: 'As `dirigo setting` takes it.', examples: ['1'] }),
      }),
      answer: object({ name: text(), value: NUMBER }, { description: 'The setting as it is now.' }),
      handle: async ({ body: { name, value } }) => {
        await configuration.edit(`setting ${name} ${value}`, () => director.set(name, value));
        return { name, value: director.settings[settingName(name)] };
      },
    }),
    route({
      method: 'GET',
      path: '/marks',
      summary: 'List the rules of firewall marks',
      answer: RULES,
      handle: marks,
    }),
    route({
      method: 'POST',
      path: '/marks',
      summary: 'Replace the rules of firewall marks',
      description: 'The new rules take the place of all old ones, or none of them does.',
      body: RULES,
      answer: RULES,
      handle: async ({ body: { rules } }) => {
        await configuration.edit('marks', () => {
          director.marks = new MarkRules(rules.map(parseMarkRule), name => datapath.interfaceIndex(name));
        });
        return marks();
      },
    }),
  ];
}
