// permessage-deflate with the clients that people have: npm's ws and Chromium under the official SDK, in
// both encodings, and Python's websockets.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import WebSocket from 'ws';

import { launch, openPage } from './browser.js';
import { ENCODINGS } from './encodings.js';
import { API_KEY, BIN, Throng, configuration, freePort, gather, inSeconds, jwt, nextEvent, run } from './throng.js';

const TEST = { timeout: 60_000 };
const PYTHON = path.join(path.dirname(BIN), '../sdks/bin/python');
const DIST = fileURLToPath(new URL('node_modules/centrifuge/dist/', import.meta.url));

/** More than may travel, and less than it may inflate to. */
const LARGE = 'a text that compresses well, '.repeat(10_000);
const DATA = [{ text: 'short' }, { text: LARGE }, { text: '' }, { text: `ä€𝄞 ${'x'.repeat(200)}` }];

let throng;

before(async () => {
  const port = await freePort();
  const base = configuration(port);
  const kept = base.channel.namespaces.find(({ name }) => name === 'chat');
  throng = await Throng.start({
    port,
    config: {
      ...base,
      websocket: { compression: true },
      prometheus: { enabled: true },
      client: { ...base.client, allowed_origins: ['*'] },
      channel: { ...base.channel, namespaces: [...base.channel.namespaces, { ...kept, name: 'python' }] },
    },
  });
});
after(() => throng?.stop());

/** A WebSocket with these options of compression; it is remembered what was agreed on. */
function socketWith(perMessageDeflate, made) {
  return class extends WebSocket {
    constructor(url, protocols) {
      super(url, protocols, { perMessageDeflate });
      made.push(this);
    }
  };
}

describe('ws', () => {
  for (const { encoding, Centrifuge } of ENCODINGS) {
    for (const [name, offer] of [
      ['with its own offer', { threshold: 0 }],
      ['with windows and no takeover', {
        threshold: 0, serverMaxWindowBits: 15, clientMaxWindowBits: 10, serverNoContextTakeover: true, clientNoContextTakeover: true,
      }],
      ['with the smallest window', { threshold: 0, serverMaxWindowBits: 9 }],
    ]) {
      it(`${name}: everything small and large comes back, in ${encoding}`, TEST, async () => {
        const made = [];
        const client = new Centrifuge(throng.websocket, { websocket: socketWith(offer, made) });
        const sub = client.newSubscription(`chat:${encoding}:${name.replaceAll(' ', '-')}`);
        const heard = gather(sub, 'publication', ({ data }) => data);
        const subscribed = nextEvent(sub, 'subscribed');
        sub.subscribe();
        client.connect();
        await subscribed;
        assert.match(made[0].extensions, /permessage-deflate/);
        for (const data of DATA) await sub.publish(data);
        await heard.until(DATA.length);
        assert.deepEqual(heard.got, DATA);
        const { publications } = await sub.history({ limit: 10 });
        assert.deepEqual(publications.map(({ data }) => data), DATA);
        // What the socket carried: the large text went up once and came down twice.
        const { bytesRead, bytesWritten } = made[0]._socket;
        assert.ok(bytesWritten < LARGE.length / 10, `${bytesWritten} bytes up`);
        // Who asks for a smaller window than the usual is sent publications as they are.
        if (offer.serverMaxWindowBits !== 9) {
          assert.ok(bytesRead < LARGE.length / 10, `${bytesRead} bytes down`);
        }
        client.disconnect();
      });
    }
  }
});

