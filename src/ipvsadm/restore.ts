/** The input of `ipvsadm -R`: one command a line, as config_stream.c of ipvsadm splits it. */

/**
 * The words of each line; no quoting, no comments, and the word `ipvsadm` is left out wherever it stands. A last line
 * without a newline counts unless more than one blank ends it: then ipvsadm loses it, and so do we.
 */
export function splitRestoreInput(input: string): string[][] {
  const lines = input.split('\n');
  const last = lines.pop() ?? '';
  if (last !== '' && !/[ \t\r]{2}$/.test(last)) lines.push(last);
  return lines
    .map(line => line.split(/[ \t\r]+/).filter(word => word !== '' && word !== 'ipvsadm'))
    .filter(words => words.length > 0);
}
