// What docs/compatibility.md says and no other test shows: the server as somebody finds it who comes from Centrifugo.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import http from 'node:http';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';

import { Centrifuge } from 'centrifuge';
import WebSocket from 'ws';

import { launch, openPage } from './browser.js';
import { ENCODINGS } from './encodings.js';
import { API_KEY, HMAC_KEY, Throng, configuration, emptyDirectory, freePort, gather, inSeconds, jwt, nextEvent, run } from './throng.js';

const TEST = { timeout: 30_000 };

/** Everything that a test has started, to be ended behind it. */
const started = [];
after(() => Promise.all(started.map((throng) => throng.stop())));

async function start(options) {
  const throng = await Throng.start(options);
  started.push(throng);
  return throng;
}

async function open(url) {
  const socket = new WebSocket(url);
  const frames = gather(socket, 'message', (data) => data.toString());
  await once(socket, 'open');
  return Object.assign(socket, { frames });
}

/** What a server without a client library answers to these commands, one reply for each. */
async function talk(throng, ...commands) {
  const socket = await open(throng.websocket);
  const replies = [];
  const all = new Promise((resolve) => {
    socket.on('message', (data) => {
      replies.push(...data.toString().split('\n').filter((line) => line !== '{}').map((line) => JSON.parse(line)));
      if (commands.every(({ id }) => replies.some((reply) => reply.id === id))) resolve();
    });
    socket.on('close', resolve);
  });
  socket.send(commands.map((command) => JSON.stringify(command)).join('\n'));
  await all;
  return { socket, replies, reply: (id) => replies.find((reply) => reply.id === id) };
}

async function closing(socket) {
  const [code, reason] = await once(socket, 'close');
  return { code, reason: reason.toString() };
}

