// Shared polls with the official JavaScript SDK and a real application, across restarts; and the code
// of docs/shared-poll.md, as it stands there.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { readFile, rm, writeFile } from 'node:fs/promises';
import http from 'node:http';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { Centrifuge } from 'centrifuge';
import { Centrifuge as ProtobufCentrifuge } from 'centrifuge/build/protobuf';
import WebSocket from 'ws';

import { Throng, configuration, emptyDirectory, freePort, gather, jwt, killAll, nextEvent, run } from './throng.js';

const TEST = { timeout: 120_000 };
const SECRET = 'poll-secret';
const GUIDE = fileURLToPath(new URL('../../docs/shared-poll.md', import.meta.url));

/** The code of the guide in one language that begins with this line. */
async function codeOf(language, first) {
  const blocks = (await readFile(GUIDE, 'utf8')).split('```');
  const block = blocks.find((each) => each.startsWith(`${language}\n`) && each.includes(first));
  assert.ok(block, `the guide has no ${language} with ${first}`);
  return block.slice(language.length + 1);
}

/** An application that has some values and is asked for them. */
class Application {
  values = new Map(); // By key: the data and the version.
  asked = []; // What it was asked.
  epoch = undefined;
  status = 200;
  #waiting = new Set();

  static async start() {
    const application = new Application();
    application.server = http.createServer((request, response) => application.#answer(request, response)).listen(0, '127.0.0.1');
    await once(application.server, 'listening');
    return application;
  }

  get endpoint() { return `http://127.0.0.1:${this.server.address().port}/refresh`; }

  set(key, data, version) { this.values.set(key, { data, version }); }

  async #answer(request, response) {
    let body = '';
    for await (const more of request.setEncoding('utf8')) body += more;
    const asked = JSON.parse(body);
    this.asked.push(asked);
    for (const look of this.#waiting) look();
    const items = asked.items.flatMap(({ key, version }) => {
      const value = this.values.get(key);
      if (value === undefined) return [];
      if (value === null) return [{ key, removed: true }];
      // Who has the newest need not be told it again.
      if (version !== undefined && version === value.version) return [{ key, version }];
      return [{ key, ...value }];
    });
    response.statusCode = this.status;
    response.setHeader('Content-Type', 'application/json');
    response.end(JSON.stringify({ result: { items, epoch: this.epoch } }));
  }

  /** Waits until it is asked something like this, from question number `from` on. */
  until(matches, from = this.asked.length) {
    return new Promise((resolve) => {
      const look = () => {
        const found = this.asked.slice(from).find(matches);
        if (!found) return;
        this.#waiting.delete(look);
        resolve(found);
      };
      this.#waiting.add(look);
      look();
    });
  }

  async stop() {
    this.server.closeAllConnections();
    this.server.close();
    await once(this.server, 'close');
  }
}

let application;
let throng;
let runtime;
let sign;
const clients = [];
const pids = [];

before(async () => {
  application = await Application.start();
  const file = path.join(runtime = await emptyDirectory(), 'sign.mjs');
  await writeFile(file, `${await codeOf('js', 'function sign(')}\nexport { sign };\n`);
  ({ sign } = await import(file));
  const port = await freePort();
  const base = configuration(port);
  const namespace = (name, more) => ({
    name,
    subscription_type: 'shared_poll',
    allow_subscribe_for_client: true,
    shared_poll: { refresh_interval: '200ms', refresh_batch_size: 2, ...more },
  });
  throng = await Throng.start({
    port,
    config: {
      ...base,
      prometheus: { enabled: true },
      shared_poll: { hmac_secret_key: SECRET },
      channel: {
        ...base.channel,
        proxy: { shared_poll_refresh: { endpoint: application.endpoint } },
        namespaces: [
          namespace('votes', {}),
          namespace('prices', { mode: 'versioned', publish_enabled: true, refresh_interval: '300ms' }),
          namespace('slow', { refresh_interval: '1h' }),
        ],
      },
    },
    env: { XDG_RUNTIME_DIR: runtime },
  });
  pids.push(throng.process.pid);
});
after(async () => {
  for (const client of clients) client.disconnect();
  killAll(pids);
  await throng?.stop();
  await application?.stop();
  await rm(runtime, { recursive: true, force: true });
});

function connect(user, protocol = 'json', more = {}) {
  const Client = protocol === 'json' ? Centrifuge : ProtobufCentrifuge;
  const client = new Client(throng.websocket, { websocket: WebSocket, token: jwt({ sub: user }), ...more });
  clients.push(client);
  client.connect();
  return client;
}

/** A subscription that tracks these keys, and what it hears of them. */
function poll(client, user, channel, keys, ttl = 3600) {
  const sub = client.newSharedPollSubscription(channel, {
    getSignature: async ({ keys }) => ({ keys, signature: sign(SECRET, user, channel, keys, ttl) }),
  });
  const updates = gather(sub, 'update', ({ key, data, version, removed }) => ({ key, data: said(data), version, removed }));
  sub.subscribe();
  if (keys.length > 0) sub.track(keys);
  return { sub, updates };
}

/** Data as JSON, also where it came as bytes. */
function said(data) {
  if (!(data instanceof Uint8Array)) return data;
  return data.length > 0 ? JSON.parse(new TextDecoder().decode(data)) : undefined;
}

const values = (updates) => updates.map(({ key, data }) => [key, data]);

async function restart() {
  const done = await run(['restart', '--json', '--pid', String(pids.at(-1))], { cwd: throng.cwd, env: { XDG_RUNTIME_DIR: runtime } });
  assert.equal(done.code, 0, done.stderr);
  pids.push(JSON.parse(done.stdout).outcome.to.pid);
}

for (const protocol of ['json', 'protobuf']) {
  describe(`a shared poll in ${protocol}`, TEST, () => {
    it('asks once for all, tells who has something older, and goes on over a restart', async () => {
      const [one, two] = [`${protocol}-1`, `${protocol}-2`];
      const channel = `votes:${protocol}`;
      application.set(one, { votes: 1 });
      application.set(two, { votes: 10 });
      const client = connect('ann', protocol);
      const first = poll(client, 'ann', channel, [one, two]);
      await first.updates.until(2);
      assert.deepEqual(new Map(values(first.updates.got)), new Map([[one, { votes: 1 }], [two, { votes: 10 }]]));

      // The second client has it from memory: its keys are asked for in rounds only.
      const second = poll(connect('bob', protocol), 'bob', channel, [one]);
      await second.updates.until(1);
      application.set(one, { votes: 2 });
      await Promise.all([first.updates.until(3), second.updates.until(2)]);
      assert.deepEqual(first.updates.got[2].data, { votes: 2 });
      assert.equal(first.updates.got[2].version, second.updates.got[1].version);

      await restart();
      application.set(two, { votes: 11 });
      await first.updates.until(4);
      assert.deepEqual(values(first.updates.got.slice(3)), [[two, { votes: 11 }]]);
      // A question after the restart: nothing that is the same is told again.
      await application.until(({ items }) => items.some(({ key }) => key === one));
      await application.until(({ items }) => items.some(({ key }) => key === one));
      assert.equal(first.updates.got.length, 4);
      assert.equal(second.updates.got.length, 2);
      assert.equal(first.sub.state, 'subscribed');
      assert.equal(pids.length > 1, true);

      // What is gone is told, and asked for no more.
      application.values.set(one, null);
      await Promise.all([first.updates.until(5), second.updates.until(3)]);
      assert.equal(first.updates.got[4].removed, true);
      assert.equal(second.sub.trackedKeys().size, 0);
      second.sub.unsubscribe();
      first.sub.untrack([two]);
      const from = application.asked.length;
      application.set(`${protocol}-3`, { votes: 5 });
      first.sub.track([`${protocol}-3`]);
      await first.updates.until(6);
      const later = application.asked.slice(from).filter((asked) => asked.channel === channel);
      assert.ok(later.every(({ items }) => items.every(({ key, version }) => key !== one && version === undefined)));
    });
  });
}

describe('versions', TEST, () => {
  it('come from the application, and begin anew with its epoch', async () => {
    application.epoch = 'first';
    application.set('gold', 100, 7);
    const client = connect('ann');
    const { sub, updates } = poll(client, 'ann', 'prices:metal', ['gold']);
    await updates.until(1);
    assert.deepEqual([updates.got[0].data, updates.got[0].version], [100, 7]);
    const again = await application.until(({ items }) => items.some(({ key, version }) => key === 'gold' && version === 7));
    assert.deepEqual(again.items, [{ key: 'gold', version: 7 }]);

    // Older ones are nobody's news; what is published is told at once.
    await throng.api('shared_poll_publish', { channel: 'prices:metal', key: 'gold', data: 90, version: 6, epoch: 'first' });
    await throng.api('shared_poll_publish', { channel: 'prices:metal', key: 'gold', data: 101, version: 8, epoch: 'first' });
    await updates.until(2);
    assert.deepEqual([updates.got[1].data, updates.got[1].version], [101, 8]);

    // A restart in between keeps versions and epoch.
    const lost = nextEvent(sub, 'subscribing');
    await restart();
    application.set('gold', 102, 9);
    await updates.until(3);
    assert.equal(updates.got[2].version, 9);

    // The application has lost its memory.
    application.epoch = 'second';
    application.set('gold', 50, 1);
    assert.equal((await lost).code, 2500);
    await updates.until(4);
    assert.deepEqual([updates.got[3].data, updates.got[3].version], [50, 1]);
    application.epoch = undefined;
    sub.unsubscribe();
  });

  it('are asked for in the API, and only where that is on', async () => {
    const publish = (more) => throng.api('shared_poll_publish', { channel: 'prices:x', key: 'k', data: 1, version: 1, ...more });
    assert.deepEqual(await publish({}), {});
    await assert.rejects(publish({ version: 0 }), { code: 107 });
    await assert.rejects(publish({ key: '' }), { code: 107 });
    await assert.rejects(publish({ data: undefined }), { code: 107 });
    await assert.rejects(publish({ channel: 'votes:x' }), { code: 108 });
    await assert.rejects(publish({ channel: 'nowhere:x' }), { code: 102 });
    await assert.rejects(throng.publish('votes:x', 1), { code: 108 });
    await assert.rejects(throng.api('subscribe', { user: 'ann', channel: 'votes:x' }), { code: 107 });
  });
});

describe('a client', TEST, () => {
  it('that is cut off and comes back tracks what it tracked', async () => {
    application.set('reef', 1);
    const client = connect('eve', 'json', { minReconnectDelay: 1, maxReconnectDelay: 10 });
    const { updates, sub } = poll(client, 'eve', 'votes:back', ['reef']);
    await updates.until(1);
    const back = nextEvent(sub, 'subscribed');
    await throng.api('disconnect', { user: 'eve', disconnect: { code: 3000, reason: 'test' } });
    await back;
    application.set('reef', 2);
    await updates.until(2);
    assert.deepEqual(values(updates.got), [['reef', 1], ['reef', 2]]);
    sub.unsubscribe();
  });

  it('renews signatures that run out, over a restart', async () => {
    application.set('tide', 1);
    const client = connect('ann');
    const { updates, sub } = poll(client, 'ann', 'votes:renewed', ['tide'], 1);
    await updates.until(1);
    const from = application.asked.length;
    await restart();
    await application.until(({ items }) => items.some(({ key }) => key === 'tide'), from);
    application.set('tide', 2);
    await updates.until(2);
    sub.unsubscribe();
  });

  it('with a signature for other keys is told so', async () => {
    const client = connect('mallory');
    const { sub } = poll(client, 'mallory', 'votes:forged', []);
    await nextEvent(sub, 'subscribed');
    const from = application.asked.length;
    const failed = nextEvent(sub, 'error');
    sub.track([{ key: 'secret', version: 0 }], sign(SECRET, 'mallory', 'votes:forged', ['public'], 60));
    assert.equal((await failed).error.code, 103);
    assert.ok(!application.asked.slice(from).some(({ channel }) => channel === 'votes:forged'));
  });
});

describe('an application that fails', TEST, () => {
  it('is named in the log, and asked again', async () => {
    application.set('storm', 1);
    application.status = 503;
    const line = throng.line('shared_poll_refresh backend');
    const asked = application.until(({ channel }) => channel === 'slow:weather');
    const { updates, sub } = poll(connect('ann'), 'ann', 'slow:weather', ['storm']);
    assert.match(await line, /answered 503; channel\.proxy\.shared_poll_refresh\.endpoint/);
    await asked;
    assert.equal(updates.got.length, 0);
    application.status = 200;
    await updates.until(1);
    assert.deepEqual(values(updates.got), [['storm', 1]]);
    const metrics = await (await fetch(`${throng.http}/metrics`)).text();
    assert.match(metrics, /throng_shared_poll_handler_error_count\{trigger="urgent"\} [1-9]/);
    assert.match(metrics, /throng_shared_poll_num_channels [1-9]/);
    assert.match(metrics, /throng_shared_poll_items_count\{result="changed"\} [1-9]/);
    sub.unsubscribe();
  });
});

describe('the guide', TEST, () => {
  it('signs in Python and on the command line as it does in JavaScript', async () => {
    const file = path.join(runtime, 'sign.py');
    const code = await codeOf('python', 'def sign(');
    await writeFile(file, `${code}\nprint(sign("poll-secret", "42", "votes:feed", ["a", "ü"], 60))\n`);
    const python = (await promisify(execFile)('python3', [file])).stdout.trim();
    const config = path.join(throng.cwd, 'config.json');
    const made = await run(['token', '-c', config, '--user', '42', '--channel', 'votes:feed', '--track', 'a', 'ü', '--ttl', '1m', '--json']);
    assert.equal(made.code, 0, made.stderr);
    const { signature, keys } = JSON.parse(made.stdout);
    assert.deepEqual(keys, ['a', 'ü']);
    for (const each of [python, signature]) {
      const [iat, exp] = each.split(':').map(Number);
      assert.equal(exp - iat, 60);
      const now = Date.now;
      try {
        Date.now = () => iat * 1000;
        assert.equal(sign(SECRET, '42', 'votes:feed', ['a', 'ü'], 60), each);
      } finally {
        Date.now = now;
      }
    }
  });

  it('has an application and a page that work together', async () => {
    const directory = await emptyDirectory();
    const [port, application_port] = [await freePort(), await freePort()];
    let toml = await codeOf('toml', 'shared_poll');
    toml = toml.replaceAll('127.0.0.1:3000', `127.0.0.1:${application_port}`);
    const file = path.join(directory, 'throng.toml');
    await writeFile(file, `http_server.address = "127.0.0.1"\nhttp_server.port = ${port}\nhealth.enabled = true\n${toml}`);
    const code = (await codeOf('js', 'createServer')).replace('listen(3000', `listen(${application_port}`);
    await writeFile(path.join(directory, 'sign.mjs'), `${await codeOf('js', 'function sign(')}\nexport { sign };\n`);
    await writeFile(path.join(directory, 'app.mjs'), code);
    const { server } = await import(path.join(directory, 'app.mjs'));
    const guided = await Throng.start({ port, config: file, cwd: directory });
    const url = `http://127.0.0.1:${application_port}`;
    const page = (await codeOf('js', 'newSharedPollSubscription'))
      .replace("import { Centrifuge } from 'centrifuge';", '')
      .replace('wss://example.com/connection/websocket', guided.websocket)
      .replaceAll("fetch('/", `fetch('${url}/`);
    const token = jwt({ sub: '42' }, 'change-me-1');
    const shown = [];
    const two = new Promise((resolve) => {
      const show = (...said) => { shown.push(said); if (shown.length === 2) resolve(); };
      const made = new Function('Centrifuge', 'token', 'show', `${page}\nreturn client;`);
      class Client extends Centrifuge {
        constructor(endpoint, options) { super(endpoint, { ...options, websocket: WebSocket }); }
      }
      clients.push(made(Client, token, show));
    });
    try {
      await two;
      assert.ok(shown.every(([, data]) => data), guided.lines.join('\n'));
      assert.deepEqual(new Map(shown), new Map([['post-1', { votes: 42 }], ['post-2', { votes: 7 }]]));
    } finally {
      clients.at(-1).disconnect();
      server.closeAllConnections();
      server.close();
      await guided.stop();
      await rm(directory, { recursive: true, force: true });
    }
  });
});
