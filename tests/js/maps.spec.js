// Maps and the official JavaScript SDK, in both encodings: pages, changes, coming back, restarts, the
// server API, and who is there.

import assert from 'node:assert/strict';
import { readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import WebSocket from 'ws';

import { Centrifuge as Sdk } from 'centrifuge';

import { ENCODINGS } from './encodings.js';
import { Relay, Throng, configuration, emptyDirectory, freePort, jwt, killAll, nextEvent, run } from './throng.js';

const TEST = { timeout: 120_000 };
const MAY = {
  allow_subscribe_for_client: true,
  allow_publish_for_client: true,
};
const NAMESPACES = [
  {
    name: 'board',
    allow_subscribe_for_client: true,
    subscription_type: 'map',
    map: {
      mode: 'recoverable',
      key_ttl: '1h',
      min_page_size: 1,
      allow_publish_for_client: true,
      allow_remove_for_client: true,
    },
  },
  {
    name: 'brief',
    allow_subscribe_for_client: true,
    subscription_type: 'map',
    map: { mode: 'recoverable', key_ttl: '2s', stream_size: 5 },
  },
  {
    name: 'cursors',
    allow_subscribe_for_client: true,
    subscription_type: 'map',
    map: {
      mode: 'ephemeral',
      key_ttl: '1h',
      min_page_size: 1,
      client_key: 'client_id',
      remove_client_on_unsubscribe: true,
      allow_publish_for_client: true,
    },
  },
  { name: 'room', ...MAY, map_clients_presence_channel_prefix: 'online:', map_users_presence_channel_prefix: 'users:' },
  {
    name: 'online',
    allow_subscribe_for_client: true,
    subscription_type: 'map_clients',
    map: { mode: 'ephemeral', key_ttl: '1m' },
  },
  {
    name: 'users',
    allow_subscribe_for_client: true,
    subscription_type: 'map_users',
    map: { mode: 'recoverable', key_ttl: '1m' },
  },
];

let throng;
let runtime;
let pid;
const pids = [];

before(async () => {
  runtime = await emptyDirectory();
  const port = await freePort();
  const base = configuration(port);
  const channel = { ...base.channel, namespaces: [...base.channel.namespaces, ...NAMESPACES] };
  throng = await Throng.start({ port, config: { ...base, channel }, env: { XDG_RUNTIME_DIR: runtime } });
  pid = throng.process.pid;
  pids.push(pid);
});
after(async () => {
  killAll(pids);
  await throng?.stop();
  await rm(runtime, { recursive: true, force: true });
});

async function restart() {
  const ran = await run(['restart', '--json', '--pid', String(pid)], { env: { XDG_RUNTIME_DIR: runtime } });
  assert.equal(ran.code, 0, `${ran.stdout}${ran.stderr}`);
  const { outcome } = JSON.parse(ran.stdout);
  pid = outcome.to.pid;
  pids.push(pid);
}

/** What a subscriber has, kept as an application would: by its events alone. */
class Picture {
  values = new Map();
  syncs = 0;
  #waiting = new Set();

  constructor(sub) {
    sub.on('sync', ({ entries }) => {
      this.values = new Map(entries.map(({ key, data }) => [key, data]));
      this.syncs += 1;
      this.#look();
    });
    sub.on('update', ({ key, data, removed }) => {
      if (removed) this.values.delete(key); else this.values.set(key, data);
      this.#look();
    });
  }

  #look() {
    for (const each of this.#waiting) each();
  }

  /** When the values are these. */
  is(expected) {
    const wanted = JSON.stringify(Object.entries(expected).sort());
    return new Promise((resolve) => {
      const look = () => {
        if (JSON.stringify([...this.values].sort()) !== wanted) return;
        this.#waiting.delete(look);
        resolve();
      };
      this.#waiting.add(look);
      look();
    });
  }
}

for (const { encoding, Centrifuge } of ENCODINGS) {
  describe(`maps in ${encoding}`, () => {
    const clients = [];
    after(() => clients.forEach((client) => client.disconnect()));

    const join = async (user, url = throng.websocket) => {
      const token = jwt({ sub: user });
      const client = new Centrifuge(url, { token, websocket: WebSocket, minReconnectDelay: 10, maxReconnectDelay: 50 });
      clients.push(client);
      const connected = nextEvent(client, 'connected');
      client.connect();
      await connected;
      return client;
    };
    const read = async (channel) => {
      const { entries } = await throng.api('map_read_state', { channel, limit: -1 });
      return Object.fromEntries(entries.map(({ key, data }) => [key, data]));
    };
    const put = (channel, key, data, more) => throng.api('map_publish', { channel, key, data, ...more });
    const subscribed = async (sub) => {
      const there = nextEvent(sub, 'subscribed');
      sub.subscribe();
      return there;
    };

    it('a subscriber has all keys, and every change', TEST, async () => {
      const channel = `board:all-${encoding}`;
      for (let at = 0; at < 25; at += 1) await put(channel, `k${at}`, { at });
      const client = await join('ann');
      const sub = client.newMapSubscription(channel, { pageSize: 4 });
      const picture = new Picture(sub);
      const context = await subscribed(sub);
      assert.equal(context.recoverable, true);
      await picture.is(await read(channel));
      assert.equal(picture.values.size, 25);
      await put(channel, 'k3', 'changed');
      await throng.api('map_remove', { channel, key: 'k4' });
      await sub.publish('mine', { from: 'ann' });
      await sub.remove('k5');
      await picture.is(await read(channel));
      assert.equal(picture.values.get('k3'), 'changed');
      assert.deepEqual(picture.values.get('mine'), { from: 'ann' });
      assert.ok(!picture.values.has('k4') && !picture.values.has('k5'));
    });

    it('what changes while pages are read is not lost', TEST, async () => {
      const channel = `board:busy-${encoding}`;
      for (let at = 0; at < 60; at += 1) await put(channel, `k${at}`, at);
      const client = await join('ann');
      const sub = client.newMapSubscription(channel, { pageSize: 3 });
      const picture = new Picture(sub);
      let going = true;
      const changing = (async () => {
        for (let at = 0; going; at += 1) {
          await put(channel, `k${at % 60}`, `new ${at}`);
          if (at % 5 === 0) await throng.api('map_remove', { channel, key: `k${(at * 7) % 60}` });
        }
      })();
      await subscribed(sub);
      going = false;
      await changing;
      await picture.is(await read(channel));
    });

    it('a client whose network broke gets what it missed, and starts over where that is gone', TEST, async () => {
      const channel = `brief:gone-${encoding}`;
      const relay = await Relay.to(throng.port);
      try {
        await put(channel, 'a', 1);
        const client = await join('ann', relay.websocket);
        const sub = client.newMapSubscription(channel);
        const picture = new Picture(sub);
        await subscribed(sub);
        const away = async (changes) => {
          const off = nextEvent(client, 'connecting');
          relay.cut();
          await off;
          await changes();
          const back = nextEvent(sub, 'subscribed');
          relay.mend();
          return back;
        };
        const { recovered } = await away(() => put(channel, 'a', 2));
        assert.equal(recovered, true);
        await picture.is({ a: 2 });
        assert.equal(picture.syncs, 1, 'it did not start over');
        const over = await away(async () => {
          for (let at = 0; at < 9; at += 1) await put(channel, 'b', at);
          await put(channel, 'a', 3);
        });
        assert.ok(!over.recovered);
        await picture.is({ a: 3, b: 8 });
        // Nobody publishes them any more.
        await picture.is({});
        assert.deepEqual(await read(channel), {});
      } finally {
        await relay.stop();
      }
    });

    it('restarts are not noticed', TEST, async () => {
      const channel = `board:restarts-${encoding}`;
      for (let at = 0; at < 10; at += 1) await put(channel, `k${at}`, at);
      const client = await join('ann');
      const sub = client.newMapSubscription(channel);
      const picture = new Picture(sub);
      await subscribed(sub);
      const states = [];
      client.on('state', ({ newState }) => states.push(newState));
      sub.on('state', ({ newState }) => states.push(newState));
      for (let round = 0; round < 2; round += 1) {
        await restart();
        await put(channel, 'k3', { round });
        await sub.publish('mine', round);
        await picture.is(await read(channel));
      }
      assert.deepEqual([states, picture.syncs], [[], 1]);
      const again = await put(channel, 'k3', 0, { key_mode: 'if_new' });
      assert.deepEqual([again.suppressed, again.suppress_reason], [true, 'key_exists']);
    });

    it('a map that is cleared is read anew', TEST, async () => {
      const channel = `board:cleared-${encoding}`;
      await put(channel, 'a', 1);
      const client = await join('ann');
      const sub = client.newMapSubscription(channel);
      const picture = new Picture(sub);
      await subscribed(sub);
      await picture.is({ a: 1 });
      const back = nextEvent(sub, 'subscribed');
      await throng.api('map_clear', { channel });
      await back;
      await picture.is({});
      await put(channel, 'b', 2);
      await picture.is({ b: 2 });
    });

    it('what a client wrote under its own id goes with it', TEST, async () => {
      const channel = `cursors:${encoding}`;
      const [ann, bob] = [await join('ann'), await join('bob')];
      const subs = [ann, bob].map((client) => client.newMapSubscription(channel));
      const pictures = subs.map((sub) => new Picture(sub));
      for (const sub of subs) await subscribed(sub);
      await subs[0].publish('whatever', { x: 1 });
      await subs[1].publish('whatever', { x: 2 });
      const { entries } = await throng.api('map_read_state', { channel, limit: -1 });
      assert.equal(entries.length, 2);
      const mine = entries.find(({ data }) => data.x === 1).key;
      const theirs = entries.find(({ data }) => data.x === 2).key;
      await pictures[1].is({ [mine]: { x: 1 }, [theirs]: { x: 2 } });
      ann.disconnect();
      await pictures[1].is({ [theirs]: { x: 2 } });
    });

    it('who is subscribed shows in maps of clients and of users', TEST, async () => {
      const watcher = await join('watcher');
      const online = watcher.newMapClientsSubscription(`online:room:${encoding}`);
      const users = watcher.newMapUsersSubscription(`users:room:${encoding}`);
      await subscribed(online);
      await subscribed(users);
      const ann = await join('ann');
      const came = nextEvent(online, 'update');
      const known = nextEvent(users, 'update');
      const sub = ann.newSubscription(`room:${encoding}`);
      await subscribed(sub);
      const { info, key, removed } = await came;
      assert.deepEqual([info.user, info.client, removed ?? false], ['ann', key, false]);
      assert.equal((await known).key, 'ann');
      await restart();
      const gone = nextEvent(online, 'update');
      ann.disconnect();
      const left = await gone;
      assert.deepEqual([left.key, left.removed], [key, true]);
    });
  });
}

describe('the server API of maps', () => {
  const channel = 'board:api';

  it('writes, reads and counts', TEST, async () => {
    const first = await throng.api('map_publish', { channel, key: 'b', data: { n: 1 }, tags: { t: 'x' }, score: 3 });
    assert.equal(first.offset, 1);
    assert.match(first.epoch, /^[A-Za-z]{8}$/);
    await throng.api('map_publish', { channel, key: 'a', b64data: Buffer.from([1, 2]).toString('base64') });
    assert.deepEqual(await throng.api('map_stats', { channel }), { num_keys: 2 });
    const page = await throng.api('map_read_state', { channel, limit: 1 });
    assert.deepEqual([page.entries[0].key, page.entries[0].data, page.cursor], ['a', 'AQI=', 'a']);
    const next = await throng.api('map_read_state', {
      channel, limit: 1, cursor: 'a', revision_offset: page.offset, revision_epoch: page.epoch,
    });
    const { time, ...entry } = next.entries[0];
    assert.ok(time > 1_700_000_000_000);
    assert.deepEqual(entry, { key: 'b', data: { n: 1 }, tags: { t: 'x' }, offset: 1, score: 3 });
    assert.equal(next.cursor, undefined);
    const one = await throng.api('map_read_state', { channel, key: 'b' });
    assert.equal(one.entries.length, 1);
    await throng.api('map_remove', { channel, key: 'b' });
    const changes = await throng.api('map_read_stream', { channel, limit: -1, since_offset: 1, since_epoch: first.epoch });
    assert.deepEqual(changes.entries.map(({ key, offset, removed }) => [key, offset, removed ?? false]),
      [['a', 2, false], ['b', 3, true]]);
    const last = await throng.api('map_read_stream', { channel, limit: 1, reverse: true });
    assert.deepEqual(last.entries.map(({ offset }) => offset), [3]);
    const position = await throng.api('map_read_stream', { channel });
    assert.deepEqual([position.entries, position.offset], [[], 3]);
    const twice = { channel, key: 'c', data: 1, idempotency_key: 'once' };
    await throng.api('map_publish', twice);
    assert.equal((await throng.api('map_publish', twice)).suppress_reason, 'idempotency');
    assert.deepEqual(await throng.api('map_clear', { channel }), {});
    assert.deepEqual(await throng.api('map_stats', { channel }), { num_keys: 0 });
  });

  it('says what is wrong, by code', TEST, async () => {
    const code = (method, params) => throng.api(method, params).then(() => 0, (error) => error.code);
    for (const [expected, method, params] of [
      [107, 'map_publish', { channel, data: 1 }],
      [107, 'map_publish', { channel, key: 'k'.repeat(2000), data: 1 }],
      [107, 'map_publish', { channel, key: 'k', data: 1, key_mode: 'sometimes' }],
      [107, 'map_publish', { channel: 'chat:x', key: 'k', data: 1 }],
      [107, 'map_stats', { channel: 'chat:x' }],
      [102, 'map_stats', { channel: 'nowhere:x' }],
      [107, 'publish', { channel, data: 1 }],
      [107, 'subscribe', { user: 'ann', channel }],
      [112, 'map_read_state', { channel, limit: 1, revision_epoch: 'zzzzzzzz' }],
      [112, 'map_read_stream', { channel, limit: 1, since_epoch: 'zzzzzzzz' }],
      [107, 'map_read_stream', { channel, limit: 1, reverse: true, since_epoch: 'zzzzzzzz' }],
    ]) {
      assert.equal(await code(method, params), expected, `${method} ${JSON.stringify(params).slice(0, 80)}`);
    }
    const { replies } = await throng.api('batch', {
      commands: [{ map_publish: { channel, key: 'k', data: 1 } }, { map_stats: { channel } }, { map_remove: { channel } }],
    });
    assert.equal(replies[0].map_publish.offset, 1);
    assert.deepEqual(replies[1], { map_stats: { num_keys: 1 } });
    assert.equal(replies[2].error.code, 107);
  });
});

describe('the guide', () => {
  it('its example works as it stands there', TEST, async () => {
    const page = await readFile(new URL('../../docs/maps.md', import.meta.url), 'utf8');
    const blocks = (kind) => [...page.matchAll(new RegExp(`\`\`\`${kind}\\n(.*?)\`\`\``, 'gs'))].map(([, text]) => text);
    const port = await freePort();
    const cwd = await emptyDirectory();
    const file = path.join(cwd, 'throng.toml');
    await writeFile(file, blocks('toml')[0]);
    const args = ['serve', '-c', file, '--http_server.port', String(port), '--http_server.address', '127.0.0.1'];
    const server = await Throng.start({ port, args, cwd });
    let client;
    try {
      // The page's own code, with this server's address, and waiting until it is subscribed.
      const [open, change] = blocks('js');
      const code = `${open.replace(/^import .*\n/, '')}\nreturn { client, board, notes };`;
      class Here extends Sdk {
        constructor(url, options) {
          assert.equal(new URL(url).pathname, new URL(server.websocket).pathname);
          super(server.websocket, { ...options, websocket: WebSocket });
        }
      }
      const getToken = async () => jwt({ sub: 'ann' }, 'keep-this-secret');
      const made = new Function('Centrifuge', 'getToken', code)(Here, getToken);
      client = made.client;
      const { board, notes } = made;
      await nextEvent(board, 'sync');
      const steps = change.trim().split('\n');
      const written = nextEvent(board, 'update');
      await new Function('board', `return (async () => { ${steps[0]} })()`)(board);
      await written;
      assert.deepEqual([...notes], [['milk', { text: 'buy milk' }]]);
      const gone = nextEvent(board, 'update');
      await new Function('board', `return (async () => { ${steps[1]} })()`)(board);
      await gone;
      assert.equal(notes.size, 0);
      const calls = [...blocks('sh')[0].matchAll(/X-API-Key: (\S+)'.*?\/api\/(\w+).*?-d '(.*?)'/gs)];
      const [publish, read] = calls.map(([, key, method, body]) => () => server.post(`/api/${method}`, JSON.parse(body), { 'X-API-Key': key }));
      const eggs = nextEvent(board, 'update');
      assert.equal((await publish()).status, 200);
      await eggs;
      assert.deepEqual(notes.get('eggs'), { text: 'a dozen' });
      const { body } = await read();
      assert.deepEqual(body.result.entries.map(({ key }) => key), ['eggs']);
    } finally {
      client?.disconnect();
      await server.stop();
      await rm(cwd, { recursive: true, force: true });
    }
  });

  it('its namespaces of who is online are good', TEST, async () => {
    const page = await readFile(new URL('../../docs/maps.md', import.meta.url), 'utf8');
    const [, online] = [...page.matchAll(/```toml\n(.*?)```/gs)].map(([, text]) => text);
    const cwd = await emptyDirectory();
    try {
      const file = path.join(cwd, 'throng.toml');
      await writeFile(file, online);
      const checked = await run(['config', 'check', '-c', file]);
      assert.equal(checked.code, 0, `${checked.stdout}${checked.stderr}`);
    } finally {
      await rm(cwd, { recursive: true, force: true });
    }
  });
});
