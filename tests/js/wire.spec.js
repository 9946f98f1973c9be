// The protocol without an SDK: what a bare WebSocket sees, and what becomes of bad input.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, describe, it } from 'node:test';

import WebSocket from 'ws';

import { API_KEY, Throng, configuration, freePort, gather } from './throng.js';

const TEST = { timeout: 20_000 };

let throng;

before(async () => {
  const port = await freePort();
  const base = configuration(port);
  throng = await Throng.start({
    port,
    config: {
      ...base,
      uni_websocket: { enabled: true },
      client: {
        ...base.client,
        allowed_origins: ['https://app.example.com', 'https://*.shop.example'],
        ping_interval: '1s',
        pong_timeout: '500ms',
        stale_close_delay: '1s',
      },
    },
  });
});
after(() => throng?.stop());

async function open(url = throng.websocket, options) {
  const socket = new WebSocket(url, options);
  const frames = gather(socket, 'message', (data) => data.toString());
  await once(socket, 'open');
  return Object.assign(socket, { frames });
}

/** Lines of all frames but pings. */
function lines(frames) {
  const all = frames.got.flatMap((frame) => frame.split('\n'));
  return all.filter((line) => line && line !== '{}').map((line) => JSON.parse(line));
}

async function talk(...commands) {
  const socket = await open();
  socket.send(commands.map((command) => JSON.stringify(command)).join('\n'));
  return socket;
}

async function closing(socket) {
  const [code, reason] = await once(socket, 'close');
  return { code, reason: reason.toString() };
}

async function refusedUpgrade(url, options) {
  const socket = new WebSocket(url, options);
  const [, response] = await once(socket, 'unexpected-response');
  return response.statusCode;
}

describe('one frame', () => {
  it('carries many commands, answered in order', TEST, async () => {
    const socket = await talk(
      { id: 1, connect: {} },
      { id: 2, subscribe: { channel: 'chat:pipelined' } },
      { id: 3, publish: { channel: 'chat:pipelined', data: { a: 1 } } },
      { id: 4, presence_stats: { channel: 'chat:pipelined' } },
      { id: 5, rpc: { method: 'none' } },
    );
    for (let n = 1; !lines(socket.frames).some(({ id }) => id === 5); n += 1) await socket.frames.until(n);
    const replies = lines(socket.frames);
    assert.deepEqual(replies.filter(({ id }) => id).map(({ id }) => id), [1, 2, 3, 4, 5]);
    const [connect, subscribe, , stats, rpc] = replies.filter(({ id }) => id);
    assert.equal(connect.connect.ping, 1);
    assert.equal(connect.connect.pong, true);
    assert.equal(subscribe.subscribe.recoverable, true);
    assert.deepEqual(stats.presence_stats, { num_clients: 1, num_users: 1 });
    assert.deepEqual(rpc.error, { code: 108, message: 'not available' });
    const [push] = replies.filter(({ push }) => push?.pub);
    assert.deepEqual(push.push.pub.data, { a: 1 });
    assert.equal(push.push.pub.offset, 1);
    assert.equal(push.push.pub.epoch, subscribe.subscribe.epoch);
    socket.terminate();
  });

  it('that is not a command closes with 3501', TEST, async () => {
    for (const text of ['', 'hello', '{"id":1}', '{"id":1,"subscribe":{"channel":"news"}}', '[]', '{"id":1,"connect":{}}\n{"id":2,"connect":{}}']) {
      const socket = await open();
      socket.send(text);
      assert.equal((await closing(socket)).code, 3501, JSON.stringify(text));
    }
  });

  it('over the size limit closes with 1009', TEST, async () => {
    const socket = await open();
    socket.send('x'.repeat(65_537));
    assert.equal((await closing(socket)).code, 1009);
  });

  it('that is not UTF-8 closes with 1007', TEST, async () => {
    const socket = await open();
    socket.send(Buffer.from([0x7b, 0xff, 0xfe, 0x7d]), { binary: false });
    assert.equal((await closing(socket)).code, 1007);
  });
});

