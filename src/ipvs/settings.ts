/**
 * The switches of the virtual server, with the kernel's names and defaults
 * (/proc/sys/net/ipv4/vs/, Documentation/networking/ipvs-sysctl.rst). Times are seconds here, as there.
 */

export interface Settings {
  /** Bit 1: a SYN on a connection that is over (TIME_WAIT, CLOSE) is scheduled anew; 2: on one in FIN_WAIT too; 0: never. */
  conn_reuse_mode: number;
  /** 1: a packet for a server that is gone ends its connection instead of being dropped until the timeout. */
  expire_nodest_conn: number;
  /** 1: a persistent client of a quiesced server (weight 0) is scheduled anew. */
  expire_quiescent_template: number;
  /** 1: any TCP segment may start a connection, not just a SYN. */
  sloppy_tcp: number;
  /** 1: any SCTP chunk may start a connection, not just INIT. */
  sloppy_sctp: number;
  /** 1: an ICMP error for a service may start a connection. */
  schedule_icmp: number;
  /** 1: servers are told (port unreachable) when their reply belongs to no connection. */
  nat_icmp_send: number;
  /** 1: packets too big for the way to the server are answered with fragmentation needed; 0: tunnels fragment. */
  pmtu_disc: number;
  /** 1: packets of protocols the virtual server does not know are passed on as handled. */
  ignore_tunneled: number;
  /** 1: a director that is a backup does not direct. */
  backup_only: number;
  /** 1: packets of a firewall-mark service without server go to where they were addressed. */
  cache_bypass: number;
  /** Dropping half-open connections: 0 off, 1 and 2 when memory runs short, 3 always. */
  drop_entry: number;
  /** Dropping packets of new connections, the same levels. */
  drop_packet: number;
  /** With drop_packet 3, one in this many is dropped. */
  am_droprate: number;
  /** Free records of the connection table below which the automatic defences begin. The kernel counts pages. */
  amemthresh: number;
  /** The stricter TCP table, the same levels. */
  secure_tcp: number;
  /** 1: rates are estimated. */
  run_estimation: number;
  /**
   * 1: FULLNAT takes the timestamps out of a client's SYN: many clients share a local address, and a server would drop
   * segments whose timestamps seem to run backwards. The switches `fullnat_…` have Alibaba LVS's names and defaults.
   */
  fullnat_timestamp_remove_entry: number;
  /** 1: FULLNAT lowers the segment size that a server states by the length of TOA, so that it fits. */
  fullnat_mss_adjust_entry: number;
  /** 1: FULLNAT connections of services that ask for TOA get it. */
  fullnat_toa_entry: number;
  /** Ports of local addresses, 1..65535, both included. */
  fullnat_lport_min: number;
  fullnat_lport_max: number;
  /** Most ports that are looked at for one new connection. */
  fullnat_lport_tries: number;
  /** Kind of the TOA option for IPv4 clients: 254 with Alibaba and DPVS. */
  toa_kind: number;
  /** The same for IPv6 clients: 254 with DPVS, 253 with Alibaba. */
  toa_kind_v6: number;
  /**
   * Largest segment that the SYN proxy lets clients send, bytes; less where the way to them takes less. It should fit the
   * ways to the servers, too, whose own sizes clients do not learn. The switches `synproxy_…` have Alibaba LVS's names
   * and defaults.
   */
  synproxy_init_mss: number;
  /** 1: the SYN proxy grants clients selective acknowledgements. */
  synproxy_sack: number;
  /** Window scale that the SYN proxy states to clients that ask for one, and lets servers state theirs; 0: no scaling. */
  synproxy_wscale: number;
  /** 1: the SYN proxy grants clients timestamps; not with FULLNAT servers while `fullnat_timestamp_remove_entry` is 1. */
  synproxy_timestamp: number;
  /** TTL of the SYN proxy's answers to SYNs. */
  synproxy_synack_ttl: number;
  /** 1: the SYN proxy makes a connection with a client's first data, not with its acknowledgement. */
  synproxy_defer: number;
  /** 1: clients may begin anew on connections that the SYN proxy made and that are over, by the switches below. */
  synproxy_conn_reuse: number;
  /** 1: in the state CLOSE. */
  synproxy_conn_reuse_close: number;
  /** 1: in TIME_WAIT. */
  synproxy_conn_reuse_time_wait: number;
  /** 1: in FIN_WAIT. */
  synproxy_conn_reuse_fin_wait: number;
  /** 1: in CLOSE_WAIT. */
  synproxy_conn_reuse_close_wait: number;
  /** 1: in LAST_ACK. */
  synproxy_conn_reuse_last_ack: number;
  /** Segments of a client that the SYN proxy holds until the server has answered; its window says how much that is. */
  synproxy_ack_skb_store_thresh: number;
  /** From this many acknowledgements without data on while the server has not answered, they are counted as a storm. */
  synproxy_ack_storm_thresh: number;
  /** Times that the SYN proxy sends its SYN to a server again, after 1, 3, 7 … seconds, before the client gets a reset. */
  synproxy_syn_retry: number;
  /** Seconds after which an unused entry of lblc, an unchanged set of lblcr is given up. */
  lblc_expiration: number;
  lblcr_expiration: number;
}

