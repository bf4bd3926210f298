/** When a capture ends by itself: `-c` and `-a` of `dirigo capture`, with tshark's words. */

/** A condition that is none; the message says what it should look like. */
export class StopConditionError extends Error {
  override name = 'StopConditionError';
}

export class StopConditions {
  /** Frames, bytes written and milliseconds after which it ends; Infinity: never. */
  packets = Infinity;
  fileBytes = Infinity;
  duration = Infinity;

  /** @param text `duration:SECONDS`, `packets:NUMBER` or `filesize:KILOBYTES` (1 kB is 1000 bytes). @throws StopConditionError */
  add(text: string): void {
    const match = /^(duration|packets|filesize):(\d+(?:\.\d+)?)$/.exec(text);
    const value = Number(match?.[2]);
    if (!match || !(value > 0) || (match[1] !== 'duration' && !Number.isInteger(value))) {
      throw new StopConditionError(
        `-a ${text}: a condition is duration:SECONDS, packets:NUMBER or filesize:KILOBYTES`,
      );
    }
    if (match[1] === 'duration') this.duration = value * 1000;
    else if (match[1] === 'packets') this.packets = Math.min(this.packets, value);
    else this.fileBytes = value * 1000;
  }

  /** True once one of those that are counted holds. */
  isReached(packets: number, fileBytes: number): boolean {
    return packets >= this.packets || fileBytes >= this.fileBytes;
  }
}
