/** Writes manual pages: the few requests of man(7) that they need. */

export class ManualPage {
  readonly #lines: string[] = [];

  /**
   * @param name in capitals at the head of the page
   * @param date YYYY-MM-DD
   * @param source name and version of the package
   */
  constructor(name: string, section: number, date: string, source: string) {
    this.#lines.push(`.TH ${quoted(name)} ${section} ${quoted(date)} ${quoted(source)} "Dirigo manual"`);
  }

  section(title: string): this {
    if (this.#lines.at(-1) === '.PP') this.#lines.pop();
    this.#lines.push(`.SH ${quoted(title)}`);
    return this;
  }

  /** The line that `whatis` reads. */
  name(name: string, summary: string): this {
    this.#lines.push('.SH NAME', `${literal(name)} \\- ${escaped(summary)}`);
    return this;
  }

  /** One line of a synopsis: the command in bold, what the user chooses in italics. */
  synopsis(command: string, parts: readonly string[]): this {
    const rest = parts.map(
      part => ` ${part.replace(/[^\s[\]|]+/g, word => (word.startsWith('-') ? bold(word) : italic(word)))}`,
    );
    if (!this.#lines.at(-1)?.startsWith('.SH')) this.#lines.push('.br');
    this.#lines.push(`${bold(command)}${rest.join('')}`);
    return this;
  }

  /**
   * Text as commands and options describe themselves: an empty line parts paragraphs, lines that begin with two spaces
   * are kept as they are, a line that ends a sentence ends there, backticks mark what is typed.
   */
  text(text: string): this {
    let isVerbatim = false;
    let before = '';
    for (const line of text.split('\n')) {
      const wasVerbatim: boolean = isVerbatim;
      isVerbatim = line.startsWith('  ') || (wasVerbatim && line.trim() === '');
      if (isVerbatim && !wasVerbatim) this.#beginVerbatim();
      if (!isVerbatim && wasVerbatim) this.#endVerbatim();
      if (isVerbatim) this.#lines.push(verbatim(line.replace(/^ {2}/, '')));
      else if (line.trim() === '') this.#paragraph();
      else {
        if (/[.:]$/.test(before)) this.#lines.push('.br');
        this.#lines.push(...wrapped(prose(line.trim())));
      }
      before = isVerbatim ? '' : line.trim();
    }
    if (isVerbatim) this.#endVerbatim();
    return this;
  }

  #beginVerbatim(): void {
    if (this.#lines.at(-1) === '.PP') this.#lines.pop();
    this.#lines.push('.sp', '.RS 4', '.nf');
  }

  #endVerbatim(): void {
    while (this.#lines.at(-1) === '') this.#lines.pop();
    this.#lines.push('.fi', '.RE', '.PP');
  }

  /** Other pages, each with its section. */
  references(names: readonly string[], section: number): this {
    names.forEach((name, at) => {
      this.#lines.push(`${bold(name)}(${section})${at < names.length - 1 ? ',' : ''}`);
    });
    return this;
  }

  #paragraph(): void {
    if (!/^\.(SH|PP)/.test(this.#lines.at(-1) ?? '')) this.#lines.push('.PP');
  }

  paragraph(text: string): this {
    this.#paragraph();
    return this.text(text);
  }

  /** An entry of a list: what it is, then the text about it. `term` is written with `bold` and `italic`. */
  entry(term: string, text: string): this {
    this.#lines.push('.TP', term);
    // A tagged paragraph without text would take the next one's.
    if (text === '') this.#lines.push('\\&');
    else this.#lines.push(...wrapped(prose(text)));
    return this;
  }

  toString(): string {
    return `${this.#lines.join('\n')}\n`;
  }
}

function quoted(text: string): string {
  return `"${escaped(text).replaceAll('"', '\\(dq')}"`;
}

const NAMED: Readonly<Record<string, string>> = {
  '\\': '\\e',
  '…': '...',
  '–': '\\(en',
  '—': '\\(em',
  '→': '\\->',
  '×': '\\(mu',
  '≥': '\\(>=',
  '≤': '\\(<=',
  '’': '\\(cq',
  '“': '\\(lq',
  '”': '\\(rq',
};

function escaped(text: string): string {
  return text.replace(/[\\…–—→×≥≤’“”]/g, character => NAMED[character] ?? character);
}

/** Characters that a terminal shows as they are typed. */
function literal(text: string): string {
  return escaped(text)
    .replaceAll('-', '\\-')
    .replaceAll("'", '\\(aq')
    .replaceAll('`', '\\(ga')
    .replaceAll('^', '\\(ha')
    .replaceAll('~', '\\(ti');
}

export function bold(text: string): string {
  return `\\fB${literal(text)}\\fR`;
}

export function italic(text: string): string {
  return `\\fI${literal(text)}\\fR`;
}

/** Lines of input no longer than a terminal is wide. */
function wrapped(text: string): string[] {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= 78)
      lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(guarded(word));
  }
  return lines;
}

function guarded(line: string): string {
  return /^[.']/.test(line) ? `\\&${line}` : line;
}

function verbatim(line: string): string {
  return guarded(literal(line));
}

/** Prose: `words in backticks` and options are what is typed. */
function prose(line: string): string {
  return guarded(
    line
      .split(/(`[^`]*`|(?<![\w-])--?[A-Za-z][\w-]*)/)
      .map((part, index) =>
        index % 2 === 1 ? bold(part.replace(/^`|`$/g, '')) : escaped(part).replaceAll("'", '\\(cq'),
      )
      .join(''),
  );
}
