/** Capture files of either kind, told apart by their first bytes. */
import { type CapturedFrame, CaptureFileError } from './frame.ts';
import { isPcap, readPcap } from './pcap.ts';
import { isPcapng, readPcapng } from './pcapng.ts';

/**
 * The frames of a pcap or pcapng file.
 * @throws CaptureFileError
 */
export function readCaptureFile(bytes: Uint8Array): CapturedFrame[] {
  if (isPcapng(bytes)) return readPcapng(bytes);
  if (isPcap(bytes)) return readPcap(bytes);
  throw new CaptureFileError('neither a pcap nor a pcapng file');
}
