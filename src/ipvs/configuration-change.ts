/** What has changed in a director's configuration, told to whoever follows it once the change is in force. */
import type {
  DestinationSpecification,
  ServiceKey,
  ServiceSpecification,
  SyncDaemon,
  SyncRole,
  Timeouts,
} from './specification.ts';

export type ConfigurationChange =
  /** `service-edited`: its properties or its local addresses. */
  | { kind: 'service-added' | 'service-edited'; service: ServiceSpecification }
  /** Its destinations are gone with it. */
  | { kind: 'service-deleted'; service: ServiceKey }
  | {
      kind: 'destination-added' | 'destination-edited';
      service: ServiceKey;
      destination: DestinationSpecification;
    }
  | { kind: 'destination-deleted'; service: ServiceKey; address: string; port: number }
  /** The destinations stand in another order. */
  | { kind: 'destinations-arranged'; service: ServiceKey }
  /** The services stand in another order. */
  | { kind: 'services-arranged' }
  | { kind: 'timeouts'; timeouts: Timeouts }
  | { kind: 'daemon-started'; daemon: SyncDaemon }
  | { kind: 'daemon-stopped'; role: SyncRole }
  | { kind: 'setting'; name: string; value: number }
  /** The rules of firewall marks, all of them, as `parseMarkRule` reads them. */
  | { kind: 'marks'; rules: readonly string[] }
  /** The static bindings of addresses to MACs, all of them, as `parsePin` reads them. */
  | { kind: 'pins'; pins: readonly string[] };

export type ConfigurationListener = (change: ConfigurationChange) => void;