describe('silence', () => {
  it('before the first command closes with 3502', TEST, async () => {
    assert.equal((await closing(await open())).code, 3502);
  });

  it('to a ping closes with 3012', TEST, async () => {
    const socket = await talk({ id: 1, connect: {} });
    assert.equal((await closing(socket)).code, 3012);
    assert.ok(socket.frames.got.includes('{}'));
  });

  it('broken by a pong keeps the connection', TEST, async () => {
    const socket = await talk({ id: 1, connect: {} });
    let pings = 0;
    await new Promise((resolve, reject) => {
      socket.on('close', (code) => reject(new Error(`closed with ${code}`)));
      socket.on('message', (data) => {
        if (data.toString() !== '{}') return;
        socket.send('{}');
        pings += 1;
        if (pings === 3) resolve();
      });
    });
    socket.removeAllListeners('close');
    socket.terminate();
  });
});

describe('the handshake', () => {
  it('lets in who sends no Origin, and the origins that are allowed', TEST, async () => {
    for (const options of [{}, { origin: 'https://app.example.com' }, { origin: 'https://eu.shop.example' }, { origin: 'HTTPS://APP.example.com' }]) {
      (await open(throng.websocket, options)).terminate();
    }
  });

  it('refuses any other with 403', TEST, async () => {
    for (const origin of ['https://evil.example', 'null', 'https://app.example.com.evil.example', `http://127.0.0.1:${throng.port}`]) {
      assert.equal(await refusedUpgrade(throng.websocket, { origin }), 403, origin);
    }
  });

  it('takes an empty Sec-WebSocket-Protocol for none', TEST, async () => {
    const socket = new WebSocket(throng.websocket, { headers: { 'Sec-WebSocket-Protocol': '' } });
    const [response] = await once(socket, 'upgrade');
    assert.equal(response.headers['sec-websocket-protocol'], undefined);
    socket.terminate();
  });

  it('answers a plain GET without an upgrade, and keeps serving', TEST, async () => {
    const response = await fetch(throng.websocket.replace('ws:', 'http:'));
    assert.ok(response.status >= 400 && response.status < 500, String(response.status));
    assert.equal((await fetch(`${throng.http}/health`)).status, 200);
  });
});

describe('the uni WebSocket', () => {
  it('pushes what is published to the channels it asked for', TEST, async () => {
    const socket = await open(throng.uniWebsocket);
    socket.send(JSON.stringify({ subs: { news: {}, 'closed:room': {} } }));
    await socket.frames.until(1);
    const { connect } = lines(socket.frames)[0];
    assert.match(connect.client, /^[0-9a-f-]{36}$/);
    assert.deepEqual(Object.keys(connect.subs), ['news'], 'what is not permitted is skipped');
    await throng.publish('news', { text: 'hi' });
    for (let n = 2; !lines(socket.frames).some(({ pub }) => pub); n += 1) await socket.frames.until(n);
    const push = lines(socket.frames).find(({ pub }) => pub);
    assert.equal(push.channel, 'news');
    assert.deepEqual(push.pub.data, { text: 'hi' });
    socket.terminate();
  });

  it('takes its request from the address too', TEST, async () => {
    const request = encodeURIComponent(JSON.stringify({ subs: { news: {} } }));
    const socket = await open(`${throng.uniWebsocket}?cf_connect=${request}`);
    await socket.frames.until(1);
    assert.deepEqual(Object.keys(lines(socket.frames)[0].connect.subs), ['news']);
    socket.terminate();
  });

  it('says why it closes: a disconnect push, then the close frame', TEST, async () => {
    const socket = await open(throng.uniWebsocket);
    socket.send(JSON.stringify({ subs: { 'nowhere:room': {} } }));
    const { code, reason } = await closing(socket);
    assert.equal(code, 3501);
    assert.deepEqual(lines(socket.frames).at(-1), { disconnect: { code, reason } });
  });
});

