// `throng reload`: what of a changed configuration holds at once, what does not, and that nobody notices.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { readFile, rename, writeFile } from 'node:fs/promises';
import http from 'node:http';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';

import { Centrifuge } from 'centrifuge';
import WebSocket from 'ws';

import { Throng, emptyDirectory, freePort, gather, inSeconds, jwt, nextEvent, run } from './throng.js';

const TEST = { timeout: 30_000 };

describe('throng reload', () => {
  let throng;
  let runtime;
  let directory;
  let backend;
  let file;
  let config;
  const clients = [];

  /** An application that answers with its own name. */
  async function application(name) {
    const server = http.createServer((request, response) => {
      request.resume().on('end', () => response.end(JSON.stringify({ result: { data: name } })));
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    return Object.assign(server, { url: `http://127.0.0.1:${server.address().port}` });
  }

  before(async () => {
    runtime = await emptyDirectory();
    directory = await emptyDirectory();
    backend = { old: await application('old'), new: await application('new') };
    file = path.join(directory, 'throng.json');
    const port = await freePort();
    config = {
      http_server: { address: '127.0.0.1', port },
      log: { file: path.join(directory, 'log') },
      http_api: { key: 'test-api-key' },
      client: { token: { hmac_secret_key: 'old' }, allowed_origins: ['https://old'] },
      rpc: { without_namespace: { proxy_enabled: true }, proxy: { endpoint: backend.old.url } },
      channel: { namespaces: [{ name: 'there', allow_subscribe_for_client: true, allow_publish_for_client: true }] },
    };
    await write();
    throng = await Throng.start({ port, config: file, env: { XDG_RUNTIME_DIR: runtime } });
  });
  after(async () => {
    for (const client of clients) client.disconnect();
    await throng?.stop();
    for (const server of Object.values(backend ?? {})) server.close();
  });

  const write = () => writeFile(file, JSON.stringify(config, null, 1));

  async function reload(...more) {
    const ran = await run(['reload', '--pid', String(throng.process.pid), ...more], { env: { XDG_RUNTIME_DIR: runtime } });
    return { code: ran.code, said: ran.stdout };
  }

  async function connected(key) {
    const client = new Centrifuge(throng.websocket, {
      websocket: WebSocket, token: jwt({ sub: 'ann', exp: inSeconds(600) }, key), minReconnectDelay: 20, maxReconnectDelay: 50,
    });
    client.on('error', () => {});
    clients.push(client);
    const outcome = Promise.race([
      nextEvent(client, 'connected').then(() => client),
      nextEvent(client, 'disconnected').then(({ code }) => code),
    ]);
    client.connect();
    return outcome;
  }

  it('says that nothing has changed', TEST, async () => {
    assert.deepEqual(await reload(), { code: 0, said: 'nothing changed: the configuration says what it said before\n' });
  });

  it('refuses a wrong value with its place, and then applies what it can and names the rest', TEST, async () => {
    const client = await connected('old');
    const gone = gather(client, 'connecting');
    const sub = client.newSubscription('there:a');
    const subscribed = nextEvent(sub, 'subscribed');
    sub.subscribe();
    await subscribed;
    const heard = gather(sub, 'publication', ({ data }) => data);
    let going = true;
    let sent = 0;
    const publishing = (async () => {
      while (going) await client.publish('there:a', (sent += 1));
    })();

    config.client.token.hmac_secret_key = 'new';
    config.http_server.internal_port = await freePort();
    config.channel.namespaces.push({ name: 'fresh', history_size: 'many' });
    await write();
    const wrong = await reload();
    assert.equal(wrong.code, 1);
    assert.match(wrong.said, /^nothing changed: \S+throng\.json:\d+: channel\.namespaces\.fresh\.history_size = "many": not a whole number\n$/);
    assert.equal(await connected('new'), 3500);

    config.channel.namespaces[1].history_size = 5;
    await write();
    const done = await reload();
    assert.deepEqual(done, {
      code: 0, said: '2 applied; 1 (http_server.internal_port) needs throng restart; nothing else changed\n',
    });
    // What waits for a restart is told of again.
    assert.match((await reload()).said, /^0 applied; 1 \(http_server\.internal_port\) needs throng restart/);

    assert.equal(await connected('old'), 3500);
    assert.equal((await connected('new')).state, 'connected');
    going = false;
    await publishing;
    assert.deepEqual(await heard.until(sent), Array.from({ length: sent }, (_, n) => n + 1));
    assert.deepEqual(gone.got, []);
    assert.equal(client.state, 'connected');
  });

  it('takes other backends, origins and namespaces', TEST, async () => {
    const client = await connected('new');
    assert.equal((await client.rpc('who', {})).data, 'old');
    config.rpc.proxy.endpoint = backend.new.url;
    config.client.allowed_origins = ['https://new'];
    config.channel.namespaces.shift();
    await write();
    const { code, said } = await reload('--json');
    assert.equal(code, 0);
    assert.deepEqual(JSON.parse(said).applied, ['channel.namespaces.there', 'client.allowed_origins', 'rpc.proxy.endpoint']);
    assert.equal((await client.rpc('who', {})).data, 'new');
    await assert.rejects(client.publish('there:a', 1), { code: 102 });
    const opens = async (origin) => {
      const socket = new WebSocket(throng.websocket, { origin });
      const outcome = await once(socket, 'open').then(() => true, () => false);
      socket.terminate();
      return outcome;
    };
    assert.equal(await opens('https://new'), true);
    assert.equal(await opens('https://old'), false);
  });

  it('takes who is in front, and how much is logged', TEST, async () => {
    /** Where the server takes a client to be for whom somebody asks. */
    const ask = async (address) => {
      const socket = new WebSocket(throng.websocket, { headers: { 'X-Forwarded-For': address } });
      await once(socket, 'open');
      socket.send(JSON.stringify({ id: 1, connect: { token: jwt({ sub: address }, config.client.token.hmac_secret_key) } }));
      await once(socket, 'message');
      const who = await run(['who', '--json', '--user', address, '--pid', String(throng.process.pid)], { env: { XDG_RUNTIME_DIR: runtime } });
      socket.terminate();
      return JSON.parse(who.stdout).clients.map(({ address }) => address);
    };
    assert.deepEqual(await ask('192.0.2.7'), ['127.0.0.1']);
    const debugLines = async () => (await readFile(config.log.file, 'utf8')).split('\n').filter((line) => line.includes('"debug"'));
    assert.deepEqual(await debugLines(), []);
    config.trusted_proxies = ['127.0.0.1/32'];
    config.log.level = 'debug';
    await write();
    const { code, said } = await reload('--json');
    assert.equal(code, 0, said);
    assert.deepEqual(JSON.parse(said).applied.sort(), ['log.level', 'trusted_proxies']);
    assert.deepEqual(await ask('192.0.2.8'), ['192.0.2.8']);
    assert.ok((await debugLines()).some((line) => line.includes('192.0.2.8')));
    config.client_address_header = 'x-real-ip';
    config.log.level = 'info';
    await write();
    assert.match((await reload()).said, /^2 applied/);
    // The other header is not looked at any more.
    assert.deepEqual(await ask('192.0.2.9'), ['127.0.0.1']);
  });

  it('opens its log anew, and does the same for SIGHUP', TEST, async () => {
    await rename(path.join(directory, 'log'), path.join(directory, 'log.1'));
    config.http_api.key = 'another';
    await write();
    throng.process.kill('SIGHUP');
    for (;;) {
      const answer = await throng.post('/api/info', {}, { 'X-API-Key': 'another' });
      if (answer.status === 200) break;
    }
    // It is there before anything is written to it.
    while (!existsSync(path.join(directory, 'log'))) await reload();
  });
});