describe('a server as Centrifugo’s is configured', () => {
  let throng;

  before(async () => {
    const port = await freePort();
    const base = configuration(port);
    const [chat] = base.channel.namespaces;
    throng = await start({
      port,
      config: {
        ...base,
        init: { enabled: true },
        client: { ...base.client, history_max_publication_limit: 3, connect_include_server_time: true },
        channel: {
          ...base.channel,
          namespaces: [
            ...base.channel.namespaces,
            { ...chat, name: 'cache', force_recovery_mode: 'cache', auto_cache_recover: true },
          ],
        },
        // None of these does anything here; with other values than the defaults they are told of.
        websocket: { read_buffer_size: 512, write_buffer_size: 512, use_write_buffer_pool: true, write_timeout: '2s' },
        uni_websocket: { enabled: true, read_buffer_size: 512, write_buffer_size: 512, use_write_buffer_pool: true, write_timeout: '2s', join_push_messages: true },
        prometheus: { instrument_http_handlers: true, recovered_publications_histogram: true, native_histograms: true },
        usage_stats: { disabled: true },
        node: { info_metrics_aggregate_interval: '10s' },
        enable_unreleased_features: true,
      },
      env: {
        CENTRIFUGO_CLIENT_CONCURRENCY: '8',
        CENTRIFUGO_CLIENT_CHANNEL_POSITION_MAX_TIME_LAG: '1s',
      },
    });
  });

  it('init warms a connection', TEST, async () => {
    const answer = await fetch(`${throng.http}/connection/init`);
    assert.equal(answer.status, 204);
  });

  it('options without an effect are told of', TEST, async () => {
    for (const option of [
      'websocket.read_buffer_size', 'websocket.write_buffer_size', 'websocket.use_write_buffer_pool', 'websocket.write_timeout',
      'uni_websocket.read_buffer_size', 'uni_websocket.write_buffer_size', 'uni_websocket.use_write_buffer_pool', 'uni_websocket.write_timeout', 'uni_websocket.join_push_messages',
      'prometheus.instrument_http_handlers', 'prometheus.recovered_publications_histogram', 'prometheus.native_histograms',
      'usage_stats.disabled', 'node.info_metrics_aggregate_interval', 'enable_unreleased_features',
      'CENTRIFUGO_CLIENT_CONCURRENCY', 'CENTRIFUGO_CLIENT_CHANNEL_POSITION_MAX_TIME_LAG',
    ]) {
      const said = throng.lines.filter((line) => line.includes(` ${option} = `) || line.includes(`"${option} = `));
      assert.equal(said.length, 1, option);
      assert.match(said[0], /: has no effect/, option);
    }
  });

  it('health answers every method, and tells when the server stops', TEST, async () => {
    for (const method of ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS']) {
      const answer = await fetch(`${throng.http}/health`, { method });
      assert.equal(answer.status, 200, method);
      assert.equal(answer.headers.get('content-type'), 'application/json');
      assert.equal(await answer.text(), method === 'HEAD' ? '' : '{}');
    }
    const port = await freePort();
    const going = await start({ port, config: { ...configuration(port), shutdown: { timeout: '20s', spread: '10s' } } });
    // Somebody who is still there while the others are closed.
    const clients = await Promise.all(Array.from({ length: 40 }, () => talk(going, { id: 1, connect: {} })));
    const first = Promise.race(clients.map(({ socket }) => once(socket, 'close')));
    const agent = new http.Agent({ keepAlive: true });
    const ask = () => new Promise((resolve, reject) => {
      http.get(`${going.http}/health`, { agent }, (answer) => {
        answer.resume().on('end', () => resolve(answer.statusCode));
      }).on('error', reject);
    });
    assert.equal(await ask(), 200);
    going.process.kill('SIGTERM');
    assert.equal((await first)[0], 3001);
    assert.equal(await ask(), 503);
    agent.destroy();
    going.process.kill('SIGTERM');
  });

  it('what is not a method of the open source is 404', TEST, async () => {
    const headers = { 'X-API-Key': API_KEY };
    for (const method of [
      'connections', 'update_user_status', 'get_user_status', 'delete_user_status', 'block_user', 'unblock_user', 'revoke_token',
      'invalidate_user_tokens', 'device_register', 'user_topic_list', 'send_push_notification', 'cancel_push',
    ]) {
      assert.equal((await throng.post(`/api/${method}`, {}, headers)).status, 404, method);
    }
    const { body } = await throng.post('/api/batch', { commands: [{ connections: {} }, { info: {} }] }, headers);
    assert.deepEqual(body.replies[0], { error: { code: 104, message: 'method not found' } });
    assert.equal(body.replies[1].info.nodes.length, 1);
  });

  it('send closes with 3508', TEST, async () => {
    const { socket } = await talk(throng, { id: 1, connect: {} });
    socket.send('{"send":{"data":{"n":1}}}');
    assert.deepEqual(await closing(socket), { code: 3508, reason: 'not available' });
  });

  it('fields of what is not there are passed over', TEST, async () => {
    const { socket, reply } = await talk(
      throng,
      { id: 1, connect: { flag: 3, profile: 'p', dict: { id: 'x' }, headers: { a: 'b' } } },
      { id: 2, subscribe: { channel: 'news', flag: 1 } },
    );
    assert.ok(reply(1).connect.client);
    assert.equal(reply(1).connect.flag, undefined);
    assert.deepEqual(reply(2).subscribe, {});
    socket.terminate();
  });

  it('a reply about history has no more than the limit', TEST, async () => {
    for (const n of [1, 2, 3, 4, 5]) await throng.publish('chat:many', n);
    const { socket, reply } = await talk(
      throng,
      { id: 1, connect: {} },
      { id: 2, history: { channel: 'chat:many', limit: -1 } },
      { id: 3, history: { channel: 'chat:many', limit: 100, reverse: true } },
    );
    assert.deepEqual(reply(2).history.publications.map(({ data }) => data), [1, 2, 3]);
    assert.deepEqual(reply(3).history.publications.map(({ data }) => data), [5, 4, 3]);
    assert.equal(reply(2).history.offset, 5);
    socket.terminate();
  });

  it('a cache gives its newest unasked', TEST, async () => {
    await throng.publish('cache:price', 1);
    await throng.publish('cache:price', 2);
    const { socket, reply } = await talk(throng, { id: 1, connect: {} }, { id: 2, subscribe: { channel: 'cache:price' } });
    assert.deepEqual(reply(2).subscribe.publications.map(({ data }) => data), [2]);
    assert.equal(reply(2).subscribe.recovered, true);
    socket.terminate();
  });

  for (const { encoding, Centrifuge: Client } of ENCODINGS) {
    it(`every field of the protocol is understood in ${encoding}`, TEST, async () => {
      const token = jwt({ sub: 'ann', exp: inSeconds(600), info: { name: 'Ann' }, subs: { 'chat:given': { data: { given: true } } } });
      const client = new Client(throng.websocket, { websocket: WebSocket, token, name: 'fields', version: '1', data: { hello: 1 }, getToken: async () => token });
      client.on('error', () => {});
      const connected = nextEvent(client, 'connected');
      const given = nextEvent(client, 'subscribed');
      client.connect();
      const context = await connected;
      assert.match(context.client, /^[0-9a-f-]{36}$/);
      assert.deepEqual((await given).data, { given: true });
      const channel = `chat:fields-${encoding}`;
      const sub = client.newSubscription(channel, {
        token: jwt({ sub: 'ann', channel, exp: inSeconds(600), info: { role: 'r' }, data: { sub: true } }), joinLeave: true, positioned: true, recoverable: true,
      });
      const [subscribed, joined, heard] = [nextEvent(sub, 'subscribed'), nextEvent(sub, 'join'), nextEvent(sub, 'publication')];
      sub.subscribe();
      const { positioned, recoverable, streamPosition, data } = await subscribed;
      assert.deepEqual([positioned, recoverable, data], [true, true, { sub: true }]);
      assert.match(streamPosition.epoch, /^[A-Za-z]{8}$/);
      const { info: who } = await joined;
      assert.deepEqual([who.user, who.client, who.connInfo, who.chanInfo], ['ann', context.client, { name: 'Ann' }, { role: 'r' }]);
      await sub.publish({ n: 1 });
      const publication = await heard;
      assert.deepEqual([publication.data, publication.offset, publication.info.user], [{ n: 1 }, 1, 'ann']);
      await throng.publish(channel, { n: 2 }, { tags: { colour: 'red' } });
      const history = await sub.history({ limit: 10, since: { offset: 0, epoch: streamPosition.epoch }, reverse: false });
      assert.deepEqual(history.publications.map((one) => [one.offset, one.data, one.tags?.colour]), [[1, { n: 1 }, undefined], [2, { n: 2 }, 'red']]);
      assert.equal(history.offset, 2);
      const back = await sub.history({ limit: 1, reverse: true });
      assert.deepEqual(back.publications.map(({ offset }) => offset), [2]);
      const presence = await sub.presence();
      assert.deepEqual(Object.keys(presence.clients), [context.client]);
      assert.deepEqual(await sub.presenceStats(), { numClients: 1, numUsers: 1 });
      await assert.rejects(client.rpc('nobody', {}), { code: 108 });
      const left = nextEvent(sub, 'unsubscribed');
      sub.unsubscribe();
      assert.equal((await left).code, 0);
      client.disconnect();
    });
  }
});

