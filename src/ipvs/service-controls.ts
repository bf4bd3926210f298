/** The controls of a virtual server that are its table's: the director has them, a draft, and whoever else keeps a table. */
import type { ServiceTable } from './service-table.ts';
import type {
  DestinationSpecification,
  ServiceKey,
  ServiceSpecification,
  SyncDaemon,
  SyncRole,
  Timeouts,
} from './specification.ts';

export abstract class ServiceControls {
  protected abstract readonly table: ServiceTable;

  addService(service: ServiceSpecification): void {
    this.table.add(service);
  }

  editService(service: ServiceSpecification): void {
    this.table.edit(service);
  }

  deleteService(key: ServiceKey): void {
    this.table.delete(key);
  }

  flush(): void {
    this.table.flush();
  }

  addDestination(service: ServiceKey, destination: DestinationSpecification): void {
    this.table.addDestination(service, destination);
  }

  editDestination(service: ServiceKey, destination: DestinationSpecification): void {
    this.table.editDestination(service, destination);
  }

  deleteDestination(service: ServiceKey, address: string, port: number): void {
    this.table.deleteDestination(service, address, port);
  }

  addLocalAddress(service: ServiceKey, address: string, interfaceName?: string): void {
    this.table.addLocalAddress(service, address, interfaceName);
  }

  deleteLocalAddress(service: ServiceKey, address: string): void {
    this.table.deleteLocalAddress(service, address);
  }

  timeouts(): Timeouts {
    return this.table.timeouts();
  }

  setTimeouts(timeouts: Timeouts): void {
    this.table.setTimeouts(timeouts);
  }

  startSyncDaemon(daemon: SyncDaemon): void {
    this.table.startSyncDaemon(daemon);
  }

  stopSyncDaemon(role: SyncRole): void {
    this.table.stopSyncDaemon(role);
  }

  syncDaemons(): SyncDaemon[] {
    return this.table.syncDaemons();
  }
}
