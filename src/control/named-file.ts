/** Files that an option or argument names, with errors in words. */
import { readFileSync } from 'node:fs';
import { getSystemErrorMessage } from 'node:util';

/**
 * @param file a path; `-` is standard input
 * @throws Error that names the file and says what is wrong, as `/x: no such file or directory`
 */
export function readNamedFile(file: string): Uint8Array<ArrayBuffer> {
  try {
    return readFileSync(file === '-' ? 0 : file);
  } catch (error) {
    throw new Error(`cannot read ${file === '-' ? 'standard input' : file}: ${reasonOf(error)}`);
  }
}

/** The same, as text. */
export function readNamedText(file: string): string {
  return new TextDecoder().decode(readNamedFile(file));
}

function reasonOf(error: unknown): string {
  const { errno, message } = error as NodeJS.ErrnoException;
  if (errno === undefined) return message;
  const reason = getSystemErrorMessage(errno);
  return reason === 'illegal operation on a directory' ? 'it is a folder' : reason;
}
