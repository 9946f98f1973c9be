// The files of deploy/ that no other test starts.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { it } from 'node:test';
import { promisify } from 'node:util';

import { example } from './proxy.js';
import { BIN, emptyDirectory } from './throng.js';

const VERIFIER = '/usr/bin/systemd-analyze';

it('the unit is one that systemd takes', { skip: !existsSync(VERIFIER) && 'there is no systemd' }, async () => {
  const directory = await emptyDirectory();
  const file = path.join(directory, 'throng.service');
  const { username } = os.userInfo();
  // Its program and its user are not on this machine.
  await writeFile(file, await example('throng.service', [
    ['/usr/local/bin/throng', BIN],
    ['User=throng\nGroup=throng\n', `User=${username}\n`],
  ]));
  const { stdout, stderr } = await promisify(execFile)(VERIFIER, ['verify', file]);
  // It also speaks of other units of this machine.
  const said = (stdout + stderr).split('\n').filter((line) => line.includes('throng.service'));
  assert.deepEqual(said, []);
  await rm(directory, { recursive: true });
});
