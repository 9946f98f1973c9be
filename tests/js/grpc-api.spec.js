// The server API over gRPC, as a generated client sees it, and as an attacker does.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import http2 from 'node:http2';
import net from 'node:net';
import { rm } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';

import { Centrifuge } from 'centrifuge';
import WebSocket from 'ws';

import { apiAt, grpc, json } from './grpc.js';
import { Throng, configuration, emptyDirectory, freePort, gather, nextEvent, run } from './throng.js';

const TEST = { timeout: 60_000 };
const KEY = 'grpc-key';
const PUBLISH = '/centrifugal.centrifugo.api.CentrifugoApi/Publish';

function settings(port, grpcPort, more = {}) {
  const base = configuration(port);
  const board = { name: 'board', subscription_type: 'map', map: { mode: 'recoverable', key_ttl: '60s' } };
  return {
    ...base,
    channel: { ...base.channel, namespaces: [...base.channel.namespaces, board] },
    grpc_api: { enabled: true, address: '127.0.0.1', port: grpcPort, key: KEY, ...more },
  };
}

const withCode = (code) => (error) => {
  assert.equal(error.code, code, error.message);
  return true;
};

/** Waits for the end, whether it is a reset or not. */
const closed = (stream) => new Promise((resolve) => {
  stream.on('error', () => {}).on('close', resolve);
});

