/** Makes the data path that was asked for. */
import type { Datapath, DatapathKind } from './datapath.ts';

export interface DatapathRequest {
  kind: DatapathKind;
  /** Of `--interface`: for xdp the names of the interfaces to attach to, for virtual the host's, `NAME=ADDRESS/PREFIX,…`. */
  interfaces: readonly string[];
  /** For xdp only; what is missing is the data path's default. */
  xdp?: XdpRequest;
}

export interface XdpRequest {
  mode?: 'auto' | 'native' | 'generic';
  /** Most connections, 1..16777214. */
  capacity?: number;
  /** Most services, and most real servers in them. */
  services?: number;
  destinations?: number;
  /** Frames that may wait for the director on each receive queue, a power of two. */
  ring?: number;
}

/**
 * Makes sure that such a data path could be opened, as far as that can be known without touching anything: another
 * daemon may be running.
 * @throws Error whose message is one line: what is missing and what to do
 */
export async function checkDatapath({ kind, interfaces }: DatapathRequest): Promise<void> {
  if (kind === 'virtual') {
    const { parseStaticInterface } = await import('./static-host.ts');
    for (const each of interfaces) parseStaticInterface(each);
    return;
  }
  requireXdpRequest(interfaces);
  const { checkXdp } = await import('./xdp/predecessor.ts');
  checkXdp(process.env.DIRIGO_BPF || undefined, interfaces);
}

function requireXdpRequest(interfaces: readonly string[]): void {
  if (process.getuid?.() !== 0) {
    throw new Error('the XDP data path needs root: run this as root, or use --datapath virtual');
  }
  if (interfaces.length === 0) {
    throw new Error('the XDP data path needs an interface to attach to: name it with --interface');
  }
}

/**
 * Loads only the code of that kind: the XDP one needs native libraries. Its programs and tables are pinned under
 * `DIRIGO_BPF`, by default /sys/fs/bpf/dirigo.
 * @throws Error whose message is one line: what is missing and what to do
 */
export async function openDatapath({ kind, interfaces, xdp = {} }: DatapathRequest): Promise<Datapath> {
  if (kind === 'virtual') {
    const { VirtualDatapath } = await import('./virtual.ts');
    const { parseStaticInterface } = await import('./static-host.ts');
    return new VirtualDatapath(
      interfaces.length === 0 ? {} : { interfaces: interfaces.map(parseStaticInterface) },
    );
  }
  requireXdpRequest(interfaces);
  const { XdpDatapath } = await import('./xdp/xdp-datapath.ts');
  const directory = process.env.DIRIGO_BPF;
  const { services, destinations, ...options } = xdp;
  return new XdpDatapath({
    interfaces,
    ...options,
    ...(services === undefined ? {} : { serviceCapacity: services }),
    ...(destinations === undefined ? {} : { destinationCapacity: destinations }),
    ...(directory ? { directory } : {}),
  });
}
