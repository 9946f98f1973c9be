// Clients over gRPC that only listen, made with gRPC's own library.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import http2 from 'node:http2';
import { after, before, describe, it } from 'node:test';

import { grpc, json, load } from './grpc.js';
import { Throng, configuration, emptyDirectory, freePort, inSeconds, jwt, run } from './throng.js';

const TEST = { timeout: 60_000 };
const CONSUME = '/centrifugal.centrifugo.unistream.CentrifugoUniStream/Consume';

const { CentrifugoUniStream } = load('unistream.proto').unistream;

/** A client, and everything that it was told. */
class Listener {
  pushes = [];
  #waiting = new Set();

  constructor(port, request = {}, { metadata = {}, options = {} } = {}) {
    this.client = new CentrifugoUniStream(`127.0.0.1:${port}`, grpc.credentials.createInsecure(), options);
    const sent = new grpc.Metadata();
    Object.entries(metadata).forEach(([name, value]) => sent.set(name, value));
    this.stream = this.client.Consume(request, sent);
    this.stream.on('data', (push) => {
      this.pushes.push(push);
      this.#look();
    });
    this.status = new Promise((resolve) => {
      this.stream.on('status', resolve).on('error', () => {}); // its status says as much
    });
    this.status.then(() => this.#look());
  }

  #look() { for (const look of this.#waiting) look(); }

  /** The first push that matches. */
  until(matches) {
    return new Promise((resolve) => {
      const look = () => {
        const found = this.pushes.find(matches);
        if (found === undefined) return;
        this.#waiting.delete(look);
        resolve(found);
      };
      this.#waiting.add(look);
      look();
    });
  }

  stop() {
    this.stream.cancel();
    this.client.close();
  }
}

const connected = ({ connect }) => connect;
const said = ({ pub }) => pub;

function settings(port, uni, more = {}) {
  const base = configuration(port);
  return { ...base, uni_grpc: { enabled: true, address: '127.0.0.1', port: uni }, ...more, client: { ...base.client, ...more.client } };
}

describe('a client over gRPC', () => {
  let throng;
  let port;

  before(async () => {
    const [http, uni] = [await freePort(), await freePort()];
    port = uni;
    throng = await Throng.start({ port: http, config: settings(http, uni, { client: { ping_interval: '1s' } }) });
  });
  after(() => throng?.stop());

  it('hears what its token lets it hear', TEST, async () => {
    const token = jwt({ sub: 'ann', exp: inSeconds(600), channels: ['chat:uni'] });
    const listener = new Listener(port, { token, name: 'test' });
    const { connect } = await listener.until(connected);
    assert.equal(connect.ping, 1);
    assert.ok(connect.client && connect.session && connect.subs['chat:uni'].recoverable);
    await throng.publish('chat:uni', { text: 'ж' }, { tags: { a: 'b' } });
    const large = 'x'.repeat(200_000);
    await throng.publish('chat:uni', large);
    const first = await listener.until(said);
    assert.deepEqual([first.channel, JSON.parse(first.pub.data), first.pub.offset, first.pub.tags], ['chat:uni', { text: 'ж' }, 1, { a: 'b' }]);
    const second = await listener.until(({ pub }) => pub?.offset === 2);
    assert.equal(JSON.parse(second.pub.data), large);
    // A ping is a push without anything in it.
    await listener.until((push) => Object.keys(push).length === 0);

    const { nodes: [node] } = await throng.api('info');
    assert.equal(node.num_clients, 1);
    await throng.api('disconnect', { user: 'ann', disconnect: { code: 4000, reason: 'come back' } });
    const { disconnect } = await listener.until((push) => push.disconnect);
    assert.deepEqual(disconnect, { code: 4000, reason: 'come back', reconnect: true });
    assert.equal((await listener.status).code, grpc.status.OK);

    // And goes on where it was.
    await throng.publish('chat:uni', 'missed');
    const { epoch } = connect.subs['chat:uni'];
    const again = new Listener(port, { token, subs: { 'chat:uni': { recover: true, epoch, offset: 2 } } });
    const { subs } = (await again.until(connected)).connect;
    assert.deepEqual(subs['chat:uni'].publications.map(({ data }) => JSON.parse(data)), ['missed']);
    again.stop();
    listener.stop();
  });

  it('is refused as all others are', TEST, async () => {
    const bad = new Listener(port, { token: `${jwt({ sub: 'ann' })}x` });
    assert.equal((await bad.until((push) => push.disconnect)).disconnect.code, 3500);
    assert.equal((await bad.status).code, grpc.status.OK);
    const wrong = new Listener(port, { data: Buffer.from('{') });
    assert.equal((await wrong.status).code, grpc.status.INVALID_ARGUMENT);
    const large = new Listener(port, { token: 'x'.repeat(100_000) });
    assert.equal((await large.status).code, grpc.status.RESOURCE_EXHAUSTED);
    [bad, wrong, large].forEach((listener) => listener.stop());
  });

  it('that goes away is gone', TEST, async () => {
    const listener = new Listener(port, { token: jwt({ sub: 'bob', channels: ['chat:gone'] }) });
    await listener.until(connected);
    assert.deepEqual((await throng.api('presence_stats', { channel: 'chat:gone' })).num_clients, 1);
    listener.stop();
    const gone = async () => (await throng.api('presence_stats', { channel: 'chat:gone' })).num_clients === 0;
    while (!await gone());
  });

  it('that does not read is closed as slow, and its connection with it', TEST, async () => {
    const session = http2.connect(`http://127.0.0.1:${port}`, { settings: { initialWindowSize: 0 } });
    const message = Buffer.concat([Buffer.from([0x0a, 0]), Buffer.from(jwt({ sub: 'slow', channels: ['chat:slow'] }))]);
    message[1] = message.length - 2;
    // A token of more than 127 bytes has a length of two bytes.
    const token = message.subarray(2);
    const field = Buffer.concat([Buffer.from([0x0a, (token.length & 0x7f) | 0x80, token.length >> 7]), token]);
    const head = Buffer.alloc(5);
    head.writeUInt32BE(field.length, 1);
    const stream = session.request({ ':method': 'POST', ':path': CONSUME, 'content-type': 'application/grpc', te: 'trailers' });
    stream.end(Buffer.concat([head, field]));
    await once(stream, 'response');
    while ((await throng.api('presence_stats', { channel: 'chat:slow' })).num_clients === 0);
    const from = throng.lines.length;
    const text = 'x'.repeat(60_000);
    for (let n = 0; n < 40; n += 1) await throng.publish('chat:slow', text);
    await throng.line('3008', from);
    while ((await throng.api('presence_stats', { channel: 'chat:slow' })).num_clients > 0);
    session.destroy();
  });

  it('shares a connection with others', TEST, async () => {
    const token = jwt({ sub: 'many', channels: ['chat:many'] });
    const shared = new CentrifugoUniStream(`127.0.0.1:${port}`, grpc.credentials.createInsecure());
    const streams = Array.from({ length: 50 }, () => shared.Consume({ token }));
    const heard = streams.map((stream) => new Promise((resolve) => {
      stream.on('data', ({ pub }) => pub && resolve(JSON.parse(pub.data))).on('error', () => {});
    }));
    while ((await throng.api('presence_stats', { channel: 'chat:many' })).num_clients < 50);
    await throng.publish('chat:many', 'all');
    assert.deepEqual(new Set(await Promise.all(heard)), new Set(['all']));
    shared.close();
    streams.forEach((stream) => stream.cancel());
  });
});

describe('limits of clients over gRPC', () => {
  it('are those of all clients', TEST, async () => {
    const [http, port] = [await freePort(), await freePort()];
    const more = {
      client: { connection_limit: 3 },
      limits: { per_address: { connections: 2, exempt_private: false } },
      trusted_proxies: ['127.0.0.1'],
    };
    const throng = await Throng.start({ port: http, config: settings(http, port, more) });
    const behind = (address) => new Listener(port, {}, { metadata: { 'x-forwarded-for': address } });
    const [one, two] = [behind('203.0.113.1'), behind('203.0.113.1')];
    await Promise.all([one.until(connected), two.until(connected)]);
    const third = await behind('203.0.113.1').status;
    assert.deepEqual([third.code, third.details], [grpc.status.UNAVAILABLE, 'too many connections of your address']);
    const other = behind('203.0.113.2');
    await other.until(connected);
    const full = await behind('203.0.113.3').status;
    assert.deepEqual([full.code, full.details], [grpc.status.UNAVAILABLE, 'server full']);
    [one, two, other].forEach((listener) => listener.stop());
    await throng.stop();
  });
});

describe('a restart and clients over gRPC', () => {
  const pids = [];
  let throng;
  let runtime;

  before(async () => { runtime = await emptyDirectory(); });
  after(async () => {
    for (const pid of pids) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch { /* it has ended */ }
    }
    await throng?.stop();
    await rm(runtime, { recursive: true, force: true });
  });

  it('tells them to come back, at a pace, and says how many', { timeout: 120_000 }, async () => {
    const [http, port] = [await freePort(), await freePort()];
    const env = { XDG_RUNTIME_DIR: runtime };
    throng = await Throng.start({ port: http, config: settings(http, port), env });
    const pid = throng.process.pid;
    pids.push(pid);
    const token = jwt({ sub: 'ann', channels: ['chat:restart'] });
    const listeners = Array.from({ length: 20 }, () => new Listener(port, { token }, { options: { 'grpc.use_local_subchannel_pool': 1 } }));
    await Promise.all(listeners.map((listener) => listener.until(connected)));
    const rehearsed = await run(['restart', '--dry-run', '--pid', String(pid)], { env });
    assert.match(rehearsed.stdout, /rehearsed: 0 connections would stay; 20 \(HTTP\/2\) would be closed over 3 s and come back/);
    const ran = await run(['restart', '--json', '--pid', String(pid)], { env });
    assert.equal(ran.code, 0, `${ran.stdout}${ran.stderr}`);
    const { outcome } = JSON.parse(ran.stdout);
    pids.push(outcome.to.pid);
    assert.deepEqual([outcome.connections, outcome.returning], [20, 20]);
    await throng.line('20 of them are clients over gRPC');
    // Until they are told, they are served.
    await throng.publish('chat:restart', 'now');
    const ends = await Promise.all(listeners.map(async (listener) => {
      const { disconnect } = await listener.until((push) => push.disconnect);
      return [disconnect, (await listener.status).code, listener.pushes.some(said)];
    }));
    for (const [disconnect, code] of ends) {
      assert.deepEqual([disconnect, code], [{ code: 3001, reason: 'shutdown', reconnect: true }, grpc.status.OK]);
    }
    assert.ok(ends.filter(([, , heard]) => heard).length > 10, 'most were still there when it was published');
    const back = new Listener(port, { token });
    await back.until(connected);
    await throng.publish('chat:restart', 'after');
    assert.equal(JSON.parse((await back.until(said)).pub.data), 'after');
    back.stop();
    listeners.forEach((listener) => listener.stop());
    await throng.exited;
  });
});
