/**
 * What JSON a request may bring and an answer has: JSON Schemas (2020-12, the dialect of OpenAPI 3.1) that know their
 * TypeScript type, and the check of a value against one, which says what is wrong in the words of the one who sent it.
 */

/** Keywords that are used here, as they go out in the OpenAPI description. */
export interface JsonSchema {
  type?: 'object' | 'array' | 'string' | 'integer' | 'number' | 'boolean' | 'null';
  /** Schemas that have one stand once in the description, by this name. */
  title?: string;
  description?: string;
  default?: unknown;
  examples?: readonly unknown[];
  enum?: readonly string[];
  pattern?: string;
  minLength?: number;
  maxLength?: number;
  minimum?: number;
  maximum?: number;
  items?: JsonSchema;
  maxItems?: number;
  properties?: Readonly<Record<string, JsonSchema>>;
  required?: readonly string[];
  additionalProperties?: boolean | JsonSchema;
  anyOf?: readonly JsonSchema[];
  /** What a text of this pattern is called by people. */
  'x-expected'?: string;
}

declare const VALUE: unique symbol;

/** A schema of values of this type. */
export interface Schema<Value> extends JsonSchema {
  readonly [VALUE]?: Value;
}

export type ValueOf<Shape> = Shape extends Schema<infer Value> ? Value : never;

/** A property that may be missing. */
export interface Optional<Value> {
  readonly optional: Schema<Value>;
}

type Properties = Readonly<Record<string, Schema<unknown> | Optional<unknown>>>;

type Flat<Shape> = { [Name in keyof Shape]: Shape[Name] };

export type ObjectOf<Shape extends Properties> = Flat<
  {
    [Name in keyof Shape as Shape[Name] extends Optional<unknown> ? never : Name]: ValueOf<Shape[Name]>;
  } & {
    [Name in keyof Shape as Shape[Name] extends Optional<unknown>
      ? Name
      : never]?: Shape[Name] extends Optional<infer Value> ? Value : never;
  }
>;

/** What may be said of any schema besides. */
interface Notes<Value> {
  title?: string;
  description?: string;
  /** What holds when it is missing; only said, not filled in. */
  default?: Value;
  examples?: readonly Value[];
}

/** Longest text where nothing else is said. */
const LONGEST_TEXT = 65_536;

/** @param notes `expected`: what it has to be, for people, where a pattern says it to machines */
export function text(
  notes: Notes<string> & {
    pattern?: string;
    expected?: string;
    minLength?: number;
    maxLength?: number;
  } = {},
): Schema<string> {
  const { expected, ...rest } = notes;
  return {
    type: 'string',
    maxLength: LONGEST_TEXT,
    ...rest,
    ...(expected !== undefined && { 'x-expected': expected }),
  };
}

export function word<const Word extends string>(
  words: readonly Word[],
  notes: Notes<Word> = {},
): Schema<Word> {
  return { type: 'string', enum: words, ...notes };
}

export function wholeNumber(minimum: number, maximum: number, notes: Notes<number> = {}): Schema<number> {
  return { type: 'integer', minimum, maximum, ...notes };
}

/** A number in answers: counters and rates are whole, but may be beyond 2^53. */
export function count(notes: Notes<number> = {}): Schema<number> {
  return { type: 'number', minimum: 0, ...notes };
}

export function boolean(notes: Notes<boolean> = {}): Schema<boolean> {
  return { type: 'boolean', ...notes };
}

export function list<Item>(
  items: Schema<Item>,
  notes: Notes<readonly Item[]> & { maxItems?: number } = {},
): Schema<readonly Item[]> {
  return { type: 'array', items, ...notes };
}

/** An object with these properties and no others. */
export function object<const Shape extends Properties>(
  shape: Shape,
  notes: Notes<ObjectOf<Shape>> = {},
): Schema<ObjectOf<Shape>> {
  const properties: Record<string, JsonSchema> = {};
  const required: string[] = [];
  for (const [name, property] of Object.entries(shape)) {
    if ('optional' in property) properties[name] = property.optional;
    else {
      properties[name] = property;
      required.push(name);
    }
  }
  return {
    type: 'object',
    properties,
    ...(required.length > 0 && { required }),
    additionalProperties: false,
    ...notes,
  } as Schema<ObjectOf<Shape>>;
}

/** An object whose properties have any names. */
export function record<Value>(
  values: Schema<Value>,
  notes: Notes<Readonly<Record<string, Value>>> = {},
): Schema<Readonly<Record<string, Value>>> {
  return { type: 'object', additionalProperties: values, ...notes };
}

/** An object of which nothing more is said, for answers whose fields a data path decides. */
export function anything(notes: Notes<object> = {}): Schema<object> {
  return { type: 'object', additionalProperties: true, ...notes };
}

export function optional<Value>(schema: Schema<Value>): Optional<Value> {
  return { optional: schema };
}

export function nullable<Value>(schema: Schema<Value>, notes: Notes<Value> = {}): Schema<Value | null> {
  return { anyOf: [schema, { type: 'null' }], ...notes };
}

export function either<One, Other>(
  one: Schema<One>,
  other: Schema<Other>,
  notes: Notes<One | Other> = {},
): Schema<One | Other> {
  return { anyOf: [one, other], ...notes };
}

/** What is wrong with a value. */
export interface Problem {
  /** Where in the value: `destinations[0].weight`; empty: the value itself. */
  field: string;
  /** One sentence: where, what it is, what it has to be. */
  message: string;
}