describe('the server API over gRPC', () => {
  let throng;
  let port;
  let api;

  before(async () => {
    const [http, rpc] = [await freePort(), await freePort()];
    port = rpc;
    throng = await Throng.start({ port: http, config: settings(http, rpc) });
    api = apiAt(rpc, KEY);
  });
  after(async () => {
    api?.raw.close();
    await throng?.stop();
  });

  it('publishes to those who listen, and tells where', TEST, async () => {
    const client = new Centrifuge(throng.websocket, { websocket: WebSocket });
    const subscription = client.newSubscription('chat:grpc');
    const heard = gather(subscription, 'publication', ({ data, tags }) => [data, tags]);
    const subscribed = nextEvent(subscription, 'subscribed');
    subscription.subscribe();
    client.connect();
    await subscribed;
    const { result, error } = await api.Publish({ channel: 'chat:grpc', data: json({ n: 1 }), tags: { a: 'b' } });
    assert.equal(error, undefined);
    assert.equal(result.offset, 1);
    const { result: { responses } } = await api.Broadcast({ channels: ['chat:grpc', 'nowhere:x'], data: json(2) });
    assert.deepEqual([responses[0].result.offset, responses[1].error], [2, { code: 102, message: 'unknown channel' }]);
    assert.deepEqual(await heard.until(2), [[{ n: 1 }, { a: 'b' }], [2, undefined]]);

    const { result: history } = await api.History({ channel: 'chat:grpc', limit: 10, since: { offset: 1 } });
    assert.deepEqual(history.publications.map(({ data, offset }) => [offset, data.toString()]), [[2, '2']]);
    assert.equal(history.epoch, result.epoch);
    const { result: { presence } } = await api.Presence({ channel: 'chat:grpc' });
    assert.deepEqual(Object.values(presence).map((info) => info.user), [undefined]);
    assert.deepEqual(Object.keys(presence), [Object.values(presence)[0].client]);
    const stats = await api.PresenceStats({ channel: 'chat:grpc' });
    assert.deepEqual(stats.result, { num_clients: 1, num_users: 1 });
    const { result: { channels } } = await api.Channels({ pattern: 'chat:*' });
    assert.deepEqual(channels, { 'chat:grpc': { num_clients: 1 } });
    const { result: { nodes: [node] } } = await api.Info();
    assert.equal(node.num_clients, 1);
    assert.ok(node.process.rss > 1e6, 'bytes of memory');

    const gone = nextEvent(client, 'disconnected');
    assert.deepEqual(await api.Disconnect({ user: '', disconnect: { code: 4501, reason: 'enough' } }), { result: {} });
    assert.deepEqual((({ code, reason }) => [code, reason])(await gone), [4501, 'enough']);
  });

  it('has every method of the HTTP API, and the same answers', TEST, async () => {
    const plain = { result: {} };
    assert.deepEqual(await api.Publish({ channel: 'silent', b64data: 'MQ==' }), plain);
    assert.deepEqual(await api.Subscribe({ user: 'x', channel: 'chat:x', override: { presence: { value: true } } }), plain);
    assert.deepEqual(await api.Unsubscribe({ user: 'x', channel: 'chat:x' }), plain);
    assert.deepEqual(await api.Refresh({ user: 'x', expire_at: 1, info: json({}) }), plain);
    assert.deepEqual(await api.HistoryRemove({ channel: 'chat:x' }), plain);
    assert.deepEqual((await api.RPC({ method: 'x', params: json({}) })).error, { code: 104, message: 'method not found' });
    assert.deepEqual((await api.Publish({ channel: 'chat:x' })).error, { code: 107, message: 'bad request' });
    assert.deepEqual((await api.History({ channel: 'silent' })).error, { code: 108, message: 'not available' });
    const { replies } = await api.Batch({
      commands: [
        { publish: { channel: 'chat:batch', data: json({ a: 'ж' }) } },
        { history: { channel: 'chat:batch', limit: -1 } },
        { publish: { channel: 'nowhere:x', data: json(1) } },
        {},
      ],
    });
    assert.equal(replies[0].publish.offset, 1);
    assert.equal(replies[1].history.publications[0].data.toString(), '{"a":"ж"}');
    assert.deepEqual(replies.slice(2).map(({ error }) => error.code), [102, 107]);
  });

  it('reads and writes maps', TEST, async () => {
    const bytes = Buffer.from([0, 1, 2]);
    await api.MapPublish({ channel: 'board:x', key: 'a', data: json({ n: 1 }) });
    await api.MapPublish({ channel: 'board:x', key: 'b', data: bytes });
    const { result: { entries } } = await api.MapReadState({ channel: 'board:x', limit: 10 });
    assert.deepEqual(entries.map(({ key, data }) => [key, data]), [['a', json({ n: 1 })], ['b', bytes]]);
    assert.equal((await api.MapStats({ channel: 'board:x' })).result.num_keys, 2);
    await api.MapRemove({ channel: 'board:x', key: 'a' });
    assert.equal((await api.MapStats({ channel: 'board:x' })).result.num_keys, 1);
    await api.MapClear({ channel: 'board:x' });
    assert.deepEqual((await api.MapStats({ channel: 'board:x' })).result, {});
  });

  it('carries any bytes', TEST, async () => {
    const bytes = Buffer.from([0, 1, 0xff, 0x7b]);
    await api.Publish({ channel: 'chat:bytes', data: bytes });
    await api.Publish({ channel: 'chat:bytes', data: json('AAE=') });
    const { result: { publications } } = await api.History({ channel: 'chat:bytes', limit: 10 });
    assert.deepEqual(publications.map(({ data }) => data), [bytes, json('AAE=')]);
  });

  it('asks for the key, and says no more to strangers', TEST, async () => {
    const from = throng.lines.length;
    for (const key of [undefined, '', 'wrong', `${KEY}x`]) {
      const stranger = apiAt(port, key);
      await assert.rejects(stranger.Publish({ channel: 'chat:x', data: json(1) }), withCode(grpc.status.UNAUTHENTICATED));
      stranger.raw.close();
    }
    await throng.line('is not grpc_api.key', from);
    await throng.line('authorization: apikey KEY', from);
  });

  it('answers errors as statuses where it is asked to', TEST, async () => {
    const mode = { 'x-centrifugo-error-mode': 'transport' };
    const expected = [['nowhere:x', json(1), grpc.status.NOT_FOUND], ['chat:x', undefined, grpc.status.INVALID_ARGUMENT]];
    for (const [channel, data, status] of expected) {
      await assert.rejects(api.Publish({ channel, data }, mode), withCode(status));
    }
  });

  it('answers many calls at once on one connection', TEST, async () => {
    const calls = Array.from({ length: 1000 }, (_, n) => api.Publish({ channel: 'chat:many', data: json(n) }));
    const offsets = (await Promise.all(calls)).map(({ result }) => result.offset);
    assert.deepEqual(offsets.toSorted((a, b) => a - b), Array.from({ length: 1000 }, (_, n) => n + 1));
  });

  it('refuses a message that is too large, before it has come', TEST, async () => {
    const large = { channel: 'chat:x', b64data: 'A'.repeat(4 * 1024 * 1024) };
    await assert.rejects(api.Publish(large), withCode(grpc.status.RESOURCE_EXHAUSTED));
    const fits = { channel: 'chat:large', data: json('A'.repeat(4 * 1024 * 1024 - 100)) };
    assert.equal((await api.Publish(fits)).result.offset, 1);
  });

  describe('bad input', () => {
    /** One request on a connection of its own: the answer's headers, trailers among them. */
    async function ask(body, headers = {}) {
      const session = http2.connect(`http://127.0.0.1:${port}`);
      const stream = session.request({
        ':method': 'POST', ':path': PUBLISH, 'content-type': 'application/grpc', te: 'trailers', authorization: `apikey ${KEY}`, ...headers,
      });
      const said = {};
      stream.on('response', (head) => Object.assign(said, head));
      stream.on('trailers', (trailers) => Object.assign(said, trailers));
      stream.resume().end(body);
      await closed(stream);
      session.destroy();
      return said;
    }

    const framed = (message, flag = 0, length = message.length) => {
      const head = Buffer.alloc(5);
      head[0] = flag;
      head.writeUInt32BE(length, 1);
      return Buffer.concat([head, message]);
    };

    it('is answered with what is wrong', TEST, async () => {
      const good = framed(Buffer.from('\x0a\x06silent\x12\x011', 'latin1'));
      assert.equal((await ask(good))['grpc-status'], '0');
      const cases = [
        [framed(Buffer.from('\x0a\x7fx', 'latin1')), {}, '3'],
        [framed(Buffer.from('\x0a\x01\xff', 'latin1')), {}, '3'],
        [good.subarray(0, 8), {}, '3'],
        [Buffer.alloc(0), {}, '3'],
        [Buffer.concat([good, good]), {}, '3'],
        [framed(Buffer.from('x'), 1), {}, '12'],
        [framed(Buffer.from('x'), 0, 0xffffffff), {}, '8'],
        [good, { ':path': '/centrifugal.centrifugo.api.CentrifugoApi/Nothing' }, '12'],
        [good, { ':path': '/api/publish' }, '12'],
      ];
      for (const [body, headers, status] of cases) {
        assert.equal((await ask(body, headers))['grpc-status'], status, `${body.toString('latin1')} ${JSON.stringify(headers)}`);
      }
      assert.equal((await ask(good, { 'content-type': 'application/json' }))[':status'], 415);
      assert.equal((await ask(undefined, { ':method': 'GET' }))[':status'], 405);
    });

    it('that is no HTTP/2 ends the connection', TEST, async () => {
      for (const bytes of ['GET / HTTP/1.1\r\nHost: x\r\n\r\n', '\x16\x03\x01'.padEnd(600, 'x'), 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'.padEnd(200, '\xff')]) {
        const socket = net.connect(port, '127.0.0.1');
        socket.resume().write(Buffer.from(bytes, 'latin1'));
        await closed(socket);
      }
    });

    it('of a flood ends the connection, and nobody else notices', TEST, async () => {
      const frame = (type, flags, stream, payload = Buffer.alloc(0)) => {
        const head = Buffer.alloc(9);
        head.writeUIntBE(payload.length, 0, 3);
        head[3] = type;
        head[4] = flags;
        head.writeUInt32BE(stream, 5);
        return Buffer.concat([head, payload]);
      };
      const preface = Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), frame(4, 0, 0)]);
      // :method POST, :scheme http, and a path of one letter (RFC 7541 6.1, 6.2.2).
      const call = Buffer.concat([Buffer.from([0x83, 0x86, 0x04, 1]), Buffer.from('x')]);
      const rapidResets = Buffer.concat(Array.from({ length: 4000 }, (_, n) => Buffer.concat([
        frame(1, 4, 2 * n + 1, call), frame(3, 0, 2 * n + 1, Buffer.from([0, 0, 0, 8])),
      ])));
      // A header that goes on and on, of which no end is ever said.
      const endless = Buffer.concat([frame(1, 0, 1, call), ...Array.from({ length: 4000 }, () => frame(9, 0, 1, Buffer.alloc(64, 0x84)))]);
      const bomb = Buffer.concat([frame(1, 0, 1, Buffer.concat([Buffer.from([0x40, 1, 0x61, 0x7f, 0x81, 0x1e]), Buffer.alloc(4000, 0x61)])),
        ...Array.from({ length: 60 }, () => frame(9, 0, 1, Buffer.alloc(16_000, 0xbe)))]);
      for (const [name, bytes] of Object.entries({ rapidResets, endless, bomb })) {
        const socket = net.connect(port, '127.0.0.1');
        socket.resume().write(Buffer.concat([preface, bytes]));
        await closed(socket);
        assert.ok((await api.Publish({ channel: 'silent', data: json(name) })).result, name);
      }
      // Pings and settings are answered; a peer that does not read the answers is not read either.
      for (const flooding of [frame(6, 0, 0, Buffer.alloc(8)), frame(4, 0, 0)]) {
        const socket = net.connect(port, '127.0.0.1');
        socket.on('error', () => {}); // a reset is an end as well
        socket.pause();
        socket.write(preface);
        const flood = Buffer.concat(Array.from({ length: 10_000 }, () => flooding));
        for (let round = 0; round < 40; round += 1) socket.write(flood);
        assert.ok((await api.Publish({ channel: 'silent', data: json(1) })).result);
        socket.destroy();
      }
      const { result: { nodes: [node] } } = await api.Info();
      assert.ok(node.process.rss < 400e6, `${node.process.rss} bytes`);
    });
  });
});

