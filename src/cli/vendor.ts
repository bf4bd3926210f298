/** Who made a card, in words for people. */
import { createRequire } from 'node:module';
import { macName, type VendorList } from '../capture/vendors.ts';
import { parseMac } from '../wire/address.ts';

let loaded: VendorList | undefined;

/** The IEEE's list; read when it is first asked for, because it is large. */
export function vendorList(): VendorList {
  loaded ??= createRequire(import.meta.url)('oui-data') as VendorList;
  return loaded;
}

/** The vendor of a MAC; undefined if its prefix is not in the list. */
export function vendorOf(mac: string): string | undefined {
  const bytes = parseMac(mac);
  if (!bytes) return undefined;
  const router = /^00:00:5e:00:0[12]:([0-9a-f]{2})$/.exec(mac);
  if (router) return `virtual router ${Number.parseInt(router[1] as string, 16)} (VRRP)`;
  const name = macName(bytes, 0, vendorList());
  const end = name.indexOf('_');
  if (end > 0) return name.slice(0, end);
  return (bytes[0] as number) & 2 ? 'locally administered' : undefined;
}
