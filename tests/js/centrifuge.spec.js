// The official JavaScript SDK, unchanged, against the real server, over each transport in each encoding; and, where
// it makes sense, clients that only listen.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';

import { Relay, Throng, configuration, emptyDirectory, freePort, gather, inSeconds, jwt, nextEvent, run } from './throng.js';
import { LISTENERS, TRANSPORTS, WAYS } from './ways.js';

const TEST = { timeout: 20_000 };

let throng;
/** How the clients of these tests reach the server. */
let way;
const clients = [];

function newClient(options = {}, url = throng.websocket) {
  const client = way.client(url, options);
  // Errors are part of several tests; without a listener the SDK would throw them.
  client.on('error', () => {});
  clients.push(client);
  return client;
}

async function connected(options, url) {
  const client = newClient(options, url);
  const done = nextEvent(client, 'connected');
  client.connect();
  return Object.assign(client, { context: await done });
}

async function subscribed(client, channel, options) {
  const sub = client.newSubscription(channel, options);
  sub.on('error', () => {});
  const done = nextEvent(sub, 'subscribed');
  sub.subscribe();
  return Object.assign(sub, { context: await done });
}

const asUser = (user) => ({ token: jwt({ sub: user, exp: inSeconds(600) }) });

function range(from, to) {
  return Array.from({ length: to - from + 1 }, (_, i) => from + i);
}

async function serve(here) {
  way = here;
  const port = await freePort();
  const base = configuration(port);
  throng = await Throng.start({
    port,
    config: {
      ...base,
      ...TRANSPORTS,
      rpc: { ping: { enabled: true } },
      client: { ...base.client, subscribe_to_user_personal_channel: { enabled: true } },
    },
  });
}

async function close() {
  for (const client of clients.splice(0)) client.disconnect();
  await throng?.stop();
}

