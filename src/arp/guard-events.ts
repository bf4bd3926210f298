/** The guard's events: their kinds, how grave each is, and what to do about it. docs/arp.md shows the same table. */

/** How grave an event is: `info` is only for the record. */
export type Severity = 'info' | 'warning' | 'alarm';

export interface EventKindDescription {
  severity: Severity;
  /** What was seen. */
  meaning: string;
  /** What to do. */
  advice: string;
}

export const GUARD_EVENT_KINDS = {
  'vip-claimed': {
    severity: 'alarm',
    meaning: 'a station that is no director claims a virtual address',
    advice:
      'find the station by its MAC (the switch knows its port) and take it off; if it is another director, name it with --director or its --vrid',
  },
  'server-answers-for-vip': {
    severity: 'alarm',
    meaning: 'a real server answers or announces a virtual address',
    advice:
      'on the real server set arp_ignore=1 and arp_announce=2 for all and the interface, or run `dirigo realserver --mode dr`',
  },
  'gateway-claimed': {
    severity: 'alarm',
    meaning: "a station claims the gateway's address",
    advice:
      'if the router was not replaced, somebody wants your traffic: find the station; pin the right MAC with `dirigo arp pin`',
  },
  'binding-contradicted': {
    severity: 'alarm',
    meaning: 'a station claims an address that is configured or pinned to another MAC',
    advice: 'if the card was replaced, pin the new MAC with `dirigo arp pin`; else find the station',
  },
  'duplicate-address': {
    severity: 'alarm',
    meaning: 'two stations have the same address',
    advice: 'change the address of one of them',
  },
  'binding-flip-flop': {
    severity: 'alarm',
    meaning: 'an address goes back and forth between two MACs',
    advice: 'two stations fight for it: a duplicate address, or an attacker against the owner',
  },
  'binding-changed': {
    severity: 'warning',
    meaning: 'an address that nobody configured is at another MAC than before',
    advice: 'harmless if a card was replaced or an address given to another host',
  },
  'unrequested-reply': {
    severity: 'warning',
    meaning: 'a reply or solicited advertisement that nobody asked for',
    advice: 'the usual form of poisoning: look at what it claims',
  },
  'sender-mismatch': {
    severity: 'warning',
    meaning: 'the MAC in the message is not the one the frame came from',
    advice: 'a proxy or a virtual router that is not configured (--vrid), or somebody speaks for others',
  },
  'many-addresses': {
    severity: 'warning',
    meaning: 'one MAC claims very many addresses',
    advice: 'a router that answers for others (proxy ARP), or an attacker who poisons a whole network',
  },
  storm: {
    severity: 'warning',
    meaning: 'more ARP or neighbour discovery than a network needs',
    advice: 'a loop, a scanner, or a flood: find the station or the loop',
  },
  malformed: {
    severity: 'warning',
    meaning: 'a message with wrong lengths, types or checksum',
    advice: 'hosts drop it; no ordinary system sends it',
  },
  'address-moved': {
    severity: 'info',
    meaning: 'an address went from one director to another (failover)',
    advice: 'nothing, if a failover was meant to be',
  },
  restored: {
    severity: 'info',
    meaning: 'an address that somebody else had claimed was claimed by its owner again',
    advice: 'nothing',
  },
} as const satisfies Record<string, EventKindDescription>;

export type GuardEventKind = keyof typeof GUARD_EVENT_KINDS;

export interface GuardEvent {
  kind: GuardEventKind;
  severity: Severity;
  /** Milliseconds of the clock that the observations came with. */
  time: number;
  interface: string;
  /** 0: none. */
  vlan: number;
  /** The address that is concerned. */
  address?: string;
  /** The MAC that claims it, or that the event is about. */
  mac?: string;
  /** Where the address should be, or was before. */
  expected?: readonly string[];
  /** True if the filter dropped the frame. */
  dropped: boolean;
  /** Frames of this sort since the last event of this sort, this one included. */
  count: number;
  /** One line in words. */
  text: string;
}
