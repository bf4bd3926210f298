/** The options of `dirigo up` that say who reaches the daemon, and what it writes about itself. */
import { type Command, Option } from 'commander';
import type { AccessOptions } from '../control/access.ts';
import { LOG_FORMATS, LOG_LEVELS, type LogFormat, type LogLevel } from '../control/log.ts';

export interface ApiOptions extends AccessOptions {
  logLevel: LogLevel;
  logFormat?: LogFormat;
}

export function addApiOptions(command: Command): Command {
  return command
    .option('--group <group>', 'members of this group may use the control socket, too')
    .option(
      '--listen <address:port>',
      'serve the API over TCP as well, as 127.0.0.1:8080 or [::1]:8080; needs --token-file',
    )
    .option(
      '--token-file <file>',
      'the token that TCP clients have to send; only the owner may read the file',
    )
    .option('--tls-cert <file>', 'serve TCP with TLS: the certificate and its chain, PEM')
    .option('--tls-key <file>', 'the key of the certificate, PEM')
    .option('--plain-tcp', 'allow --listen on other than loopback addresses without TLS')
    .addOption(
      new Option('--log-level <level>', 'least grave level that is logged')
        .choices(LOG_LEVELS)
        .default('info'),
    )
    .addOption(
      new Option(
        '--log-format <format>',
        'how the log is written to standard error (default: journal if that is the journal, else text)',
      ).choices(LOG_FORMATS),
    );
}

export function accessOptions({
  group,
  listen,
  tokenFile,
  tlsCert,
  tlsKey,
  plainTcp,
}: ApiOptions): AccessOptions {
  return {
    ...(group !== undefined && { group }),
    ...(listen !== undefined && { listen }),
    ...(tokenFile !== undefined && { tokenFile }),
    ...(tlsCert !== undefined && { tlsCert }),
    ...(tlsKey !== undefined && { tlsKey }),
    ...(plainTcp !== undefined && { plainTcp }),
  };
}
