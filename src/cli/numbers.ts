/** Numbers as people read them. */

/** With commas between the thousands. */
export function grouped(value: number): string {
  return Math.round(value)
    .toString()
    .replace(/\B(?=(\d{3})+$)/g, ',');
}

/** At most four characters and a letter: 999, 1.2k, 34k, 5.6M. */
export function short(value: number): string {
  let rest = value;
  for (const letter of ['', 'k', 'M', 'G', 'T']) {
    if (rest < 999.5 || letter === 'T') {
      return rest < 9.95 && letter !== '' ? `${rest.toFixed(1)}${letter}` : `${Math.round(rest)}${letter}`;
    }
    rest /= 1000;
  }
  return '';
}

/** Seconds as `3 d 4 h`, `4 h 5 min`, `5 min 6 s`, `6 s`. */
export function duration(seconds: number): string {
  const units = [
    [86400, 'd'],
    [3600, 'h'],
    [60, 'min'],
    [1, 's'],
  ] as const;
  const first = units.findIndex(([length]) => seconds >= length);
  if (first < 0) return '0 s';
  let rest = Math.floor(seconds);
  return units
    .slice(first, first + 2)
    .flatMap(([length, name], at) => {
      const count = Math.floor(rest / length);
      rest -= count * length;
      return at === 0 || count > 0 ? [`${count} ${name}`] : [];
    })
    .join(' ');
}

/** A part of a whole in per cent, as precise as it is small. */
export function share(part: number, whole: number): string {
  if (whole === 0) return '0 %';
  const percent = (100 * part) / whole;
  if (percent > 0 && percent < 0.1) return 'under 0.1 %';
  if (percent < 100 && percent > 99.9) return 'over 99.9 %';
  return `${Number(percent.toFixed(1))} %`;
}