describe('who is not let in', () => {
  const refusing = (port, more = {}) => ({
    ...configuration(port),
    client: {
      token: { hmac_secret_key: HMAC_KEY },
      allowed_origins: ['https://a.example'],
      connect_code_to_unidirectional_disconnect: {
        enabled: true,
        transforms: [{ code: 109, to: { code: 4501, reason: 'log in' } }],
      },
      ...more,
    },
    uni_websocket: { enabled: true },
    uni_sse: {
      enabled: true,
      connect_code_to_http_response: {
        enabled: true,
        transforms: [{ code: 109, to: { status_code: 401 } }, { code: 3500, to: { status_code: 403, body: 'who are you?' } }],
      },
    },
    uni_http_stream: { enabled: true },
  });

  const expired = jwt({ sub: 'ann', exp: 1 });
  const good = jwt({ sub: 'ann', exp: inSeconds(600) });

  it('errors of a connect are closes and statuses of one’s choice', TEST, async () => {
    const port = await freePort();
    const throng = await start({ port, config: refusing(port) });
    const socket = await open(throng.uniWebsocket);
    socket.send(JSON.stringify({ token: expired }));
    assert.deepEqual(await closing(socket), { code: 4501, reason: 'log in' });
    assert.deepEqual(JSON.parse(socket.frames.got.at(-1)), { disconnect: { code: 4501, reason: 'log in' } });

    const ask = async (transport, token, origin) => {
      const answer = await fetch(`${throng.http}/connection/${transport}`, {
        method: 'POST', body: JSON.stringify({ token }), headers: origin ? { Origin: origin } : {},
      });
      return answer;
    };
    const told = async (...question) => {
      const answer = await ask(...question);
      return [answer.status, await answer.text()];
    };
    assert.deepEqual(await told('uni_sse', expired), [401, 'token expired']);
    assert.deepEqual(await told('uni_sse', 'x.y.z'), [403, 'who are you?']);
    // No token, and nobody listed what becomes of that.
    assert.deepEqual(await told('uni_sse', ''), [500, 'Internal Server Error']);
    const page = await ask('uni_sse', expired, 'https://a.example');
    assert.equal(page.headers.get('access-control-allow-origin'), 'https://a.example');
    assert.equal(page.headers.get('content-type'), 'text/plain; charset=utf-8');
    await page.text();
    // Where it is off, the response has begun by then.
    const [status, text] = await told('uni_http_stream', expired);
    assert.equal(status, 200);
    assert.deepEqual(JSON.parse(text), { disconnect: { code: 4501, reason: 'log in' } });

    const answer = await ask('uni_sse', good);
    assert.equal(answer.status, 200);
    assert.match(answer.headers.get('content-type'), /^text\/event-stream/);
    const reader = answer.body.getReader();
    const { value } = await reader.read();
    assert.match(Buffer.from(value).toString(), /^\r\n(data: \{"connect":.*)?/);
    await reader.cancel();
  });

  it('a status waits for the backend, over a restart', TEST, async () => {
    const runtime = await emptyDirectory();
    const asked = [];
    let heard;
    const hears = new Promise((resolve) => { heard = resolve; });
    const application = http.createServer((request, response) => {
      request.resume();
      asked.push(response);
      if (asked.length === 2) heard();
    }).listen(0, '127.0.0.1');
    await once(application, 'listening');
    const port = await freePort();
    const endpoint = `http://127.0.0.1:${application.address().port}/`;
    const config = refusing(port, { proxy: { connect: { enabled: true, endpoint, timeout: '20s' } } });
    const transforms = [{ code: 4502, to: { status_code: 402, body: 'pay' } }];
    config.uni_sse.connect_code_to_http_response.transforms = transforms;
    const throng = await start({ port, config, env: { XDG_RUNTIME_DIR: runtime } });
    const pids = [throng.process.pid];
    try {
      const answers = ['a', 'b'].map(() => fetch(`${throng.http}/connection/uni_sse`, { method: 'POST', body: '{}' }));
      await hears;
      const restarted = await run(['restart', '--json', '--pid', String(pids[0])], { env: { XDG_RUNTIME_DIR: runtime } });
      assert.equal(restarted.code, 0, restarted.stdout + restarted.stderr);
      pids.push(JSON.parse(restarted.stdout).outcome.to.pid);
      asked[0].end(JSON.stringify({ disconnect: { code: 4502, reason: 'no money' } }));
      asked[1].end(JSON.stringify({ result: { user: 'ann' } }));
      const got = await Promise.all(answers.map(async (answer) => (await answer)));
      assert.deepEqual(got.map(({ status }) => status).sort(), [200, 402]);
      assert.equal(await got.find(({ status }) => status === 402).text(), 'pay');
      const lines = got.find(({ status }) => status === 200).body.getReader();
      let text = '';
      while (!text.includes('"connect"')) text += Buffer.from((await lines.read()).value).toString();
      assert.match(text, /^\r\ndata: \{"connect":\{"client":/);
      await lines.cancel();
    } finally {
      application.closeAllConnections();
      application.close();
      for (const pid of pids.slice(1)) process.kill(pid, 'SIGKILL');
    }
  });
});

describe('the internal port', () => {
  it('the internal port takes what is not for clients', TEST, async () => {
    const port = await freePort();
    const inner = await freePort();
    const base = configuration(port);
    const config = {
      ...base,
      http_server: { ...base.http_server, internal_port: String(inner), internal_address: '127.0.0.1' },
      prometheus: { enabled: true },
      init: { enabled: true },
    };
    const at = async (on, where, options) => (await fetch(`http://127.0.0.1:${on}${where}`, options)).status;
    const call = { method: 'POST', headers: { 'X-API-Key': API_KEY }, body: '{}' };
    for (const external of [false, true]) {
      const throng = await start({ port, config: { ...config, http_api: { ...config.http_api, external } } });
      assert.equal(await at(inner, '/health'), 200);
      assert.equal(await at(port, '/health'), 404);
      assert.equal(await at(inner, '/metrics'), 200);
      assert.equal(await at(port, '/metrics'), 404);
      assert.equal(await at(inner, '/api/info', call), 200);
      assert.equal(await at(port, '/api/info', call), external ? 200 : 404);
      assert.equal(await at(port, '/connection/init'), 204);
      assert.equal(await at(inner, '/connection/websocket'), 404);
      await throng.stop();
    }
  });
});

describe('a configuration', () => {
  // The same in the four ways in which Centrifugo's users write it.
  const json = (port) => JSON.stringify({
    http_server: { address: '127.0.0.1', port },
    health: { enabled: true },
    http_api: { key: 'api' },
    client: {
      allowed_origins: ['https://a.example', 'https://b.example'],
      ping_interval: 40_000_000_000,
      channel_limit: 2,
      token: { hmac_secret_key: 'secret' },
    },
    channel: {
      without_namespace: { presence: true, allow_subscribe_for_client: true },
      namespaces: [{ name: 'chat', history_size: 10, history_ttl: '1h30m', force_recovery: true, allow_subscribe_for_client: true }],
    },
  });
  const yaml = (port) => `
http_server:
  address: 127.0.0.1
  port: ${port}
health: {enabled: true}
http_api: {key: api}
client:
  allowed_origins: [https://a.example, https://b.example]
  ping_interval: 40s
  channel_limit: 2
  token: {hmac_secret_key: secret}
channel:
  without_namespace: {presence: true, allow_subscribe_for_client: true}
  namespaces:
    - name: chat
      history_size: 10
      history_ttl: 90m
      force_recovery: true
      allow_subscribe_for_client: true
`;
  const toml = (port) => `
[http_server]
address = "127.0.0.1"
port = ${port}
[health]
enabled = true
[http_api]
key = "api"
[client]
allowed_origins = ["https://a.example", "https://b.example"]
ping_interval = "40s"
channel_limit = 2
[client.token]
hmac_secret_key = "secret"
[channel.without_namespace]
presence = true
allow_subscribe_for_client = true
[[channel.namespaces]]
name = "chat"
history_size = 10
history_ttl = "5400s"
force_recovery = true
allow_subscribe_for_client = true
`;
  const compose = (port) => `
services:
  centrifugo:
    image: throng
    command: throng serve
    ports: ["8000:8000"]
    environment:
      CENTRIFUGO_HTTP_SERVER_ADDRESS: 127.0.0.1
      CENTRIFUGO_HTTP_SERVER_PORT: "${port}"
      CENTRIFUGO_HEALTH_ENABLED: "true"
      CENTRIFUGO_HTTP_API_KEY: api
      CENTRIFUGO_CLIENT_ALLOWED_ORIGINS: https://a.example https://b.example
      CENTRIFUGO_CLIENT_PING_INTERVAL: 40s
      CENTRIFUGO_CLIENT_CHANNEL_LIMIT: "2"
      CENTRIFUGO_CLIENT_TOKEN_HMAC_SECRET_KEY: secret
      CENTRIFUGO_CHANNEL_WITHOUT_NAMESPACE_PRESENCE: "true"
      CENTRIFUGO_CHANNEL_WITHOUT_NAMESPACE_ALLOW_SUBSCRIBE_FOR_CLIENT: "1"
      CENTRIFUGO_CHANNEL_NAMESPACES: chat
      CENTRIFUGO_CHANNEL_NAMESPACES_CHAT_HISTORY_SIZE: "10"
      CENTRIFUGO_CHANNEL_NAMESPACES_CHAT_HISTORY_TTL: 1h30m0s
      CENTRIFUGO_CHANNEL_NAMESPACES_CHAT_FORCE_RECOVERY: "true"
      CENTRIFUGO_CHANNEL_NAMESPACES_CHAT_ALLOW_SUBSCRIBE_FOR_CLIENT: "true"
`;

  /** The environment that a compose file gives to its one service. */
  function environmentOf(text) {
    const [, block] = text.split('    environment:\n');
    return Object.fromEntries(block.trim().split('\n').map((line) => {
      const [, name, value] = line.match(/^\s*(\w+): "?(.*?)"?$/);
      return [name, value];
    }));
  }

  /** What a client and a backend see of it; what is a server's own is left out. */
  async function seen(throng) {
    const origins = {};
    for (const origin of ['https://a.example', 'https://b.example', 'https://c.example']) {
      const socket = new WebSocket(throng.websocket, { origin });
      origins[origin] = await Promise.race([
        once(socket, 'open').then(() => 101),
        once(socket, 'unexpected-response').then(([, { statusCode }]) => statusCode),
      ]);
      socket.on('error', () => {});
      socket.terminate();
    }
    const api = async (method, params) => (await throng.post(`/api/${method}`, params, { 'X-API-Key': 'api' })).body;
    const published = await api('publish', { channel: 'chat:a', data: { n: 1 } });
    const { socket, replies } = await talk(
      throng,
      { id: 1, connect: { token: jwt({ sub: 'ann' }, 'secret') } },
      { id: 2, subscribe: { channel: 'chat:a' } },
      { id: 3, subscribe: { channel: 'news' } },
      { id: 4, subscribe: { channel: 'more' } },
      { id: 5, subscribe: { channel: 'nowhere:room' } },
      { id: 6, publish: { channel: 'news', data: 1 } },
    );
    const answers = [
      published, await api('presence_stats', { channel: 'news' }), await api('presence', { channel: 'chat:a' }),
      await api('history', { channel: 'chat:a', limit: 1 }), await api('history', { channel: 'news' }),
    ];
    socket.terminate();
    const unkeyed = (await throng.post('/api/info', {})).status;
    const text = JSON.stringify({ origins, replies, answers, unkeyed });
    return JSON.parse(text.replaceAll(/"[0-9a-f-]{36}"/g, '"an id"').replaceAll(/"epoch":"[A-Za-z]{8}"/g, '"epoch":"an epoch"'));
  }

  it('a file of each kind and an environment mean the same', { timeout: 60_000 }, async () => {
    const got = {};
    for (const [kind, write] of Object.entries({ json, yaml, toml, compose })) {
      const port = await freePort();
      const cwd = await emptyDirectory();
      let throng;
      if (kind === 'compose') {
        throng = await start({ port, cwd, args: ['serve'], env: environmentOf(write(port)) });
      } else {
        // Found in the working directory, as Centrifugo finds it.
        await writeFile(path.join(cwd, `config.${kind}`), write(port));
        throng = await start({ port, cwd, args: ['serve'] });
      }
      assert.equal(throng.lines.filter((line) => line.includes('"level":"warn"')).length, 0, throng.lines.join('\n'));
      got[kind] = await seen(throng);
      await throng.stop();
    }
    assert.deepEqual(got.json.origins, { 'https://a.example': 101, 'https://b.example': 101, 'https://c.example': 403 });
    const of = (id) => got.json.replies.find((reply) => reply.id === id);
    assert.equal(of(1).connect.ping, 40);
    assert.equal(of(2).subscribe.recoverable, true);
    assert.equal(of(4).error.code, 106);
    assert.equal(of(6).error.code, 103);
    assert.deepEqual(got.json.answers.map(({ error }) => error?.code), [undefined, undefined, 108, undefined, 108]);
    assert.equal(got.json.unkeyed, 401);
    assert.deepEqual(got.yaml, got.json);
    assert.deepEqual(got.toml, got.json);
    assert.deepEqual(got.compose, got.json);
  });

  it('variables stand in the file', TEST, async () => {
    const port = await freePort();
    const base = configuration(port);
    const config = { ...base, http_api: { key: 'a ${CENTRIFUGO_VAR_KEY} b' }, client: { token: { hmac_secret_key: '${CENTRIFUGO_VAR_SECRET}' } } };
    const throng = await start({ port, config, env: { CENTRIFUGO_VAR_KEY: 'key', CENTRIFUGO_VAR_SECRET: 'secret' } });
    assert.equal((await throng.post('/api/info', {}, { 'X-API-Key': 'a key b' })).status, 200);
    const { socket, reply } = await talk(throng, { id: 1, connect: { token: jwt({ sub: 'ann' }, 'secret') } });
    assert.ok(reply(1).connect.client);
    socket.terminate();
    const file = path.join(throng.cwd, 'config.json');
    const refused = await run(['checkconfig', '-c', file], { cwd: throng.cwd, env: { CENTRIFUGO_VAR_KEY: 'key' } });
    assert.equal(refused.code, 1);
    assert.match(refused.stdout + refused.stderr, /CENTRIFUGO_VAR_SECRET is not set/);
  });
});

describe('a .env file', () => {
  it('a .env file is read, and the environment is stronger', TEST, async () => {
    const port = await freePort();
    const cwd = await emptyDirectory();
    await writeFile(path.join(cwd, '.env'), `# a comment
CENTRIFUGO_HTTP_SERVER_ADDRESS=127.0.0.1
export CENTRIFUGO_HTTP_SERVER_PORT="${port}"
CENTRIFUGO_HTTP_API_KEY='of the file' # quoted
CENTRIFUGO_NODE_NAME=of-the-file # said
PATH=/nowhere
`);
    const throng = await start({ port, cwd, args: ['serve'], env: { CENTRIFUGO_HTTP_API_KEY: 'of the environment' } });
    const ask = async (key) => throng.post('/api/info', {}, { 'X-API-Key': key });
    assert.equal((await ask('of the file')).status, 401);
    const { status, body } = await ask('of the environment');
    assert.equal(status, 200);
    assert.equal(body.result.nodes[0].name, 'of-the-file');
  });
});

describe('the Swagger page', () => {
  it('the Swagger page shows the server API', TEST, async () => {
    const port = await freePort();
    const inner = await freePort();
    const base = configuration(port);
    const throng = await start({
      port, config: { ...base, swagger: { enabled: true }, http_server: { ...base.http_server, internal_port: String(inner), internal_address: '127.0.0.1' } },
    });
    assert.equal((await fetch(`${throng.http}/swagger`)).status, 404);
    const at = `http://127.0.0.1:${inner}/swagger`;
    const page = await (await fetch(at)).text();
    assert.match(page, /<a href="#publish">\/api\/publish<\/a>/);
    const printed = JSON.parse((await run(['openapi'])).stdout);
    const document = await (await fetch(`${at}/openapi.json`)).json();
    assert.deepEqual(document.paths, printed.paths);
    assert.equal((await fetch(at, { method: 'POST' })).status, 405);
    const browser = await launch();
    try {
      const tab = await openPage(browser, at);
      assert.equal(await tab.locator('section').count(), Object.keys(printed.paths).length);
      assert.ok(await tab.locator('#publish td code', { hasText: 'idempotency_key' }).isVisible());
    } finally {
      await browser.close();
    }
  });
});

describe('the command line', () => {
  it('flags and the default command are Centrifugo’s', TEST, async () => {
    const port = await freePort();
    const inner = await freePort();
    const cwd = await emptyDirectory();
    const pidFile = path.join(cwd, 'pid');
    const log = path.join(cwd, 'log');
    const throng = await start({
      port,
      cwd,
      args: [
        '-a', '127.0.0.1', '-p', String(port), '--http_server.internal_address=127.0.0.1', `--http_server.internal_port=${inner}`,
        '--engine.type=memory', '--broker.enabled=false', '--broker.type', 'memory', '--presence_manager.enabled=false', '--presence_manager.type=memory',
        '--map_broker.type=memory', '--log.level=debug', '--log.file', log, '--pid_file', pidFile,
        '--debug.enabled', '--admin.enabled=true', '--admin.external', '--admin.insecure', '--prometheus.enabled', '--swagger.enabled', '--health.enabled',
        '--uni_websocket.enabled', '--uni_sse.enabled', '--uni_http_stream.enabled', '--sse.enabled', '--http_stream.enabled', '--init.enabled',
        '--client.insecure', '--http_api.insecure', '--http_api.external', '--grpc_api.enabled=false', '--grpc_api.port=10000',
        '--uni_grpc.enabled=false', '--uni_grpc.port', '11000',
      ],
    });
    assert.equal(Number(await readFile(pidFile, 'utf8')), throng.process.pid);
    assert.equal((await fetch(`http://127.0.0.1:${inner}/health`)).status, 200);
    // No key, no token, no permission: insecure.
    assert.equal((await throng.post('/api/publish', { channel: 'a', data: 1 })).status, 200);
    const { socket, reply } = await talk(throng, { id: 1, connect: {} }, { id: 2, subscribe: { channel: 'a' } });
    assert.deepEqual(reply(2).subscribe, {});
    socket.terminate();
    for (const transport of ['uni_sse', 'uni_http_stream', 'sse', 'http_stream']) {
      const answer = await fetch(`${throng.http}/connection/${transport}`, { method: 'POST', body: '{"id":1,"connect":{}}' });
      assert.equal(answer.status, 200, transport);
      await answer.body.cancel();
    }
    assert.match(await readFile(log, 'utf8'), /--admin\.enabled = \\"true\\": this is not there yet/);
    const stopped = await run(['serve', '--engine.type', 'redis'], { cwd });
    assert.notEqual(stopped.code, 0);
    assert.match(stopped.stderr, /--engine\.type = "redis"/);
  });

  it('commands are called as in Centrifugo', TEST, async () => {
    const cwd = await emptyDirectory();
    const config = path.join(cwd, 'config.json');
    await writeFile(config, JSON.stringify({ client: { token: { hmac_secret_key: HMAC_KEY } } }));
    const says = async (...args) => {
      const ran = await run(args, { cwd });
      assert.equal(ran.code, 0, `${args.join(' ')}: ${ran.stdout}${ran.stderr}`);
      return ran.stdout;
    };
    await says('checkconfig', '-c', config);
    const defaults = path.join(cwd, 'defaults.toml');
    await writeFile(defaults, await says('defaultconfig'));
    await says('checkconfig', '-c', defaults);
    await says('genconfig', '--origin', 'https://a.example', '-o', path.join(cwd, 'new.toml'));
    const claims = (text) => JSON.parse(Buffer.from(text.match(/[\w-]+\.([\w-]+)\.[\w-]+/)[1], 'base64url'));
    const token = await says('gentoken', '-u', '42', '-t', '3600', '-c', config);
    const { sub, exp } = claims(token);
    assert.equal(sub, '42');
    assert.ok(Math.abs(exp - inSeconds(3600)) <= 5);
    assert.match(await says('checktoken', token.trim(), '-c', config), /^accepted/);
    const forged = await run(['checktoken', jwt({ sub: '42' }, 'another'), '-c', config], { cwd });
    assert.equal(forged.code, 1);
    const subToken = await says('gensubtoken', '-u', '42', '-s', 'chat', '-c', config);
    assert.deepEqual([claims(subToken).sub, claims(subToken).channel], ['42', 'chat']);
    assert.match(await says('checksubtoken', subToken.trim(), '-c', config), /^accepted/);
    assert.match(await says('version'), /^throng \d/);
    assert.match(await says('configdoc'), /^ping_interval = "25s"$/m);
    const env = Object.fromEntries((await says('defaultenv')).trim().split('\n').map((line) => line.split(/=(.*)/)));
    assert.equal(env.THRONG_CLIENT_PING_INTERVAL, '25s');
    const checked = await run(['checkconfig'], { cwd: await emptyDirectory(), env });
    assert.equal(checked.code, 0, checked.stdout + checked.stderr);
  });
});

describe('a backend', () => {
  it('a backend is asked in base64 where that is wanted', TEST, async () => {
    const asked = [];
    const application = http.createServer(async (request, response) => {
      let body = '';
      for await (const more of request.setEncoding('utf8')) body += more;
      asked.push(JSON.parse(body));
      response.end(JSON.stringify({ result: { b64data: Buffer.from('{"answer":42}').toString('base64') } }));
    }).listen(0, '127.0.0.1');
    await once(application, 'listening');
    const port = await freePort();
    const endpoint = `http://127.0.0.1:${application.address().port}/rpc`;
    const config = { ...configuration(port), rpc: { without_namespace: { proxy_enabled: true }, proxy: { endpoint, binary_encoding: true } } };
    try {
      const throng = await start({ port, config });
      const { socket, reply } = await talk(throng, { id: 1, connect: {} }, { id: 2, rpc: { method: 'ask', data: { q: 1 } } });
      assert.deepEqual(reply(2).rpc.data, { answer: 42 });
      assert.equal(asked[0].encoding, 'binary');
      assert.equal(asked[0].data, undefined);
      assert.equal(Buffer.from(asked[0].b64data, 'base64').toString(), '{"q":1}');
      socket.terminate();
    } finally {
      application.close();
      application.closeAllConnections();
    }
  });

  it('an application says what becomes of a key', TEST, async () => {
    const asked = [];
    const application = http.createServer(async (request, response) => {
      let body = '';
      for await (const more of request.setEncoding('utf8')) body += more;
      const { key, data } = JSON.parse(body);
      asked.push([request.url, key, data]);
      const no = { error: { code: 1000, message: 'not yours' } };
      const yes = { result: request.url === '/publish' ? { data: { ...data, seen: true } } : {} };
      response.end(JSON.stringify(key === 'no' ? no : yes));
    }).listen(0, '127.0.0.1');
    await once(application, 'listening');
    const port = await freePort();
    const at = (where) => ({ endpoint: `http://127.0.0.1:${application.address().port}/${where}` });
    const base = configuration(port);
    const map = { publish_proxy_enabled: true, remove_proxy_enabled: true, mode: 'recoverable', key_ttl: '60s' };
    const keys = { name: 'keys', subscription_type: 'map', allow_subscribe_for_client: true, allow_subscribe_for_anonymous: true, map };
    const config = { ...base, channel: { namespaces: [keys], proxy: { map_publish: at('publish'), map_remove: at('remove') } } };
    try {
      const throng = await start({ port, config });
      const change = (id, key, more) => ({ id, publish: { channel: 'keys:a', type: 1, key, ...more } });
      const { socket, reply } = await talk(
        throng, { id: 1, connect: {} }, change(2, 'one', { data: { n: 1 } }), change(3, 'no', { data: { n: 2 } }), change(4, 'two', { data: { n: 3 } }),
        change(5, 'two', { removed: true }),
      );
      assert.deepEqual([2, 3, 4, 5].map((id) => reply(id).error?.code), [undefined, 1000, undefined, undefined]);
      assert.deepEqual(asked.map(([url, key]) => [url, key]), [['/publish', 'one'], ['/publish', 'no'], ['/publish', 'two'], ['/remove', 'two']]);
      const { entries } = await throng.api('map_read_state', { channel: 'keys:a', limit: 10 });
      assert.deepEqual(entries.map(({ key, data }) => [key, data]), [['one', { n: 1, seen: true }]]);
      socket.terminate();
    } finally {
      application.close();
      application.closeAllConnections();
    }
  });
});
