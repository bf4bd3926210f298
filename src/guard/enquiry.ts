/** `who-has` and `announce` on a segment. */
import { type AnnouncementForm, announcementFrame } from '../arp/announcement.ts';
import { type Answer, questionFrame, WhoHas } from '../arp/who-has.ts';
import { formatAddress } from '../wire/address.ts';
import type { Segment } from './segment.ts';

export interface EnquiryOptions {
  /** 4 or 16 bytes. */
  target: Uint8Array;
  /** The address that asks; all zero: as one who looks for duplicates. */
  source: Uint8Array;
  /** Questions, `interval` milliseconds apart. */
  count: number;
  interval: number;
  /** Milliseconds to wait for answers behind the last question. */
  timeout: number;
  /** Called at the first answer of each station. */
  onAnswer?(answer: Answer): void;
}

/** Asks everybody on the segment for an address and waits: all stations that answered, in the order in which they did. */
export async function enquire(segment: Segment, options: EnquiryOptions): Promise<Answer[]> {
  const { target, source, count, interval, timeout, onAnswer } = options;
  const { mac } = segment.interface;
  const enquiry = new WhoHas(formatAddress(target), mac);
  const question = questionFrame(mac, source, target);
  segment.watch(({ observation, isOutgoing, time }) => {
    // The kernel's time of the question is taken like that of the answers: between them lies the segment alone.
    if (isOutgoing) {
      if (observation.form === 'question' && observation.asks === enquiry.target) enquiry.asked(time);
      return;
    }
    const answer = enquiry.receive(observation, time);
    if (answer) onAnswer?.(answer);
  });
  for (let asked = 1; asked <= count; asked++) {
    enquiry.asked(Date.now());
    segment.send(question);
    await sleep(asked < count ? interval : timeout);
  }
  return enquiry.answers();
}

export interface AnnounceOptions extends AnnouncementForm {
  /** 4 or 16 bytes. */
  address: Uint8Array;
  /** Where it is. Default: the interface's MAC. */
  mac?: Uint8Array;
  /** Frames, `interval` milliseconds apart. */
  count: number;
  interval: number;
}

/** Tells everybody on the segment where an address is. */
export async function announce(segment: Segment, options: AnnounceOptions): Promise<void> {
  const { address, mac = segment.interface.mac, count, interval, ...form } = options;
  const frame = announcementFrame(mac, address, form);
  for (let sent = 1; sent <= count; sent++) {
    segment.send(frame);
    if (sent < count && interval > 0) await sleep(interval);
  }
}

function sleep(milliseconds: number): Promise<void> {
  return new Promise(resolve => setTimeout(resolve, milliseconds));
}
