/** /etc/hosts: the address of each name in it, the first one where a name has several. */
export function parseHosts(text: string): Map<string, string> {
  const addresses = new Map<string, string>();
  for (const line of text.split('\n')) {
    const [address = '', ...names] = line.replace(/#.*/, '').trim().split(/\s+/);
    for (const name of names) if (!addresses.has(name)) addresses.set(name, address);
  }
  return addresses;
}