/**
 * @param at what the value is called; empty for the whole of a body
 * @returns the first problem, undefined if the value is as the schema says
 */
export function check(schema: JsonSchema, value: unknown, at = ''): Problem | undefined {
  if (schema.anyOf) return checkEither(schema, schema.anyOf, value, at);
  switch (schema.type) {
    case 'object':
      return checkObject(schema, value, at);
    case 'array':
      return checkList(schema, value, at);
    default:
      return isSimple(schema, value) ? undefined : wrong(at, value, expectation(schema));
  }
}

function isSimple(schema: JsonSchema, value: unknown): boolean {
  switch (schema.type) {
    case 'string':
      return (
        typeof value === 'string' &&
        (!schema.enum || schema.enum.includes(value)) &&
        value.length >= (schema.minLength ?? 0) &&
        value.length <= (schema.maxLength ?? Number.POSITIVE_INFINITY) &&
        (schema.pattern === undefined || new RegExp(schema.pattern, 'u').test(value))
      );
    case 'integer':
    case 'number':
      return (
        typeof value === 'number' &&
        (schema.type === 'number' || Number.isInteger(value)) &&
        value >= (schema.minimum ?? Number.NEGATIVE_INFINITY) &&
        value <= (schema.maximum ?? Number.POSITIVE_INFINITY)
      );
    case 'boolean':
      return typeof value === 'boolean';
    case 'null':
      return value === null;
    default:
      return true;
  }
}

function checkObject(schema: JsonSchema, value: unknown, at: string): Problem | undefined {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return wrong(at, value, expectation(schema));
  }
  const { properties = {}, required = [], additionalProperties } = schema;
  const inside = (name: string): string => (at === '' ? name : `${at}.${name}`);
  const fields = value as Record<string, unknown>;
  for (const name of Object.keys(fields)) {
    const property = Object.hasOwn(properties, name) ? properties[name] : additionalProperties;
    if (property === false) {
      const names = Object.keys(properties);
      const known =
        names.length === 0 ? 'none is' : `there ${names.length === 1 ? 'is' : 'are'} ${names.join(', ')}`;
      return { field: inside(name), message: `${inside(name)} is not known: ${known}` };
    }
    if (typeof property !== 'object') continue;
    const problem = check(property, fields[name], inside(name));
    if (problem) return problem;
  }
  const missing = required.find(name => !Object.hasOwn(fields, name));
  if (missing === undefined) return undefined;
  return wrong(inside(missing), undefined, expectation(properties[missing] ?? {}));
}

function checkList(schema: JsonSchema, value: unknown, at: string): Problem | undefined {
  if (!Array.isArray(value)) return wrong(at, value, expectation(schema));
  const { items, maxItems = Number.POSITIVE_INFINITY } = schema;
  if (value.length > maxItems) {
    return { field: at, message: `${at || 'it'} has ${value.length} entries: it may have ${maxItems}` };
  }
  for (const [index, item] of value.entries()) {
    const problem = items && check(items, item, `${at}[${index}]`);
    if (problem) return problem;
  }
  return undefined;
}

/** The problem of the alternative that the value is of the kind of, or of all. */
function checkEither(
  schema: JsonSchema,
  alternatives: readonly JsonSchema[],
  value: unknown,
  at: string,
): Problem | undefined {
  const problems: Problem[] = [];
  for (const alternative of alternatives) {
    const problem = check(alternative, value, at);
    if (!problem) return undefined;
    problems.push(problem);
  }
  const [deeper, ...others] = problems.filter(({ field }) => field !== at);
  if (deeper && others.length === 0) return deeper;
  return wrong(at, value, expectation(schema));
}

/** What a schema wants, for people. */
export function expectation(schema: JsonSchema): string {
  if (schema.anyOf) return schema.anyOf.map(expectation).join(' or ');
  switch (schema.type) {
    case 'string':
      return schema.enum ? schema.enum.join(', ').replace(/, ([^,]*)$/, ' or $1') : textExpectation(schema);
    case 'integer':
      return `a whole number from ${schema.minimum} to ${schema.maximum}`;
    case 'number':
      return 'a number';
    case 'boolean':
      return 'true or false';
    case 'null':
      return 'null';
    case 'array':
      return 'a list';
    case 'object': {
      const names = Object.keys(schema.properties ?? {});
      return names.length === 0 ? 'an object' : `an object with ${names.join(', ')}`;
    }
    default:
      return 'something else';
  }
}

function textExpectation(schema: JsonSchema): string {
  const { minLength = 0, maxLength = LONGEST_TEXT, 'x-expected': expected } = schema;
  if (expected !== undefined) return expected;
  if (maxLength < LONGEST_TEXT)
    return `text of ${minLength > 0 ? `${minLength} to` : 'at most'} ${maxLength} characters`;
  return minLength > 0 ? 'text that is not empty' : 'text';
}

/** Letters of a wrong value that are shown. */
const SHOWN = 80;

function wrong(at: string, value: unknown, expected: string): Problem {
  const name = at === '' ? 'the body' : at;
  const shown = value === undefined ? 'is missing' : `is ${shortened(JSON.stringify(value))}`;
  return { field: at, message: `${name} ${shown}: it has to be ${expected}` };
}

function shortened(shown: string): string {
  return shown.length > SHOWN ? `${shown.slice(0, SHOWN)}…` : shown;
}