describe('Chromium', () => {
  for (const { encoding, file, binary } of [
    { encoding: 'JSON', file: 'centrifuge.js', binary: false },
    { encoding: 'Protobuf', file: 'centrifuge.protobuf.js', binary: true },
  ]) {
    it(`agrees on it by itself, and is served small and large, in ${encoding}`, TEST, async () => {
      const browser = await launch();
      try {
        const page = await openPage(browser, `${throng.http}/health`);
        await page.addScriptTag({ path: path.join(DIST, file) });
        const saw = await page.evaluate(async ({ url, isBinary, channel, large }) => {
          const made = [];
          class Remembered extends WebSocket {
            constructor(...all) {
              super(...all);
              made.push(this);
            }
          }
          const bytes = (text) => (isBinary ? new TextEncoder().encode(JSON.stringify(text)) : text);
          const text = (data) => (isBinary ? JSON.parse(new TextDecoder().decode(data)) : data);
          const client = new Centrifuge(url, { websocket: Remembered });
          const sub = client.newSubscription(channel);
          const heard = [];
          const all = new Promise((resolve) => {
            sub.on('publication', ({ data }) => heard.push(text(data)) === 4 && resolve());
          });
          const subscribed = new Promise((resolve) => { sub.on('subscribed', resolve); });
          sub.subscribe();
          client.connect();
          await subscribed;
          for (const data of ['short', large, '', 'ä€𝄞'.repeat(1000)]) await sub.publish(bytes(data));
          await all;
          const { publications } = await sub.history({ limit: 10 });
          client.disconnect();
          return {
            extensions: made[0].extensions,
            heard: heard.map((each) => each.length),
            same: heard[1] === large,
            history: publications.map(({ data }) => text(data).length),
          };
        }, { url: throng.websocket, isBinary: binary, channel: `chat:chromium:${encoding}`, large: LARGE });
        assert.match(saw.extensions, /permessage-deflate/);
        const lengths = [5, LARGE.length, 0, 4000];
        assert.deepEqual([saw.heard, saw.same, saw.history], [lengths, true, lengths]);
      } finally {
        await browser.close();
      }
    });
  }
});

/** How many publications were sent to clients, and their bytes. */
async function sent() {
  const page = await (await fetch(`${throng.http}/metrics`)).text();
  const all = (name) => page.split('\n')
    .filter((line) => line.startsWith(`throng_transport_${name}{`) && line.includes('"push_publication"') && line.includes('"websocket"'))
    .reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
  return { messages: all('messages_sent'), bytes: all('messages_sent_size') };
}

describe('throng load', () => {
  for (const encoding of ['json', 'protobuf', 'mixed']) {
    for (const compressed of [[], ['--compressed']]) {
      it(`has every message in ${encoding} ${compressed.join()}`, TEST, async () => {
        const before = await sent();
        const ran = await run([
          'load', throng.websocket, '--api-key', API_KEY, '--clients', '20', '--messages', '5', '--rounds', '2',
          '--size', '2000', '--encoding', encoding, ...compressed, '--json',
        ]);
        assert.equal(ran.code, 0, ran.stderr);
        const { fanout } = JSON.parse(ran.stdout);
        const { receivers, deliveries, lost, disordered } = fanout[0].median;
        assert.deepEqual({ receivers, deliveries, lost, disordered }, { receivers: 20, deliveries: 200, lost: 0, disordered: 0 });
        const now = await sent();
        const bytes = (now.bytes - before.bytes) / (now.messages - before.messages);
        assert.ok(compressed.length > 0 ? bytes < 500 : bytes > 2000, `${bytes} bytes each`);
      });
    }
  }
});

describe('Python', { skip: existsSync(PYTHON) ? false : 'no SDKs in target/sdks: scripts/need --install sdks' }, () => {
  const python = async (script, ...args) => {
    const file = fileURLToPath(new URL(`python/${script}`, import.meta.url));
    const { stdout } = await promisify(execFile)(PYTHON, [file, ...args], { timeout: TEST.timeout });
    return JSON.parse(stdout);
  };

  it('its library agrees on it, and is served small and large', TEST, async () => {
    const saw = await python('deflate.py', throng.websocket, 'chat:python', '300000');
    assert.deepEqual(saw.extensions, ['permessage-deflate']);
    assert.match(saw.answer, /^permessage-deflate; server_no_context_takeover; client_no_context_takeover/);
    assert.deepEqual([saw.heard, saw.history], [[5, 300_000, 0], [5, 300_000, 0]]);
  });

  for (const encoding of ['json', 'protobuf']) {
    it(`the SDK does in ${encoding} what it does without`, TEST, async () => {
      const token = jwt({ sub: 'ann', exp: inSeconds(600) });
      const saw = await python('sdk.py', throng.websocket, token, encoding);
      assert.deepEqual(saw.heard, [[1, { n: 0 }], [2, { n: 1 }], [3, { n: 2 }]]);
      assert.deepEqual([saw.history, saw.last], [[{ n: 0 }, { n: 1 }, { n: 2 }], [4, 'last']]);
    });
  }
});
