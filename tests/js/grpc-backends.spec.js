// A backend that speaks gRPC, made with gRPC's own library: every question, and everything that can
// go wrong with one.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { after, afterEach, before, describe, it } from 'node:test';

import { Centrifuge } from 'centrifuge';
import { Centrifuge as Protobuf } from 'centrifuge/build/protobuf';
import WebSocket from 'ws';

import { grpc, json, load } from './grpc.js';
import { Throng, configuration, freePort, gather, nextEvent, run } from './throng.js';

const TEST = { timeout: 60_000 };
const QUESTIONS = ['Connect', 'Refresh', 'Subscribe', 'Publish', 'RPC', 'SubRefresh'];

/** A backend whose answers a test sets, by question. */
class Backend {
  asked = [];
  answers = {};

  static async start(port = 0) {
    const backend = new Backend();
    backend.server = new grpc.Server();
    const answer = (name) => (call, done) => {
      backend.asked.push({ name, request: call.request, metadata: call.metadata.getMap() });
      const said = backend.answers[name] ?? { result: {} };
      if (typeof said === 'function') return said(call, done);
      return said instanceof Error ? done(said) : done(null, said);
    };
    const implementation = Object.fromEntries(QUESTIONS.map((name) => [name, answer(name)]));
    backend.server.addService(load('proxy.proto').proxy.CentrifugoProxy.service, implementation);
    const bind = backend.server.bindAsync.bind(backend.server);
    backend.port = await new Promise((resolve, reject) => {
      bind(`127.0.0.1:${port}`, grpc.ServerCredentials.createInsecure(), (error, bound) => (error ? reject(error) : resolve(bound)));
    });
    return backend;
  }

  get endpoint() { return `grpc://127.0.0.1:${this.port}`; }

  of(name) { return this.asked.filter((one) => one.name === name); }

  stop() { this.server.forceShutdown(); }
}

