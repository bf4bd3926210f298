/**
 * What the daemon tells the service manager that started it (sd_notify(3)): that it is ready, that it begins anew, that
 * it stops, and, where a watchdog is set, that it still does its work. Without one (no NOTIFY_SOCKET) nothing happens.
 */

/** Part of the watchdog's time after which it hears from us, as sd_watchdog_enabled(3) advises. */
const WATCHDOG_SHARE = 0.5;
const ALIVE = 'WATCHDOG=1';
/** Milliseconds until a busy service manager is told again. */
const BUSY_PAUSE = 100;

type Send = (path: string, text: string) => boolean;

export class Supervisor {
  readonly #socket: string | undefined;
  readonly #send: Send;
  #watchdog: NodeJS.Timeout | undefined;

  private constructor(socket: string | undefined, send: Send) {
    this.#socket = socket;
    this.#send = send;
  }

  /** Loads what it takes to send only if somebody listens. */
  static async connect(environment: NodeJS.ProcessEnv = process.env): Promise<Supervisor> {
    const socket = environment.NOTIFY_SOCKET || undefined;
    if (socket === undefined) return new Supervisor(undefined, () => true);
    const { sendUnixDatagram } = await import('../datapath/ffi/unix-datagram.ts');
    const supervisor = new Supervisor(socket, sendUnixDatagram);
    const { WATCHDOG_USEC: microseconds, WATCHDOG_PID: pid } = environment;
    const isMeant = pid === undefined || Number(pid) === process.pid;
    if (isMeant && Number(microseconds) > 0) supervisor.#startWatchdog(Number(microseconds) / 1000);
    return supervisor;
  }

  /** The timer runs on the loop that does all work: where that hangs, the watchdog hears nothing. */
  #startWatchdog(milliseconds: number): void {
    this.#watchdog = setInterval(() => this.#notify(ALIVE), milliseconds * WATCHDOG_SHARE);
    this.#watchdog.unref();
  }

  /** @param status one line about how it is, which `systemctl status` shows */
  ready(status: string): void {
    this.#notify(`READY=1\nMAINPID=${process.pid}\nSTATUS=${status.replaceAll('\n', ' ')}`);
  }

  reloading(): void {
    // CLOCK_MONOTONIC, as Type=notify-reload of systemd 253 wants it.
    this.#notify(`RELOADING=1\nMONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`);
  }

  stopping(): void {
    this.#notify('STOPPING=1');
  }

  /** The service manager may be gone or busy; that is no reason to fail. What is said once is said again then. */
  #notify(text: string): void {
    if (this.#socket === undefined) return;
    try {
      const isHeard = this.#send(this.#socket, text);
      if (!isHeard && text !== ALIVE) setTimeout(() => this.#notify(text), BUSY_PAUSE).unref();
    } catch (error) {
      console.error(`dirigo: cannot tell the service manager: ${(error as Error).message}`);
      clearInterval(this.#watchdog);
    }
  }
}
