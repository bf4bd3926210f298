/** A request that cannot be done as it stands; the message is for whoever made it. */
export class RequestRefused extends Error {
  override name = 'RequestRefused';
  /** Of HTTP. */
  readonly status: number;
  /** Which field of the body or parameter is wrong. */
  readonly field: string | undefined;
  /** That go out with the answer. */
  readonly headers: Readonly<Record<string, string>>;

  constructor(
    status: number,
    message: string,
    field?: string,
    headers: Readonly<Record<string, string>> = {},
  ) {
    super(message);
    this.status = status;
    this.field = field;
    this.headers = headers;
  }
}
