/** Steps on addresses, settings and routes of the host. */
import { type Family, familyOf } from '../wire/address.ts';
import {
  effective,
  interfaces,
  readSetting,
  routeLines,
  run,
  type SettingName,
  sameRoute,
  settingText,
  writeSetting,
} from './host.ts';
import type { Restoration } from './restoration.ts';
import type { Finding, Step } from './step.ts';

/** Puts an address on a device, for this host alone. */
export class AddressStep implements Step {
  readonly key: string;
  readonly label: string;
  readonly vips: readonly string[];
  readonly address: string;
  readonly device: string;

  /** @param device one that does not answer who has it */
  constructor(address: string, device: string) {
    this.address = address;
    this.vips = [address];
    this.device = device;
    this.key = `address ${address} ${device}`;
    this.label = `address ${this.#withPrefix} on ${device}`;
  }

  get #withPrefix(): string {
    return `${this.address}/${familyOf(this.address) === 4 ? 32 : 128}`;
  }

  get #words(): string[] {
    const nodad = familyOf(this.address) === 6 ? ['nodad'] : [];
    return ['address', 'add', this.#withPrefix, 'dev', this.device, ...nodad];
  }

  commands(): string[] {
    return [`ip ${this.#words.join(' ')}`];
  }

  isMade(): boolean {
    return interfaces().some(
      ({ isSilent, addresses }) => isSilent && addresses.some(({ address }) => address === this.address),
    );
  }

  inspect(): Finding | undefined {
    if (this.isMade()) return undefined;
    return {
      level: 'missing',
      text: `${this.address} is not on ${this.device}: this host does not take packets to it`,
      remedy: this.commands().join('; '),
    };
  }

  prepare(): Restoration {
    return { kind: 'address', address: this.#withPrefix, device: this.device };
  }

  make(): void {
    run('ip', ...this.#words);
  }
}

export interface SettingStepOptions {
  name: SettingName;
  value: number;
  /** Values that do as well. Default: only `value`. */
  accepted?: readonly number[];
  /** What the wrong value does, as the end of a sentence. */
  effect: string;
  /**
   * How the kernel combines the interface's value with that of `all`: `largest`; or not at all, `own`.
   * With `largest` the value of the interface need not be set if `all` has it.
   */
  combined: 'largest' | 'own';
  /** See `Step`. */
  vips?: readonly string[];
}

export class SettingStep implements Step {
  readonly key: string;
  readonly label: string;
  readonly vips?: readonly string[];
  readonly #options: SettingStepOptions;

  constructor(options: SettingStepOptions) {
    if (options.vips) this.vips = options.vips;
    this.#options = options;
    this.key = `setting ${settingText(options.name)}`;
    this.label = `setting ${settingText(options.name)} = ${options.value}`;
  }

  commands(): string[] {
    const { name, value } = this.#options;
    return [`sysctl -w ${settingText(name)}=${value}`];
  }

  /** As sysctl.d has it. */
  line(): string {
    const { name, value } = this.#options;
    return `${settingText(name)} = ${value}`;
  }

  #accepts(value: number | undefined): boolean {
    const { value: wanted, accepted = [wanted] } = this.#options;
    return value !== undefined && accepted.includes(value);
  }

  isMade(): boolean {
    return this.#accepts(readSetting(this.#options.name));
  }

  inspect(): Finding | undefined {
    const { name, effect, combined } = this.#options;
    if (this.isMade()) return undefined;
    if (combined === 'largest' && this.#isCovered()) return undefined;
    const remedy = this.commands().join('; ');
    const value = readSetting(name);
    const text =
      value === undefined
        ? `there is no ${settingText(name)}`
        : `${settingText(name)} is ${value}: ${effect}`;
    return { level: 'missing', text, remedy };
  }

  /** True if what counts is right on every interface that the setting is for. */
  #isCovered(): boolean {
    const { name } = this.#options;
    if (name.device !== 'all') return this.#accepts(effective(name));
    const others = interfaces().filter(({ isSilent, isUp }) => !isSilent && isUp);
    return (
      others.length > 0 && others.every(other => this.#accepts(effective({ ...name, device: other.name })))
    );
  }

  prepare(): Restoration {
    const { name, value } = this.#options;
    const before = readSetting(name);
    if (before === undefined) throw new Error(`there is no setting ${settingText(name)} on this host`);
    return { kind: 'setting', name, before, after: value };
  }

  make(): void {
    writeSetting(this.#options.name, this.#options.value);
  }
}

/** Puts a route in the place of the one to the same destination with the same metric. */
export class RouteStep implements Step {
  readonly key: string;
  readonly label: string;
  readonly #family: Family;
  readonly #route: string;
  readonly #before: string | undefined;
  readonly #effect: string;

  /**
   * @param route as `ip route show` prints it
   * @param before the route that it replaces, in the same form
   * @param effect what its absence does, as the end of a sentence
   * @param isMade whether something else does the same. Default: the route is there
   */
  constructor(
    family: Family,
    route: string,
    before: string | undefined,
    effect: string,
    isMade?: () => boolean,
  ) {
    if (isMade) this.isMade = isMade;
    this.#family = family;
    this.#route = route;
    this.#before = before;
    this.#effect = effect;
    this.key = `route ${family} ${route.split(' ')[0]} ${/metric \d+/.exec(route)?.[0] ?? ''}`;
    this.label = `route ${route}`;
  }

  commands(): string[] {
    return [`ip -${this.#family} route replace ${this.#route}`];
  }

  isMade = (): boolean => {
    return routeLines(this.#family).some(line => sameRoute(line, this.#route));
  };

  inspect(): Finding | undefined {
    if (this.isMade()) return undefined;
    return {
      level: 'missing',
      text: `there is no route "${this.#route}": ${this.#effect}`,
      remedy: this.commands().join('; '),
    };
  }

  prepare(): Restoration {
    return {
      kind: 'route',
      family: this.#family,
      after: this.#route,
      ...(this.#before === undefined ? {} : { before: this.#before }),
    };
  }

  make(): void {
    run('ip', `-${this.#family}`, 'route', 'replace', ...this.#route.split(' '));
  }
}