for (const here of WAYS) {
  describe(here.name, () => {
    before(() => serve(here));
    after(close);

    describe('connecting and publishing', () => {
      it('connects and is given an id', TEST, async () => {
        const client = await connected();
        assert.match(client.context.client, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-/);
        assert.equal(client.context.transport, way.transport);
      });

      it('receives what another client publishes, with the publisher’s name', TEST, async () => {
        const [alice, bob] = [await connected(asUser('alice')), await connected(asUser('bob'))];
        const sub = await subscribed(bob, 'hall');
        const heard = nextEvent(sub, 'publication');
        await alice.publish('hall', { text: 'hi' });
        const publication = await heard;
        assert.deepEqual(publication.data, { text: 'hi' });
        assert.equal(publication.info.user, 'alice');
        assert.equal(publication.info.client, alice.context.client);
      });

      it('receives what the server API publishes, without a publisher', TEST, async () => {
        const sub = await subscribed(await connected(), 'lobby');
        const heard = nextEvent(sub, 'publication');
        const answer = await throng.post('/api/publish', { channel: 'lobby', data: { text: 'hi' } }, { 'X-API-Key': 'test-api-key' });
        assert.equal(answer.text, '{"result":{}}');
        const publication = await heard;
        assert.deepEqual(publication.data, { text: 'hi' });
        assert.equal(publication.info, undefined);
      });

      it('keeps payloads as they were written', TEST, async () => {
        const sub = await subscribed(await connected(), 'exact');
        const heard = gather(sub, 'publication', (context) => context.data);
        const payloads = ['text', 7, [1, [2]], { a: { b: 'ä €\n😀' } }, true, { n: 1e21, empty: {} }];
        for (const data of payloads) await throng.publish('exact', data);
        assert.deepEqual(await heard.until(payloads.length), payloads);
      });

      it('keeps the order of one publisher', TEST, async () => {
        const client = await connected();
        const sub = await subscribed(client, 'order');
        const heard = gather(sub, 'publication', (context) => context.data.n);
        // Requests that are sent together may overtake each other; what goes over one socket may not.
        const isOneSocket = way.transport === 'websocket';
        const count = isOneSocket ? 500 : 50;
        const said = range(1, count).map((n) => () => client.publish('order', { n }));
        if (isOneSocket) await Promise.all(said.map((say) => say()));
        else for (const say of said) await say();
        assert.deepEqual(await heard.until(count), range(1, count));
      });

      it('delivers to one hundred clients, each in order', TEST, async () => {
        const crowd = await Promise.all(range(1, 100).map(() => connected()));
        const subs = await Promise.all(crowd.map((client) => subscribed(client, 'crowd')));
        const heard = subs.map((sub) => gather(sub, 'publication', (context) => context.data));
        for (const n of range(1, 20)) await throng.publish('crowd', n);
        for (const one of heard) assert.deepEqual(await one.until(20), range(1, 20));
        for (const client of crowd) client.disconnect();
      });

      it('stops receiving after unsubscribing', TEST, async () => {
        const client = await connected();
        const [left, kept] = [await subscribed(client, 'left'), await subscribed(client, 'kept')];
        const heard = gather(left, 'publication');
        left.unsubscribe();
        // The reply to a later command proves that the unsubscribe was handled.
        await client.publish('kept', 'barrier');
        const barrier = nextEvent(kept, 'publication', ({ data }) => data === 'end');
        await throng.publish('left', 'unheard');
        await throng.publish('kept', 'end');
        await barrier;
        assert.equal(heard.got.length, 0);
      });
    });

    describe('presence', () => {
      it('shows who is subscribed', TEST, async () => {
        const alice = await connected(asUser('alice'));
        const bob = await connected(asUser('bob'));
        const sub = await subscribed(alice, 'chat:presence');
        await subscribed(bob, 'chat:presence');
        const { clients: present } = await sub.presence();
        assert.deepEqual(Object.keys(present).sort(), [alice.context.client, bob.context.client].sort());
        assert.equal(present[bob.context.client].user, 'bob');
        assert.deepEqual(await sub.presenceStats(), { numClients: 2, numUsers: 2 });
        assert.deepEqual(await throng.api('presence_stats', { channel: 'chat:presence' }), { num_clients: 2, num_users: 2 });
        assert.equal((await throng.api('presence', { channel: 'chat:presence' })).presence[alice.context.client].user, 'alice');
      });

      it('carries the token’s info', TEST, async () => {
        const client = await connected({ token: jwt({ sub: 'carol', exp: inSeconds(600), info: { name: 'Carol' } }) });
        const sub = await subscribed(client, 'chat:info');
        const { clients: present } = await sub.presence();
        assert.deepEqual(present[client.context.client].connInfo, { name: 'Carol' });
      });

      it('tells who joins and leaves', TEST, async () => {
        const sub = await subscribed(await connected(asUser('alice')), 'chat:door', { joinLeave: true });
        const guest = newClient(asUser('guest'));
        const joined = nextEvent(sub, 'join', ({ info }) => info.user === 'guest');
        const left = nextEvent(sub, 'leave', ({ info }) => info.user === 'guest');
        guest.newSubscription('chat:door').subscribe();
        guest.connect();
        const { info } = await joined;
        guest.disconnect();
        assert.equal((await left).info.client, info.client);
        assert.deepEqual(await sub.presenceStats(), { numClients: 1, numUsers: 1 });
      });
    });

    describe('history', () => {
      it('is read forwards, backwards and from a position', TEST, async () => {
        const sub = await subscribed(await connected(), 'chat:history');
        for (const n of range(1, 10)) await throng.publish('chat:history', n);
        const data = async (options) => (await sub.history(options)).publications.map((publication) => publication.data);
        assert.deepEqual(await data({ limit: 3 }), [1, 2, 3]);
        assert.deepEqual(await data({ limit: 3, reverse: true }), [10, 9, 8]);
        assert.deepEqual(await data({ limit: -1 }), range(1, 10));
        const { epoch, offset } = await sub.history({ limit: 0 });
        assert.equal(offset, 10);
        assert.deepEqual(await data({ limit: 2, since: { epoch, offset: 4 } }), [5, 6]);
        await assert.rejects(sub.history({ limit: 1, since: { epoch: 'another', offset: 4 } }), { code: 112 });
      });

      it('keeps its newest, and is removed when asked', TEST, async () => {
        for (const n of range(1, 8)) await throng.publish('short:history', n);
        const { publications, offset, epoch } = await throng.api('history', { channel: 'short:history', limit: -1 });
        assert.deepEqual(publications.map(({ data }) => data), range(4, 8));
        assert.equal(offset, 8);
        await throng.api('history_remove', { channel: 'short:history' });
        const emptied = await throng.api('history', { channel: 'short:history', limit: -1 });
        assert.deepEqual(emptied, { publications: [], offset: 8, epoch });
      });
    });

    describe('a lost network', () => {
      let relay;
    before(async () => { relay = await Relay.to(throng.port); });
      after(() => relay?.stop());

      async function throughRelay() {
        relay.mend();
        return connected({}, relay.websocket);
      }

      it('recovers what was missed: no gap, no duplicate, in order', TEST, async () => {
        const client = await throughRelay();
        const sub = await subscribed(client, 'chat:recover');
        const heard = gather(sub, 'publication', ({ data, offset }) => [data, offset]);
        for (const n of range(1, 5)) await throng.publish('chat:recover', n);
        await heard.until(5);

        const lost = nextEvent(client, 'connecting');
        relay.cut();
        await lost;
        for (const n of range(6, 60)) await throng.publish('chat:recover', n);
        const back = nextEvent(sub, 'subscribed');
        relay.mend();
        const context = await back;
        assert.equal(context.wasRecovering, true);
        assert.equal(context.recovered, true);

        for (const n of range(61, 70)) await throng.publish('chat:recover', n);
        assert.deepEqual(await heard.until(70), range(1, 70).map((n) => [n, n]));
      });

      it('recovers again and again while publications go on', TEST, async () => {
        const client = await throughRelay();
        const sub = await subscribed(client, 'chat:storm');
        const heard = gather(sub, 'publication', ({ data }) => data);
        let n = 0;
        for (let round = 0; round < 5; round += 1) {
          const lost = nextEvent(client, 'connecting');
          const back = nextEvent(sub, 'subscribed');
          relay.cut();
          await lost;
          const publishing = (async () => {
            for (let i = 0; i < 40; i += 1) await throng.publish('chat:storm', ++n);
          })();
          relay.mend();
          assert.equal((await back).recovered, true);
          await publishing;
        }
        assert.deepEqual(await heard.until(n), range(1, n));
      });

      it('says when too much was missed, and goes on from there', TEST, async () => {
        const client = await throughRelay();
        const sub = await subscribed(client, 'short:recover');
        const lost = nextEvent(client, 'connecting');
        relay.cut();
        await lost;
        for (const n of range(1, 20)) await throng.publish('short:recover', n);
        const back = nextEvent(sub, 'subscribed');
        const heard = gather(sub, 'publication', ({ data }) => data);
        relay.mend();
        const context = await back;
        assert.equal(context.wasRecovering, true);
        assert.equal(context.recovered, false);
        await throng.publish('short:recover', 21);
        assert.deepEqual(await heard.until(1), [21]);
      });
    });

    describe('sent away', () => {
      it('comes back, and recovers what it missed', TEST, async () => {
        const client = await connected(asUser('away'));
        const sub = await subscribed(client, 'chat:away');
        const heard = gather(sub, 'publication', ({ data }) => data);
        const reconnecting = nextEvent(client, 'connecting');
        const again = nextEvent(sub, 'subscribed');
        await throng.api('disconnect', { user: 'away', disconnect: { code: 4000, reason: 'come back' } });
        const { code, reason } = await reconnecting;
        assert.deepEqual({ code, reason }, { code: 4000, reason: 'come back' });
        await throng.publish('chat:away', 'missed');
        assert.equal((await again).wasRecovering, true);
        assert.deepEqual(await heard.until(1), ['missed']);
      });
    });

    describe('tokens', () => {
      it('takes a good one, and knows the user by it', TEST, async () => {
        const client = await connected(asUser('dora'));
        const sub = await subscribed(client, 'chat:token');
        assert.equal((await sub.presence()).clients[client.context.client].user, 'dora');
      });

      it('refuses a forged one for good', TEST, async () => {
        const client = newClient({ token: jwt({ sub: 'eve', exp: inSeconds(600) }, 'another key') });
        const closed = nextEvent(client, 'disconnected');
        client.connect();
        assert.equal((await closed).code, 3500);
      });

      it('asks for a fresh one when it has expired', TEST, async () => {
        let asked = 0;
        const client = await connected({
          token: jwt({ sub: 'fred', exp: inSeconds(-60) }),
          getToken: async () => {
            asked += 1;
            return jwt({ sub: 'fred', exp: inSeconds(600) });
          },
        });
        assert.equal(asked, 1);
        assert.equal(client.state, 'connected');
      });

      it('is refreshed before it expires, without a reconnect', TEST, async () => {
        let refreshed;
        const asked = new Promise((resolve) => { refreshed = resolve; });
        const client = await connected({
          token: jwt({ sub: 'gina', exp: inSeconds(2) }),
          getToken: async () => {
            refreshed();
            return jwt({ sub: 'gina', exp: inSeconds(600) });
          },
        });
        const dropped = gather(client, 'connecting');
        await asked;
        // Commands are answered in order: this reply comes behind that of the refresh.
        await client.publish('refreshed', 1);
        assert.equal(dropped.got.length, 0);
      });

      it('lets a subscription in by its own token', TEST, async () => {
        const client = await connected(asUser('hugo'));
        const token = jwt({ sub: 'hugo', channel: 'closed:room', exp: inSeconds(600) });
        const sub = await subscribed(client, 'closed:room', { token });
        const heard = nextEvent(sub, 'publication');
        await throng.publish('closed:room', 'inside');
        assert.equal((await heard).data, 'inside');
      });

      it('asks for a fresh subscription token when it has expired', TEST, async () => {
        const client = await connected(asUser('ida'));
        const claims = { sub: 'ida', channel: 'closed:fresh' };
        const sub = await subscribed(client, 'closed:fresh', {
          token: jwt({ ...claims, exp: inSeconds(-60) }),
          getToken: async () => jwt({ ...claims, exp: inSeconds(600) }),
        });
        assert.equal(sub.state, 'subscribed');
      });

      it('disconnects who shows a token of another channel', TEST, async () => {
        const client = await connected(asUser('jim'));
        const closed = nextEvent(client, 'disconnected');
        client.newSubscription('closed:a', { token: jwt({ sub: 'jim', channel: 'closed:b', exp: inSeconds(600) }) }).subscribe();
        assert.equal((await closed).code, 3500);
      });
    });

    describe('what the server decides', () => {
      it('ends one subscription of a user', TEST, async () => {
        const sub = await subscribed(await connected(asUser('nina')), 'chat:ended');
        const ended = nextEvent(sub, 'unsubscribed');
        await throng.api('unsubscribe', { user: 'nina', channel: 'chat:ended' });
        assert.equal((await ended).code, 2000);
      });
    });

    describe('what is refused', () => {
      async function refusal(client, channel) {
        const sub = client.newSubscription(channel);
        const ended = nextEvent(sub, 'unsubscribed');
        sub.subscribe();
        return (await ended).code;
      }

      it('an unknown namespace: 102', TEST, async () => {
        const client = await connected();
        assert.equal(await refusal(client, 'nowhere:room'), 102);
        await assert.rejects(client.publish('nowhere:room', 1), { code: 102 });
      });

      it('what is not permitted: 103', TEST, async () => {
        const client = await connected();
        assert.equal(await refusal(client, 'closed:room'), 103);
        assert.equal(await refusal(client, '$private'), 103);
        await assert.rejects(client.publish('closed:room', 1), { code: 103 });
        await assert.rejects(client.presence('blind:room'), { code: 103 });
        await assert.rejects(client.history('blind:room'), { code: 103 });
      });

      it('a call that nobody answers: 104', TEST, async () => {
        const client = await connected();
        assert.deepEqual((await client.rpc('ping', {})).data, {});
        await assert.rejects(client.rpc('method', {}), { code: 104 });
      });

      it('what is switched off: 108', TEST, async () => {
        const client = await connected();
        await assert.rejects(client.presence('plain'), { code: 108 });
        await assert.rejects(client.presenceStats('plain'), { code: 108 });
        await assert.rejects(client.history('plain'), { code: 108 });
      });

      it('a refusal leaves the connection as it was', TEST, async () => {
        const client = await connected();
        await refusal(client, 'closed:room');
        const sub = await subscribed(client, 'still-here');
        const heard = nextEvent(sub, 'publication');
        await client.publish('still-here', 1);
        assert.equal((await heard).data, 1);
      });
    });

    decided();
  });
}