describe('the server API', () => {
  it('wants its key', TEST, async () => {
    const body = { channel: 'news', data: 1 };
    assert.equal((await throng.post('/api/publish', body)).status, 401);
    assert.equal((await throng.post('/api/publish', body, { 'X-API-Key': 'wrong' })).status, 401);
    assert.equal((await throng.post('/api/publish', body, { 'X-API-Key': API_KEY })).status, 200);
    assert.equal((await throng.post('/api/publish', body, { Authorization: `apikey ${API_KEY}` })).status, 200);
    assert.equal((await throng.post(`/api/publish?api_key=${API_KEY}`, body)).status, 200);
  });

  it('answers malformed requests by their kind', TEST, async () => {
    const headers = { 'X-API-Key': API_KEY };
    const status = async (where, options) => (await fetch(throng.http + where, { headers, ...options })).status;
    assert.equal(await status('/api/publish', { method: 'GET' }), 405);
    assert.equal(await status('/api/publish', { method: 'POST', body: '{' }), 400);
    assert.equal(await status('/api/nothing', { method: 'POST', body: '{}' }), 404);
    const unknown = await throng.post('/api/publish', { channel: 'nowhere:room', data: 1 }, headers);
    assert.equal(unknown.text, '{"error":{"code":102,"message":"unknown channel"}}');
    await assert.rejects(throng.api('publish', { channel: 'news' }), { code: 107 });
    await assert.rejects(throng.api('publish', { data: 1 }), { code: 107 });
    await assert.rejects(throng.api('history', { channel: 'plain' }), { code: 108 });
  });

  it('broadcasts, a result or an error for each channel', TEST, async () => {
    const { responses } = await throng.api('broadcast', { channels: ['chat:one', 'nowhere:two', 'three'], data: 1 });
    assert.equal(responses[0].result.offset, 1);
    assert.equal(responses[1].error.code, 102);
    assert.deepEqual(responses[2], { result: {} });
  });

  it('publishes once per idempotency key', TEST, async () => {
    const first = await throng.publish('chat:once', 1, { idempotency_key: 'k' });
    assert.deepEqual(await throng.publish('chat:once', 2, { idempotency_key: 'k' }), first);
    const { publications } = await throng.api('history', { channel: 'chat:once', limit: -1 });
    assert.deepEqual(publications.map(({ data }) => data), [1]);
  });

  it('drops a publication whose version is not newer', TEST, async () => {
    await throng.publish('chat:versions', 'new', { version: 5 });
    await throng.publish('chat:versions', 'old', { version: 4 });
    const { publications } = await throng.api('history', { channel: 'chat:versions', limit: -1 });
    assert.deepEqual(publications.map(({ data }) => data), ['new']);
  });

  it('runs a batch, whose answer is not wrapped', TEST, async () => {
    const { body } = await throng.post('/api/batch', {
      commands: [{ publish: { channel: 'chat:batch', data: 1 } }, { presence_stats: { channel: 'chat:batch' } }, { publish: { channel: 'nowhere:x', data: 1 } }],
    }, { 'X-API-Key': API_KEY });
    assert.equal(body.replies[0].publish.offset, 1);
    assert.deepEqual(body.replies[1].presence_stats, { num_clients: 0, num_users: 0 });
    assert.equal(body.replies[2].error.code, 102);
  });

  it('lists channels and describes the node', TEST, async () => {
    const socket = await talk({ id: 1, connect: {} }, { id: 2, subscribe: { channel: 'chat:listed' } });
    for (let n = 1; !lines(socket.frames).some(({ id }) => id === 2); n += 1) await socket.frames.until(n);
    assert.deepEqual(await throng.api('channels', { pattern: 'chat:list*' }), { channels: { 'chat:listed': { num_clients: 1 } } });
    const { nodes: [node] } = await throng.api('info');
    assert.ok(node.num_clients >= 1);
    assert.ok(node.num_subs >= 1);
    socket.terminate();
  });
});
