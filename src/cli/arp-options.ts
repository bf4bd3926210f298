/** Options that the subcommands of `dirigo arp` share, and how they read them. */
import { InvalidArgumentError } from 'commander';
import type { HostState } from '../datapath/host-state.ts';
import type { Segment, SegmentInterface } from '../guard/segment.ts';

/** A whole number from `least` to `most`. */
export function wholeNumber(least: number, most: number): (text: string) => number {
  return text => {
    const value = Number(text);
    if (!/^[0-9]+$/.test(text) || value < least || value > most) {
      throw new InvalidArgumentError(`It must be a whole number from ${least} to ${most}.`);
    }
    return value;
  };
}

/** Seconds, given back as milliseconds. */
export function seconds(least: number, most: number): (text: string) => number {
  return text => {
    const value = Number(text);
    if (!/^[0-9]*\.?[0-9]+$/.test(text) || value < least || value > most) {
      throw new InvalidArgumentError(`It must be a number of seconds from ${least} to ${most}.`);
    }
    return value * 1000;
  };
}

/** The words of an option that may be given several times. */
export function repeated(value: string, before: string[]): string[] {
  return [...before, value];
}

export interface OpenedSegment {
  segment: Segment;
  own: SegmentInterface;
  state: HostState;
}

/**
 * Opens the segment that an address is on.
 * @param interfaceName undefined: the one that the routes say
 */
export async function openSegment(
  address: Uint8Array,
  interfaceName: string | undefined,
  namespace: string | undefined,
): Promise<OpenedSegment> {
  const { interfaceTowards, Segment, segmentInterface } = await import('../guard/segment.ts');
  const { inNamespace } = await import('../guard/neighbour-table.ts');
  const { readHostStateSync } = await import('../datapath/host-state.ts');
  return inNamespace(namespace, () => {
    const state = readHostStateSync();
    const own = segmentInterface(interfaceName ?? interfaceTowards(address, state), state);
    return { segment: new Segment(own), own, state };
  });
}

/** An address that a station can have. @throws Error */
export async function stationAddress(text: string): Promise<Uint8Array> {
  const { parseAddress } = await import('../wire/address.ts');
  const { isStationAddress } = await import('../arp/who-has.ts');
  const bytes = parseAddress(text);
  if (!bytes) throw new Error(`"${text}" is no IP address`);
  if (!isStationAddress(bytes)) throw new Error(`${text} is no address that a station has`);
  return bytes;
}
