/** Frames of the director for whoever captures: a pcapng stream. */
import { Filter, FilterError } from '../../capture/filter.ts';
import { PcapngWriter } from '../../capture/pcapng.ts';
import type { Datapath } from '../../datapath/datapath.ts';
import type { Observation } from '../../datapath/observation.ts';
import { RequestRefused } from '../refused.ts';
import { optional, text, wholeNumber } from '../schema.ts';
import { type Route, route, Stream, type StreamClient } from './route.ts';

/** Bytes that may wait for a client; what comes while they do is dropped. */
const MOST_WAITING = 16 * 1024 * 1024;
/** Milliseconds between two statements of what was lost. */
const STATEMENT_INTERVAL = 1000;
/** The interface whose statistics say how many frames were not shown. */
const DIRECTOR = 'dirigo';

export function captureRoutes(datapath: Datapath): Route[] {
  return [
    route({
      method: 'GET',
      path: '/capture',
      summary: 'See the frames of the director',
      description:
        'Frames as they came to the XDP program and the director, and as they left, each with the decision as a comment. ' +
        'Interface statistics blocks of the interface `dirigo` say how many were not shown. Goes on until the client goes.',
      parameters: {
        filter: optional(
          text({
            maxLength: 4096,
            description: 'In the language of pcap-filter(7).',
            examples: ['tcp port 80'],
          }),
        ),
        interfaces: optional(
          text({ maxLength: 1024, description: 'Where the frames came in, separated by commas; else all.' }),
        ),
        limit: optional(
          wholeNumber(1, 1_000_000, {
            description: 'Most frames a second, of each CPU and of the director. Default 1000.',
          }),
        ),
        looks: optional(
          wholeNumber(1, 100_000_000, {
            description: 'Most frames a second that the filter is tried on, of each CPU. Default 100000.',
          }),
        ),
        snaplen: optional(wholeNumber(1, 262_144, { description: 'Most bytes of a frame. Default 262144.' })),
      },
      answer: { contentType: 'application/x-pcapng', description: 'Frames as they pass.' },
      refusals: {
        409: 'Somebody captures already, or the data path has no frames.',
      },
      handle: ({ parameters }) => {
        const { filter = '', interfaces, limit = 1000, looks = 100_000, snaplen = 262_144 } = parameters;
        const writer = new PcapngWriter();
        let client: StreamClient | undefined;
        let dropped = 0;
        const observation = observe(
          datapath,
          {
            filter,
            ...(interfaces === undefined ? {} : { interfaces: interfaces.split(',') }),
            limit,
            looks,
            snapshotLength: snaplen,
          },
          frame => {
            if (!client || client.waiting > MOST_WAITING) dropped++;
            else client.write(writer.frame(frame));
          },
        );
        return new Stream('application/x-pcapng', begun => {
          client = begun;
          begun.write(writer.start());
          let stated = 0;
          const state = setInterval(() => {
            const { overflow, overLimit } = observation.losses();
            const lost = dropped + overflow + overLimit;
            if (lost === stated) return;
            stated = lost;
            begun.write(writer.dropped(DIRECTOR, lost, BigInt(Date.now()) * 1_000_000n));
          }, STATEMENT_INTERVAL);
          const end = (): void => {
            clearInterval(state);
            observation.close();
          };
          if (begun.gone.aborted) end();
          else begun.gone.addEventListener('abort', end);
        });
      },
    }),
  ];
}

function observe(
  datapath: Datapath,
  options: Parameters<NonNullable<Datapath['observe']>>[0],
  show: Parameters<NonNullable<Datapath['observe']>>[1],
): Observation {
  try {
    new Filter(options.filter);
  } catch (error) {
    if (error instanceof FilterError) throw new RequestRefused(400, error.message, 'filter');
    throw error;
  }
  if (!datapath.observe)
    throw new RequestRefused(409, `the data path ${datapath.kind} has no frames to show`);
  try {
    return datapath.observe(options, show);
  } catch (error) {
    throw new RequestRefused(409, (error as Error).message);
  }
}
