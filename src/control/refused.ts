/** What can be wrong with a request, in words for whoever made it. */

/** A request that cannot be done as it stands; `status` is HTTP's. */
export class RequestRefused extends Error {
  override name = 'RequestRefused';
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/**
 * The fields of a JSON object that has no others.
 * @throws RequestRefused
 */
export function fieldsOf(body: unknown, names: readonly string[]): Record<string, unknown> {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) {
    throw new RequestRefused(400, `the body is not a JSON object with ${names.join(' and ')}`);
  }
  const unknown = Object.keys(body).find(name => !names.includes(name));
  if (unknown !== undefined) throw new RequestRefused(400, `unknown field ${JSON.stringify(unknown)}`);
  return { ...body };
}
