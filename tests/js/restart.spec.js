// Restarts and the official JavaScript SDK, in node and in a browser: it notices nothing.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { after, before, describe, it } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';

import { Centrifuge } from 'centrifuge';
import WebSocket from 'ws';

import { launch, openPage } from './browser.js';
import { Proxy } from './proxy.js';
import { API_KEY, Throng, configuration, emptyDirectory, freePort, killAll, nextEvent, run } from './throng.js';
import { install, installOther, ownVersion } from './versions.js';

const TEST = { timeout: 180_000 };
const PATIENCE_MS = 60_000;
const RESTARTS = 10;
/** The one that is an upgrade, and the one that goes back. */
const [UPGRADE, BACK] = [4, 8];
const SDK = fileURLToPath(new URL('node_modules/centrifuge/dist/centrifuge.js', import.meta.url));

let throng;
let runtime;
let pid;
let program;
const pids = [];

before(async () => {
  runtime = await emptyDirectory();
  const port = await freePort();
  const base = configuration(port);
  program = path.join(runtime, 'throng-here');
  await install(program);
  await install(`${program}-kept`);
  throng = await Throng.start({
    port,
    config: { ...base, client: { ...base.client, allowed_origins: ['*'] } },
    env: { XDG_RUNTIME_DIR: runtime },
    binary: program,
  });
  pid = throng.process.pid;
  pids.push(pid);
});
after(async () => {
  // All at once: one that handed over serves again where its successor is killed at once.
  killAll(pids);
  await throng?.stop();
  await rm(runtime, { recursive: true, force: true });
});

async function restart(...args) {
  const ran = await run(['restart', '--json', '--pid', String(pid), ...args], { env: { XDG_RUNTIME_DIR: runtime } });
  assert.equal(ran.code, 0, `${ran.stdout}${ran.stderr}`);
  const { outcome } = JSON.parse(ran.stdout);
  assert.notEqual(outcome.to.pid, pid);
  pid = outcome.to.pid;
  pids.push(pid);
  return outcome;
}

/**
 * Publishes on, and restarts in the midst of it: from the same file, to another version that is put
 * in its place, and to a file of the own version that was kept. How many were published.
 */
async function publishAndRestart(channel) {
  const own = await ownVersion();
  await install(program);
  let number = 0;
  let going = true;
  const publishing = (async () => {
    for (; going; number += 1) await throng.publish(channel, { number });
  })();
  for (let restarts = 0; restarts < RESTARTS; restarts += 1) {
    let args = [];
    if (restarts === 0) args = ['--binary', program];
    const other = restarts === UPGRADE && await installOther(program);
    if (restarts === BACK) args = ['--binary', `${program}-kept`];
    const { from, to } = await restart(...args);
    if (restarts === UPGRADE) assert.deepEqual([from.version, to.version], [own, other]);
    else if (restarts === BACK) assert.equal(to.version, own);
    else assert.equal(from.version, to.version);
    const before = number;
    while (number < before + 5) await wait(10);
  }
  going = false;
  await publishing;
  return number;
}

const range = (length) => Array.from({ length }, (_, number) => number);

describe('over ten restarts, an upgrade and the way back among them', () => {
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

describe('over ten restarts, behind nginx', () => {
  let proxy;

  before(async () => {
    const server = `server 127.0.0.1:${throng.port};`;
    // With connections that are kept, which end in the process that they were opened to.
    proxy = await Proxy.nginx(throng.port, [[server, `${server}\nkeepalive 8;`]]);
  });
  after(() => proxy?.stop());

  /** A request of the API: its status. */
  async function publish() {
    const response = await fetch(`${proxy.http}/api/publish`, {
      method: 'POST',
      headers: { 'X-API-Key': API_KEY },
      body: JSON.stringify({ channel: 'chat:nginx', data: {} }),
    });
    const text = await response.text();
    return response.status === 200 && JSON.parse(text).result ? 200 : `${response.status} ${text}`;
  }

  /** A client that comes and goes: the status of its handshake. */
  async function visit() {
    const socket = new WebSocket(proxy.websocket);
    try {
      await once(socket, 'open');
      socket.send('{"id":1,"connect":{}}');
      const [reply] = await once(socket, 'message');
      return JSON.parse(reply.toString()).connect?.client ? 101 : reply.toString();
    } catch (error) {
      return error.message;
    } finally {
      socket.terminate();
    }
  }

  it('no new request and no new client sees an error, and who is connected stays', TEST, async () => {
    const events = [];
    const clients = [];
    for (let n = 0; n < 5; n += 1) {
      const client = new Centrifuge(proxy.websocket, { websocket: WebSocket });
      const connected = nextEvent(client, 'connected');
      client.connect();
      await connected;
      for (const name of ['connecting', 'disconnected', 'error']) client.on(name, () => events.push(name));
      clients.push(client);
    }
    let going = true;
    const seen = { publish: new Map(), visit: new Map() };
    const asking = [publish, publish, publish, visit, visit].map(async (ask) => {
      const counts = seen[ask.name];
      while (going) {
        const status = await ask();
        counts.set(status, (counts.get(status) ?? 0) + 1);
      }
    });
    const asked = () => [...seen.publish.values(), ...seen.visit.values()].reduce((sum, count) => sum + count, 0);
    for (let restarts = 0; restarts < RESTARTS; restarts += 1) {
      await restart();
      const before = asked();
      while (asked() < before + 20) await wait(10);
    }
    // The processes before the last one end one after the other, with what nginx has kept to them.
    while (existsSync(`/proc/${pids.at(-2)}`)) await wait(50);
    going = false;
    await Promise.all(asking);
    assert.deepEqual([...seen.publish.keys()], [200]);
    assert.deepEqual([...seen.visit.keys()], [101]);
    assert.deepEqual(events, []);
    for (const client of clients) client.disconnect();
  });
});
