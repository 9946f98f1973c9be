// Restarts and the official JavaScript SDK, in node and in a browser: it notices nothing.

import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import { after, before, describe, it } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';

import { Centrifuge } from 'centrifuge';
import WebSocket from 'ws';

import { launch, openPage } from './browser.js';
import { Throng, configuration, emptyDirectory, freePort, nextEvent, run } from './throng.js';

const TEST = { timeout: 180_000 };
const PATIENCE_MS = 60_000;
const RESTARTS = 3;
const SDK = fileURLToPath(new URL('node_modules/centrifuge/dist/centrifuge.js', import.meta.url));

let throng;
let runtime;
let pid;

before(async () => {
  runtime = await emptyDirectory();
  const port = await freePort();
  const base = configuration(port);
  throng = await Throng.start({
    port,
    config: { ...base, client: { ...base.client, allowed_origins: ['*'] } },
    env: { XDG_RUNTIME_DIR: runtime },
  });
  pid = throng.process.pid;
});
after(async () => {
  // The one that serves, before the one before it takes over again.
  await throng?.stop();
  if (pid !== undefined && pid !== throng?.process.pid) process.kill(pid, 'SIGKILL');
});

async function restart() {
  const ran = await run(['restart', '--json', '--pid', String(pid)], { env: { XDG_RUNTIME_DIR: runtime } });
  assert.equal(ran.code, 0, `${ran.stdout}${ran.stderr}`);
  const { outcome } = JSON.parse(ran.stdout);
  assert.notEqual(outcome.to.pid, pid);
  pid = outcome.to.pid;
  return outcome;
}

/** Publishes on, and restarts in the midst of it; how many were published. */
async function publishAndRestart(channel) {
  let number = 0;
  let going = true;
  const publishing = (async () => {
    for (; going; number += 1) await throng.publish(channel, { number });
  })();
  for (let restarts = 0; restarts < RESTARTS; restarts += 1) {
    await restart();
    await wait(200);
  }
  going = false;
  await publishing;
  return number;
}

const range = (length) => Array.from({ length }, (_, number) => number);

describe('over three restarts', () => {
  it('the SDK in node stays connected and gets every publication once and in order', TEST, async () => {
    const client = new Centrifuge(throng.websocket, { websocket: WebSocket });
    const events = [];
    for (const name of ['connecting', 'connected', 'disconnected', 'error']) {
      client.on(name, (context) => events.push(`${name} ${context.code ?? ''}`.trim()));
    }
    const sub = client.newSubscription('chat:node', { recoverable: true });
    const heard = [];
    sub.on('publication', ({ data }) => heard.push(data.number));
    for (const name of ['subscribing', 'unsubscribed', 'error']) sub.on(name, ({ code }) => events.push(`sub ${name} ${code}`));
    const subscribed = nextEvent(sub, 'subscribed');
    sub.subscribe();
    client.connect();
    await subscribed;
    events.length = 0;
    const published = await publishAndRestart('chat:node');
    const deadline = Date.now() + PATIENCE_MS;
    while (heard.length < published && Date.now() < deadline) await wait(20);
    assert.ok(published > 10, `${published} published`);
    assert.deepEqual(heard, range(published));
    assert.deepEqual(events, []);
    // And it can still speak.
    const { publications } = await sub.history({ limit: 1, reverse: true });
    assert.equal(publications[0].data.number, published - 1);
    client.disconnect();
  });

  it('the SDK in Chromium stays connected, too', TEST, async () => {
    const browser = await launch();
    try {
      const page = await openPage(browser, `${throng.http}/health`);
      await page.addScriptTag({ path: SDK });
      await page.evaluate((url) => new Promise((resolve) => {
        const client = new globalThis.Centrifuge(url);
        const state = { events: [], heard: [] };
        for (const name of ['connecting', 'disconnected', 'error']) client.on(name, () => state.events.push(name));
        const sub = client.newSubscription('chat:browser');
        sub.on('publication', ({ data }) => state.heard.push(data.number));
        for (const name of ['subscribing', 'unsubscribed', 'error']) sub.on(name, () => state.events.push(`sub ${name}`));
        sub.on('subscribed', () => { state.events.length = 0; resolve(); });
        globalThis.state = state;
        sub.subscribe();
        client.connect();
      }), throng.websocket);
      const published = await publishAndRestart('chat:browser');
      await page.waitForFunction((count) => globalThis.state.heard.length >= count, published, { timeout: PATIENCE_MS });
      const state = await page.evaluate(() => globalThis.state);
      assert.ok(published > 10, `${published} published`);
      assert.deepEqual(state.heard, range(published));
      assert.deepEqual(state.events, []);
    } finally {
      await browser.close();
    }
  });
});
