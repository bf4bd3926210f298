import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DEFAULT_SETTINGS, parseSetting, SETTING_RANGES, SettingError, settingName } from './settings.ts';

test('every default lies in its range', () => {
  for (const [name, value] of Object.entries(DEFAULT_SETTINGS)) {
    assert.equal(parseSetting(name, ` ${value}\n`), value, name);
    const [least, most] = SETTING_RANGES[settingName(name)];
    assert.equal(parseSetting(name, String(least)), least);
    assert.equal(parseSetting(name, String(most)), most);
    assert.throws(() => parseSetting(name, String(most + 1)), SettingError);
  }
});

test('what is no number of the range is refused by name', () => {
  for (const text of ['4', '-1', 'x', '', '1 2', '0x1', '1.5', '99999999999']) {
    assert.throws(() => parseSetting('drop_entry', text), {
      name: 'SettingError',
      message: `drop_entry cannot be "${text}": it is a whole number 0..3`,
    });
  }
});

test('an unknown setting is answered with those there are', () => {
  assert.throws(() => parseSetting('drop_entries', '1'), /no setting "drop_entries"; there are am_droprate,/);
  assert.throws(() => parseSetting('toString', '1'), SettingError);
});