describe('the configuration of gRPC', () => {
  it('wants a key, and says so', TEST, async () => {
    const port = await freePort();
    const { code, stderr, stdout } = await run(['config', 'check'], {
      env: { THRONG_GRPC_API_ENABLED: 'true', THRONG_HTTP_SERVER_PORT: String(port) },
    });
    assert.equal(code, 1);
    assert.match(stdout + stderr, /GRPC_API_ENABLED.*set grpc_api\.key, or grpc_api\.insecure/);
  });

  it('says which port is taken', TEST, async () => {
    const holder = net.createServer().listen(0, '127.0.0.1');
    await once(holder, 'listening');
    const { port } = holder.address();
    const { code, stderr } = await run(['serve', '--dev', '--grpc_api.enabled', '--grpc_api.port', String(port)], {
      env: { THRONG_HTTP_SERVER_PORT: String(await freePort()) },
    });
    holder.close();
    assert.notEqual(code, 0);
    assert.match(stderr, new RegExp(`${port}.*holds it; stop it, or set grpc_api.port`));
  });
});

describe('a restart and the API over gRPC', () => {
  let throng;
  let runtime;
  const pids = [];

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

  it('fails no call', { timeout: 180_000 }, async () => {
    const [port, rpc] = [await freePort(), await freePort()];
    const env = { XDG_RUNTIME_DIR: runtime };
    throng = await Throng.start({ port, config: settings(port, rpc), env });
    let pid = throng.process.pid;
    pids.push(pid);
    const api = apiAt(rpc, KEY);
    let going = true;
    let made = 0;
    const failed = [];
    const publishing = Array.from({ length: 4 }, async () => {
      while (going) {
        try {
          const { error } = await api.Publish({ channel: 'chat:restart', data: json(made) });
          assert.equal(error, undefined);
          made += 1;
        } catch (error) {
          failed.push(error);
          return;
        }
      }
    });
    for (let round = 0; round < 3; round += 1) {
      const before = made;
      const ran = await run(['restart', '--json', '--pid', String(pid)], { env });
      assert.equal(ran.code, 0, `${ran.stdout}${ran.stderr}`);
      pid = JSON.parse(ran.stdout).outcome.to.pid;
      pids.push(pid);
      while (made < before + 200 && failed.length === 0) await new Promise(setImmediate);
    }
    going = false;
    await Promise.all(publishing);
    assert.deepEqual(failed.map(({ code, message }) => `${code} ${message}`), []);
    const { result } = await api.History({ channel: 'chat:restart' });
    assert.equal(result.offset, made);
    api.raw.close();
  });
});
