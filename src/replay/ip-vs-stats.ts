/** /proc/net/ip_vs_stats: totals and rates of the whole virtual server, in hexadecimal (ip_vs_ctl.c, ip_vs_stats_show). */
import type { Statistics } from '../ipvs/specification.ts';

export function formatStatistics(statistics: Statistics): string {
  const { connections, inPackets, outPackets, inBytes, outBytes } = statistics;
  const { connectionRate, inPacketRate, outPacketRate, inByteRate, outByteRate } = statistics;
  return (
    '   Total Incoming Outgoing         Incoming         Outgoing\n' +
    '   Conns  Packets  Packets            Bytes            Bytes\n' +
    `${row(connections, inPackets, outPackets, inBytes, outBytes)}\n\n` +
    ' Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n' +
    `${row(connectionRate, inPacketRate, outPacketRate, inByteRate, outByteRate)}\n`
  );
}

function row(...values: number[]): string {
  return values
    .map((value, column) =>
      BigInt(Math.trunc(value))
        .toString(16)
        .toUpperCase()
        .padStart(column < 3 ? 8 : 16),
    )
    .join(' ');
}
