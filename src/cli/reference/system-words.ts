/** Shell commands that print what there is on this system, a word a line, for completions in any shell. */
export const SYSTEM_WORDS = {
  interface: 'command ls /sys/class/net 2>/dev/null',
  service: "ipvsadm -Sn 2>/dev/null | sed -n 's/^-A -[a-z-]* \\([^ ]*\\).*/\\1/p'",
  server: "ipvsadm -Sn 2>/dev/null | sed -n 's/.* -r \\([^ ]*\\).*/\\1/p' | sort -u",
  setting: "dirigo setting 2>/dev/null | sed 's/ .*//'",
} as const;