export const DEFAULT_SETTINGS: Readonly<Settings> = {
  conn_reuse_mode: 1,
  expire_nodest_conn: 0,
  expire_quiescent_template: 0,
  sloppy_tcp: 0,
  sloppy_sctp: 0,
  schedule_icmp: 0,
  nat_icmp_send: 0,
  pmtu_disc: 1,
  ignore_tunneled: 0,
  backup_only: 0,
  cache_bypass: 0,
  drop_entry: 0,
  drop_packet: 0,
  am_droprate: 10,
  amemthresh: 1024,
  secure_tcp: 0,
  run_estimation: 1,
  fullnat_timestamp_remove_entry: 1,
  fullnat_mss_adjust_entry: 1,
  fullnat_toa_entry: 1,
  fullnat_lport_min: 5000,
  fullnat_lport_max: 65535,
  fullnat_lport_tries: 10_000,
  toa_kind: 254,
  toa_kind_v6: 254,
  synproxy_init_mss: 1452,
  synproxy_sack: 1,
  synproxy_wscale: 0,
  synproxy_timestamp: 0,
  synproxy_synack_ttl: 63,
  synproxy_defer: 0,
  synproxy_conn_reuse: 1,
  synproxy_conn_reuse_close: 1,
  synproxy_conn_reuse_time_wait: 1,
  synproxy_conn_reuse_fin_wait: 0,
  synproxy_conn_reuse_close_wait: 0,
  synproxy_conn_reuse_last_ack: 0,
  synproxy_ack_skb_store_thresh: 3,
  synproxy_ack_storm_thresh: 10,
  synproxy_syn_retry: 3,
  lblc_expiration: 24 * 60 * 60,
  lblcr_expiration: 24 * 60 * 60,
};

/** The least and the greatest value of each setting; all are whole numbers. */
export const SETTING_RANGES: Readonly<Record<keyof Settings, readonly [least: number, most: number]>> = {
  conn_reuse_mode: [0, 3],
  expire_nodest_conn: [0, 1],
  expire_quiescent_template: [0, 1],
  sloppy_tcp: [0, 1],
  sloppy_sctp: [0, 1],
  schedule_icmp: [0, 1],
  nat_icmp_send: [0, 1],
  pmtu_disc: [0, 1],
  ignore_tunneled: [0, 1],
  backup_only: [0, 1],
  cache_bypass: [0, 1],
  drop_entry: [0, 3],
  drop_packet: [0, 3],
  am_droprate: [0, 2 ** 31 - 1],
  amemthresh: [0, 2 ** 31 - 1],
  secure_tcp: [0, 3],
  run_estimation: [0, 1],
  fullnat_timestamp_remove_entry: [0, 1],
  fullnat_mss_adjust_entry: [0, 1],
  fullnat_toa_entry: [0, 1],
  fullnat_lport_min: [1, 65535],
  fullnat_lport_max: [1, 65535],
  fullnat_lport_tries: [1, 65535],
  toa_kind: [9, 254],
  toa_kind_v6: [9, 254],
  synproxy_init_mss: [64, 65_495],
  synproxy_sack: [0, 1],
  synproxy_wscale: [0, 14],
  synproxy_timestamp: [0, 1],
  synproxy_synack_ttl: [1, 255],
  synproxy_defer: [0, 1],
  synproxy_conn_reuse: [0, 1],
  synproxy_conn_reuse_close: [0, 1],
  synproxy_conn_reuse_time_wait: [0, 1],
  synproxy_conn_reuse_fin_wait: [0, 1],
  synproxy_conn_reuse_close_wait: [0, 1],
  synproxy_conn_reuse_last_ack: [0, 1],
  synproxy_ack_skb_store_thresh: [0, 16],
  synproxy_ack_storm_thresh: [1, 1_000_000],
  synproxy_syn_retry: [0, 6],
  lblc_expiration: [0, 2_147_483],
  lblcr_expiration: [0, 2_147_483],
};

/** A setting that does not exist, or a value it cannot have; the message names both and says what is possible. */
export class SettingError extends Error {
  override name = 'SettingError';
}

/** @throws SettingError */
export function settingName(name: string): keyof Settings {
  if (!Object.hasOwn(DEFAULT_SETTINGS, name)) {
    const known = Object.keys(DEFAULT_SETTINGS).sort().join(', ');
    throw new SettingError(`there is no setting "${name}"; there are ${known}`);
  }
  // It is a property of the defaults.
  return name as keyof Settings;
}

/**
 * The number that `text` gives a setting.
 * @throws SettingError
 */
export function parseSetting(name: string, text: string): number {
  const [least, most] = SETTING_RANGES[settingName(name)];
  const trimmed = text.trim();
  const number = /^[0-9]{1,10}$/.test(trimmed) ? Number(trimmed) : Number.NaN;
  if (!(number >= least && number <= most)) {
    throw new SettingError(`${name} cannot be "${trimmed}": it is a whole number ${least}..${most}`);
  }
  return number;
}