for (const here of LISTENERS) {
  describe(here.name, () => {
    before(() => serve(here));
    after(close);
    decided();
  });
}

/** What the server decides is told to everybody, also to who only listens. */
function decided() {
  it('hears what is published, in order, and nothing after the end of a subscription', TEST, async () => {
    const client = newClient(asUser('kim'));
    const there = nextEvent(client, 'connected');
    client.connect();
    await there;
    const joined = nextEvent(client, 'subscribed', ({ channel }) => channel === 'chat:pushed');
    await throng.api('subscribe', { user: 'kim', channel: 'chat:pushed' });
    await joined;
    const heard = gather(client, 'publication', ({ channel, data, offset }) => [channel, data, offset]);
    for (const n of range(1, 50)) await throng.publish('chat:pushed', { n });
    assert.deepEqual(await heard.until(50), range(1, 50).map((n) => ['chat:pushed', { n }, n]));
    const left = nextEvent(client, 'unsubscribed', ({ channel }) => channel === 'chat:pushed');
    await throng.api('unsubscribe', { user: 'kim', channel: 'chat:pushed' });
    await left;
    await throng.publish('chat:pushed', 'unheard');
    await throng.publish('#kim', 'the end');
    assert.deepEqual((await heard.until(51))[50].slice(0, 2), ['#kim', 'the end']);
  });

  it('is subscribed to its personal channel, and to those that the token names', TEST, async () => {
    const client = newClient({ token: jwt({ sub: 'lea', exp: inSeconds(600), channels: ['closed:by-token'] }) });
    const personal = nextEvent(client, 'subscribed', ({ channel }) => channel === '#lea');
    const named = nextEvent(client, 'subscribed', ({ channel }) => channel === 'closed:by-token');
    client.connect();
    await Promise.all([personal, named]);
    const heard = gather(client, 'publication', ({ data }) => data);
    await throng.publish('#lea', 'for you');
    await throng.publish('closed:by-token', { a: 'ä €\n😀' });
    assert.deepEqual(await heard.until(2), ['for you', { a: 'ä €\n😀' }]);
  });

  it('is disconnected with 3503, or a code of the caller’s', TEST, async () => {
    for (const [disconnect, told] of [[undefined, { code: 3503, reason: 'force disconnect' }], [{ code: 4500, reason: 'expelled' }]]) {
      const client = newClient(asUser('otto'));
      const there = nextEvent(client, 'connected');
      client.connect();
      await there;
      const closed = nextEvent(client, 'disconnected');
      await throng.api('disconnect', { user: 'otto', disconnect });
      const { code, reason } = await closed;
      assert.deepEqual({ code, reason }, told ?? disconnect);
    }
  });

  it('is closed when it does not keep up, and its neighbour is not', TEST, async () => {
    const relay = await Relay.to(throng.port);
    try {
      const slow = newClient({ token: jwt({ sub: 'slow', exp: inSeconds(600), channels: ['flood'] }) }, relay.websocket);
      const quick = newClient({ token: jwt({ sub: 'quick', exp: inSeconds(600), channels: ['flood'] }) });
      const there = [slow, quick].map((client) => nextEvent(client, 'connected'));
      for (const client of [slow, quick]) client.connect();
      await Promise.all(there);
      const heard = gather(quick, 'publication', ({ data }) => data.n);
      const from = throng.lines.length;
      relay.stall();
      let n = 0;
      const closed = () => throng.lines.slice(from).some((line) => line.includes('3008') && line.includes('"slow"'));
      for (; n < 500 && !closed(); n += 1) await throng.publish('flood', { n, much: 'x'.repeat(50_000) });
      await throng.line('3008', from);
      assert.deepEqual(await heard.until(n), range(0, n - 1));
    } finally {
      await relay.stop();
    }
  });

  it('notices nothing of a restart', TEST, async () => {
    const runtime = await emptyDirectory();
    const port = await freePort();
    const env = { XDG_RUNTIME_DIR: runtime };
    const first = await Throng.start({ port, config: { ...configuration(port), ...TRANSPORTS }, env });
    let pid;
    try {
      const client = newClient({ token: jwt({ sub: 'ann', exp: inSeconds(600), channels: ['chat:moved'] }) }, first.websocket);
      const there = nextEvent(client, 'connected');
      client.connect();
      await there;
      const heard = gather(client, 'publication', ({ data, offset }) => [data, offset]);
      const gone = gather(client, 'connecting');
      await first.publish('chat:moved', 1);
      const ran = await run(['restart', '--json', '--pid', String(first.process.pid)], { env });
      assert.equal(ran.code, 0, `${ran.stdout}${ran.stderr}`);
      pid = JSON.parse(ran.stdout).outcome.to.pid;
      await first.publish('chat:moved', 2);
      assert.deepEqual(await heard.until(2), [[1, 1], [2, 2]]);
      assert.deepEqual(gone.got, []);
      client.disconnect();
    } finally {
      // At once: where only the newer one dies, the other serves again.
      if (pid !== undefined) process.kill(pid, 'SIGKILL');
      await first.stop();
    }
  });

  it('is told 3001 by SIGTERM, and the process ends with 0', TEST, async () => {
    const port = await freePort();
    const ending = await Throng.start({ port, config: { ...configuration(port, { shutdown: { spread: '200ms' } }), ...TRANSPORTS } });
    try {
      const crowd = range(1, 10).map(() => newClient({}, ending.websocket));
      const there = crowd.map((client) => nextEvent(client, 'connected'));
      for (const client of crowd) client.connect();
      await Promise.all(there);
      const told = crowd.map((client) => nextEvent(client, 'connecting', ({ code }) => code >= 3000));
      ending.process.kill('SIGTERM');
      for (const { code } of await Promise.all(told)) assert.equal(code, 3001);
      for (const client of crowd) client.disconnect();
      assert.deepEqual(await ending.exited, [0, null]);
    } finally {
      await ending.stop();
    }
  });
}