describe('a backend over gRPC', () => {
  let backend;
  let throng;
  let uni;
  let clients = [];

  before(async () => {
    backend = await Backend.start();
    const port = await freePort();
    uni = await freePort();
    const base = configuration(port);
    const proxy = (more = {}) => ({
      endpoint: backend.endpoint,
      timeout: '2s',
      grpc_metadata: ['X-Tenant'],
      http_headers: ['Cookie', 'X-Forwarded-For', 'grpc-timeout'],
      grpc: { credentials_key: 'Authorization', credentials_value: 'secret', static_metadata: { 'x-static': 'always' } },
      ...more,
    });
    throng = await Throng.start({
      port,
      config: {
        ...base,
        uni_grpc: { enabled: true, address: '127.0.0.1', port: uni },
        client: { proxy: { connect: { enabled: true, ...proxy() }, refresh: { enabled: true, ...proxy() } } },
        channel: {
          proxy: { subscribe: proxy(), publish: proxy({ binary_encoding: true }), sub_refresh: proxy() },
          without_namespace: {
            subscribe_proxy_enabled: true, publish_proxy_enabled: true, sub_refresh_proxy_enabled: true, history_size: 10, history_ttl: '60s',
          },
        },
        rpc: { proxy: proxy(), without_namespace: { proxy_enabled: true } },
      },
    });
  });
  afterEach(() => {
    clients.forEach((client) => client.disconnect());
    clients = [];
    backend.answers = {};
    backend.asked.length = 0;
  });
  after(async () => {
    await throng?.stop();
    backend?.stop();
  });

  const named = { result: { user: 'ann', data: json({ hello: 1 }), channels: ['own'], subs: { more: { data: json('sub'), expire_at: 0 } } } };

  class Visitor extends WebSocket {
    constructor(url, protocols) { super(url, protocols, { headers: { Cookie: 'a=b', 'grpc-timeout': '1n' } }); }
  }

  async function connected(options = {}, answer = named) {
    backend.answers.Connect = answer;
    const client = new Centrifuge(throng.websocket, { websocket: Visitor, minReconnectDelay: 50, ...options });
    clients.push(client);
    const event = nextEvent(client, 'connected');
    client.connect();
    return { client, event: await event };
  }

  it('is asked who a client is', TEST, async () => {
    const { client, event } = await connected({ data: { from: 'page' }, name: 'js' });
    assert.deepEqual(event.data, { hello: 1 });
    assert.deepEqual(Object.keys(client._serverSubs).toSorted(), ['more', 'own']);
    const [{ request, metadata }] = backend.of('Connect');
    assert.deepEqual(
      { ...request, client: '', data: JSON.parse(request.data) },
      { client: '', transport: 'websocket', protocol: 'json', encoding: 'json', data: { from: 'page' }, name: 'js' },
    );
    assert.deepEqual(
      [metadata.cookie, metadata.authorization, metadata['x-static'], metadata['x-real-ip'], metadata['x-forwarded-for']],
      ['a=b', 'secret', 'always', '127.0.0.1', '127.0.0.1'],
    );
  });

  it('is told of a client over gRPC what it said', TEST, async () => {
    backend.answers.Connect = { result: { user: 'grpc', channels: ['own'] } };
    const { CentrifugoUniStream } = load('unistream.proto').unistream;
    const listener = new CentrifugoUniStream(`127.0.0.1:${uni}`, grpc.credentials.createInsecure());
    const metadata = new grpc.Metadata();
    Object.entries({ cookie: 'a=b', 'x-tenant': 'seven' }).forEach(([name, value]) => metadata.set(name, value));
    const stream = listener.Consume({ data: json({ who: 'me' }) }, metadata).on('error', () => {}); // it is cancelled
    const [push] = await once(stream, 'data');
    assert.deepEqual(Object.keys(push.connect.subs), ['own']);
    const [{ request, metadata: seen }] = backend.of('Connect');
    assert.deepEqual([request.transport, request.protocol, JSON.parse(request.data)], ['uni_grpc', 'protobuf', { who: 'me' }]);
    assert.deepEqual([seen['x-tenant'], seen.cookie, seen['x-real-ip']], ['seven', undefined, '127.0.0.1']);
    stream.cancel();
    listener.close();
  });

  it('answers with an error or a disconnect', TEST, async () => {
    const refused = new Centrifuge(throng.websocket, { websocket: Visitor });
    clients.push(refused);
    backend.answers.Connect = { disconnect: { code: 4501, reason: 'not you' } };
    const gone = nextEvent(refused, 'disconnected');
    refused.connect();
    assert.deepEqual((({ code, reason }) => [code, reason])(await gone), [4501, 'not you']);
    const { client } = await connected();
    backend.answers.RPC = { error: { code: 1234, message: 'no', temporary: true } };
    await assert.rejects(client.rpc('x', {}), { code: 1234, message: 'no' });
  });

  it('answers remote calls, in JSON and in bytes', TEST, async () => {
    const { client } = await connected();
    backend.answers.RPC = (call, done) => done(null, { result: { data: call.request.data } });
    assert.deepEqual((await client.rpc('echo', { a: [1, 'ж'] })).data, { a: [1, 'ж'] });
    backend.answers.RPC = { result: { b64data: Buffer.from('{"b":2}').toString('base64') } };
    assert.deepEqual((await client.rpc('echo', {})).data, { b: 2 });
    const [{ request }] = backend.of('RPC');
    assert.deepEqual([request.user, request.method], ['ann', 'echo']);

    const binary = new Protobuf(`${throng.websocket}?format=protobuf`, { websocket: Visitor });
    clients.push(binary);
    const event = nextEvent(binary, 'connected');
    binary.connect();
    await event;
    backend.answers.RPC = (call, done) => done(null, { result: { data: Buffer.concat([call.request.data, Buffer.from([0xff])]) } });
    const { data } = await binary.rpc('bytes', Buffer.from([0, 1, 2]));
    assert.deepEqual([...data], [0, 1, 2, 0xff]);
  });

  it('is asked who may subscribe and publish, and what', TEST, async () => {
    const { client } = await connected();
    backend.answers.Subscribe = { result: { data: json({ welcome: true }), info: json({ seat: 7 }), expire_at: 0 } };
    const subscription = client.newSubscription('room', { data: { why: 'so' } });
    const heard = gather(subscription, 'publication', ({ data, tags }) => [data, tags]);
    const subscribed = nextEvent(subscription, 'subscribed');
    subscription.subscribe();
    assert.deepEqual((await subscribed).data, { welcome: true });
    const [{ request }] = backend.of('Subscribe');
    assert.deepEqual([request.user, request.channel, request.data.toString()], ['ann', 'room', '{"why":"so"}']);

    backend.answers.Publish = { result: { data: json('changed'), tags: { by: 'backend' }, version: 5 } };
    await subscription.publish({ said: 1 });
    assert.deepEqual(await heard.until(1), [['changed', { by: 'backend' }]]);
    const [{ request: publish }] = backend.of('Publish');
    assert.deepEqual([publish.encoding, publish.data, publish.b64data], ['binary', undefined, Buffer.from('{"said":1}').toString('base64')]);

    backend.answers.Publish = { error: { code: 403, message: 'silence' } };
    await assert.rejects(subscription.publish(1), { code: 403 });
    backend.answers.Subscribe = { error: { code: 403, message: 'members only' } };
    const other = client.newSubscription('vault');
    const refused = nextEvent(other, 'unsubscribed');
    other.subscribe();
    assert.equal((await refused).code, 403);
  });

  it('is asked whether connections and subscriptions may go on', TEST, async () => {
    const soon = Math.floor(Date.now() / 1000) + 1;
    backend.answers.Refresh = { result: { expired: false, expire_at: soon + 3600 } };
    backend.answers.SubRefresh = { result: { expired: true } };
    backend.answers.Subscribe = { result: { expire_at: soon } };
    const { client } = await connected({}, { result: { user: 'ann', expire_at: soon } });
    const subscription = client.newSubscription('room');
    const subscribed = nextEvent(subscription, 'subscribed');
    subscription.subscribe();
    await subscribed;
    // Told that it has ended, the SDK asks anew.
    const again = nextEvent(subscription, 'subscribing');
    backend.answers.Subscribe = { result: {} };
    assert.equal((await again).code, 2501);
    assert.deepEqual((({ request: { user, channel } }) => [user, channel])(backend.of('SubRefresh')[0]), ['ann', 'room']);
    assert.equal(backend.of('Refresh')[0].request.user, 'ann');
    assert.equal(client.state, 'connected');
  });

  it('that fails is said in the log, with what it answered', TEST, async () => {
    const { client } = await connected();
    const cases = [
      [Object.assign(new Error('database is down'), { code: grpc.status.UNAVAILABLE }), 'answered UNAVAILABLE (14): database is down'],
      [{ result: { data: json(1) }, error: { code: 400, message: 'x' } }, 'more than one of result, error and disconnect'],
      [{ error: { code: 7, message: 'x' } }, 'answered error 7'],
      [{ disconnect: { code: 3000, reason: 'x' } }, 'answered disconnect 3000'],
      [{ result: { b64data: '***' } }, 'b64data that is not base64'],
      [{ result: { data: Buffer.alloc(2 * 1024 * 1024, 0x31) } }, 'answered more than'],
      [() => {}, 'did not answer within 2s'],
    ];
    for (const [answer, said] of cases) {
      backend.answers.RPC = answer;
      const from = throng.lines.length;
      await assert.rejects(client.rpc('x', {}), { code: 100 }, said);
      await throng.line(said, from);
    }
    backend.answers.RPC = { result: { data: json('well') } };
    assert.equal((await client.rpc('x', {})).data, 'well');
  });

  it('answers many questions at once on one connection', TEST, async () => {
    const { client } = await connected();
    backend.answers.RPC = (call, done) => { setTimeout(() => done(null, { result: { data: call.request.data } }), 20); };
    const others = await Promise.all(Array.from({ length: 9 }, () => connected()));
    const all = [client, ...others.map((one) => one.client)];
    const answers = await Promise.all(all.flatMap((one, at) => [0, 1, 2].map((n) => one.rpc('x', [at, n]))));
    assert.deepEqual(answers.map(({ data }) => data), all.flatMap((_, at) => [0, 1, 2].map((n) => [at, n])));
  });

  it('that was restarted is asked again at once, and one that is gone is an error', TEST, async () => {
    const { client } = await connected();
    backend.answers.RPC = { result: { data: json(1) } };
    await client.rpc('x', {});
    const { port, answers } = backend;
    backend.stop();
    const from = throng.lines.length;
    await assert.rejects(client.rpc('x', {}), { code: 100 });
    await throng.line('rpc backend grpc://127.0.0.1', from);
    const next = await Backend.start(port);
    next.answers = answers;
    backend = next;
    assert.equal((await client.rpc('x', {})).data, 1);
  });

  it('is tried out by throng backend', TEST, async () => {
    backend.answers.Connect = named;
    const { stdout, code } = await run(['backend', 'try', 'connect', '-c', 'config.json', '--header', 'Cookie: a=b'], { cwd: throng.cwd });
    assert.match(stdout, /grpc:\/\/127\.0\.0\.1:\d+/);
    assert.match(stdout, /CentrifugoProxy\/Connect/);
    assert.match(stdout, /ann/);
    assert.equal(code, 0, stdout);
  });
});

describe('what is no backend over gRPC', () => {
  it('is said in the log', TEST, async () => {
    const bytes = { 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n': 'hung up', '': 'hung up' };
    for (const [answer, said] of Object.entries(bytes)) {
      const server = net.createServer((socket) => {
        socket.on('error', () => {}).once('data', () => socket.end(answer));
      }).listen(0, '127.0.0.1');
      await once(server, 'listening');
      const port = await freePort();
      const throng = await Throng.start({
        port,
        config: {
          ...configuration(port),
          client: { proxy: { connect: { enabled: true, endpoint: `grpc://127.0.0.1:${server.address().port}` } } },
        },
      });
      const client = new Centrifuge(throng.websocket, { websocket: WebSocket });
      client.on('error', () => {});
      client.connect();
      assert.match(await throng.line('connect backend grpc://'), new RegExp(said));
      client.disconnect();
      await throng.stop();
      server.close();
    }
  });
});
