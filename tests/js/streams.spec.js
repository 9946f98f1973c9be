// Clients that have one long HTTP response instead of a WebSocket: the SDK's transports for it, a
// page's own EventSource, and a line reader.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import { after, before, describe, it } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';

import { EventSource } from 'eventsource';

import { launch, openPage } from './browser.js';
import { ENCODINGS } from './encodings.js';
import { Throng, configuration, freePort, gather, inSeconds, jwt, nextEvent } from './throng.js';

const TEST = { timeout: 40_000 };

let throng;
let site;
let origin;
const clients = [];

before(async () => {
  site = http.createServer((request, response) => {
    response.writeHead(200, { 'Content-Type': 'text/html; charset=utf-8' }).end('<!doctype html><title>a page</title>');
  }).listen(0, '127.0.0.1');
  await once(site, 'listening');
  origin = `http://127.0.0.1:${site.address().port}`;
  const port = await freePort();
  const base = configuration(port);
  throng = await Throng.start({
    port,
    config: {
      ...base,
      client: { ...base.client, allowed_origins: [origin], ping_interval: '1s', pong_timeout: '500ms' },
      sse: { enabled: true },
      http_stream: { enabled: true },
      uni_sse: { enabled: true },
      uni_http_stream: { enabled: true },
    },
  });
});
after(async () => {
  for (const client of clients) client.disconnect();
  await throng?.stop();
  site?.close();
});

const [{ Centrifuge: Json }] = ENCODINGS;

function newClient({ transport, Centrifuge = Json }, options = {}) {
  const endpoint = `${throng.http}/connection/${transport}`;
  const client = new Centrifuge([{ transport, endpoint }], {
    eventsource: EventSource,
    fetch,
    readableStream: ReadableStream,
    emulationEndpoint: `${throng.http}/emulation`,
    minReconnectDelay: 20,
    maxReconnectDelay: 100,
    ...options,
  });
  // Errors are part of several tests; without a listener the SDK would throw them.
  client.on('error', () => {});
  clients.push(client);
  return client;
}

async function connected(way, options) {
  const client = newClient(way, options);
  const done = nextEvent(client, 'connected');
  client.connect();
  return Object.assign(client, { context: await done });
}

async function subscribed(client, channel) {
  const sub = client.newSubscription(channel);
  sub.on('error', () => {});
  const done = nextEvent(sub, 'subscribed');
  sub.subscribe();
  return Object.assign(sub, { context: await done });
}

const WAYS = [
  { transport: 'sse', ...ENCODINGS[0] },
  ...ENCODINGS.map((encoding) => ({ transport: 'http_stream', ...encoding })),
];

for (const way of WAYS) {
  const { transport, encoding } = way;
  describe(`the SDK over ${transport} in ${encoding}`, () => {
    it('subscribes, publishes, asks, and hears in order', TEST, async () => {
      const token = jwt({ sub: 'ann', exp: inSeconds(600) });
      const client = await connected(way, { token });
      assert.equal(client.context.transport, transport);
      const channel = `chat:${transport}-${encoding}`;
      const sub = await subscribed(client, channel);
      const { until } = gather(sub, 'publication', ({ data }) => data.n);
      for (let n = 0; n < 20; n += 1) await throng.publish(channel, { n });
      await sub.publish({ n: 20 });
      assert.deepEqual(await until(21), Array.from({ length: 21 }, (_, n) => n));
      const { publications } = await sub.history({ limit: 100 });
      assert.equal(publications.length, 21);
      const { clients: present } = await sub.presence();
      assert.deepEqual(Object.values(present).map(({ user }) => user), ['ann']);
      await assert.rejects(client.rpc('nothing', {}), { code: 108 });
    });

    it('answers pings, so it stays', TEST, async () => {
      const client = await connected(way);
      const gone = [];
      client.on('disconnected', (context) => gone.push(context)).on('connecting', (context) => gone.push(context));
      // Three pings, each of which would end it if its answer did not come.
      await wait(3500);
      assert.deepEqual(gone, []);
      assert.equal(client.state, 'connected');
    });

    it('is told why it is closed, and recovers what it missed', TEST, async () => {
      const user = `user-${transport}-${encoding}`;
      const client = await connected(way, { token: jwt({ sub: user, exp: inSeconds(600) }) });
      const channel = `chat:back-${transport}-${encoding}`;
      const sub = await subscribed(client, channel);
      const { until } = gather(sub, 'publication', ({ data }) => data);
      const reconnecting = nextEvent(client, 'connecting');
      const again = nextEvent(sub, 'subscribed');
      await throng.api('disconnect', { user, disconnect: { code: 4000, reason: 'come back' } });
      const { code, reason } = await reconnecting;
      assert.deepEqual({ code, reason }, { code: 4000, reason: 'come back' });
      await throng.publish(channel, 'missed');
      assert.equal((await again).wasRecovering, true);
      assert.deepEqual(await until(1), ['missed']);
      const ended = nextEvent(client, 'disconnected');
      await throng.api('disconnect', { user });
      assert.equal((await ended).code, 3503);
    });
  });
}

describe('a page of another origin', () => {
  let browser;

  before(async () => { browser = await launch(); });
  after(() => browser?.close());

  it('needs nothing but EventSource', TEST, async () => {
    const page = await openPage(browser, origin);
    const connect = encodeURIComponent(JSON.stringify({ subs: { news: {} } }));
    await page.evaluate((url) => {
      window.heard = [];
      window.source = new EventSource(url);
      window.source.onmessage = ({ data }) => data === '{}' ? undefined : window.heard.push(JSON.parse(data));
    }, `${throng.http}/connection/uni_sse?cf_connect=${connect}`);
    await page.waitForFunction(() => window.heard.length === 1);
    await throng.publish('news', { text: 'Grüße\n' });
    await page.waitForFunction(() => window.heard.length === 2);
    const [first, second] = await page.evaluate(() => window.heard);
    assert.ok(first.connect.subs.news);
    assert.deepEqual(second, { channel: 'news', pub: { data: { text: 'Grüße\n' } } });
    // Whoever is sent away comes back by himself: a browser does that.
    await throng.api('disconnect', { user: '', disconnect: { code: 4000, reason: 'come back' } });
    await page.waitForFunction(() => window.heard.filter(({ connect }) => connect).length === 2);
    const [, , farewell] = await page.evaluate(() => window.heard);
    assert.deepEqual(farewell, { disconnect: { code: 4000, reason: 'come back', reconnect: true } });
    assert.deepEqual(page.complaints, []);
  });

  it('may post and read lines, and one that is not allowed may not', TEST, async () => {
    const read = (url) => fetch(url, { method: 'POST', headers: { 'X-Mine': '1' }, body: '{}' }).then(
      async ({ body }) => {
        const reader = body.getReader();
        const { value } = await reader.read();
        await reader.cancel();
        return new TextDecoder().decode(value);
      },
      (error) => String(error),
    );
    const url = `${throng.http}/connection/uni_http_stream`;
    const page = await openPage(browser, origin);
    assert.match(await page.evaluate(read, url), /^\{"connect":/);
    const stranger = await openPage(browser, origin.replace('127.0.0.1', 'localhost'));
    assert.match(await stranger.evaluate(read, url), /TypeError/);
  });
});
