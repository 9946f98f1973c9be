// The official client SDK and the official API client in Python, as PyPI has them.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { BIN, Throng, configuration, freePort, inSeconds, jwt } from './throng.js';

const TEST = { timeout: 60_000 };
const PYTHON = path.join(path.dirname(BIN), '../sdks/bin/python');
const skip = existsSync(PYTHON) ? false : 'no SDKs in target/sdks: scripts/need --install sdks';

async function python(script, ...args) {
  const file = fileURLToPath(new URL(`python/${script}`, import.meta.url));
  const { stdout } = await promisify(execFile)(PYTHON, [file, ...args], { timeout: TEST.timeout });
  return JSON.parse(stdout);
}

describe('Python', { skip }, () => {
  let throng;

  before(async () => {
    const port = await freePort();
    const base = configuration(port);
    const kept = base.channel.namespaces.find(({ name }) => name === 'chat');
    const namespaces = ['python', 'cent'].map((name) => ({ ...kept, name, join_leave: true, presence: true }));
    namespaces.push({ ...kept, name: 'delta', allowed_delta_types: ['fossil'], delta_publish: true });
    throng = await Throng.start({ port, config: { ...base, channel: { ...base.channel, namespaces } } });
  });
  after(() => throng?.stop());

  for (const encoding of ['json', 'protobuf']) {
    it(`centrifuge-python does in ${encoding} what it can do`, TEST, async () => {
      const token = jwt({ sub: 'ann', exp: inSeconds(600) });
      const saw = await python('sdk.py', throng.websocket, token, encoding);
      assert.deepEqual(saw, {
        subscribed: [false, false],
        heard: [[1, { n: 0 }], [2, { n: 1 }], [3, { n: 2 }]],
        joined: 'ann',
        history: [{ n: 0 }, { n: 1 }, { n: 2 }],
        present: ['ann'],
        stats: [1, 1],
        rpc: 108,
        again: [true, true],
        last: [4, 'last'],
      });
    });
  }

  for (const encoding of ['json', 'protobuf']) {
    it(`centrifuge-python reads deltas in ${encoding}`, TEST, async () => {
      const heard = await python('deltas.py', throng.websocket, encoding);
      assert.deepEqual(heard, [0, 1, 2, 3].map((n) => [n, 800]));
    });
  }

  it('cent calls every method that there is', TEST, async () => {
    const { history, batch, ...saw } = await python('backend.py', `${throng.http}/api`, 'test-api-key');
    const { epoch } = history;
    assert.match(epoch, /^[A-Za-z]{8}$/);
    assert.deepEqual(history.publications.map(({ data, offset }) => [offset, data]), [[1, { n: 1 }], [2, 2], [3, 3]]);
    assert.deepEqual(history.publications[0].tags, { t: '1' });
    assert.equal(batch.length, 2);
    assert.equal(batch[0].offset, 4);
    assert.deepEqual([batch[1].offset, batch[1].publications.length], [4, 1]);
    assert.deepEqual(saw, {
      publish: { offset: 1, epoch },
      again: [2, 2],
      broadcast: [{ result: { offset: 3, epoch } }, { error: { code: 102, message: 'unknown channel' } }],
      presence: { presence: {} },
      stats: { num_clients: 0, num_users: 0 },
      channels: [],
      nodes: 1,
      subscribe: {},
      unsubscribe: {},
      disconnect: {},
      refresh: {},
      removed: {},
      error: 102,
      unauthorized: true,
    });
  });
});
