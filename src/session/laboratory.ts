/** A place where the session can run: hosts that take command lines, cables that can be recorded, time that passes. */
import type { CapturedFrame } from '../capture/frame.ts';

export interface CommandOutput {
  status: number;
  stdout: string;
  stderr: string;
}

/** A capture under way on a host, as an operator sees it. */
export interface RunningCapture {
  /** The command line it runs as. */
  command: string;
  /** What it has printed when it ends by itself. */
  output: Promise<string>;
}

/** Records the cable of an interface: every frame into and out of it, in order. */
export interface Recording {
  stop(): Promise<CapturedFrame[]>;
}

export interface Laboratory {
  /** What it is, for the title. */
  readonly description: string;
  /** How the director forwards here, for the title of a step. */
  readonly datapath: string;
  /** The hosts that clients are on, the first with 10.0.0.1. */
  readonly clients: readonly string[];
  /** Runs a command line on a host. */
  run(host: string, commandLine: string): Promise<CommandOutput>;
  /** Starts a capture that ends by itself after `count` frames. */
  capture(host: string, interfaceName: string, filter: string, count: number): Promise<RunningCapture>;
  record(host: string, interfaceName: string): Promise<Recording>;
  /** MAC address of an interface. */
  mac(host: string, interfaceName: string): string;
  /** Where the web server's log is. */
  accessLogPath(host: string): string;
  /** The web server's log, a line a request. */
  accessLog(host: string): Promise<string[]>;
  /** Lets seconds pass. */
  sleep(seconds: number): Promise<void>;
  /** Takes everything down; never throws for what is gone already. */
  close(): Promise<void>;
}
