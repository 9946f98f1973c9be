// Clients that have one long HTTP response instead of a WebSocket: that the SDK answers pings there, a page's own
// EventSource, and a line reader. What else the SDK does is in centrifuge.spec.js.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import { after, before, describe, it } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';

import { launch, openPage } from './browser.js';
import { Throng, configuration, freePort, nextEvent } from './throng.js';
import { TRANSPORTS, WAYS } from './ways.js';

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
      ...TRANSPORTS,
    },
  });
});
after(async () => {
  for (const client of clients) client.disconnect();
  await throng?.stop();
  site?.close();
});

describe('pings', { concurrency: true }, () => {
  for (const way of WAYS.filter(({ transport }) => transport !== 'websocket')) {
    it(`are answered over ${way.name}, so it stays`, TEST, async () => {
      const client = way.client(throng.websocket);
      // Errors would be thrown without a listener.
      client.on('error', () => {});
      clients.push(client);
      const there = nextEvent(client, 'connected');
      client.connect();
      await there;
      const gone = [];
      client.on('disconnected', (context) => gone.push(context)).on('connecting', (context) => gone.push(context));
      // Three pings, each of which would end it if its answer did not come.
      await wait(3500);
      assert.deepEqual(gone, []);
      assert.equal(client.state, 'connected');
    });
  }
});

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
