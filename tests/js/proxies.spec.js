// The real nginx and the real HAProxy in front, with the files of deploy/: clients pass, and throng
// sees where they really are.

import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import readline from 'node:readline';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';

import WebSocket from 'ws';

import { Backend } from './backend.js';
import { Proxy } from './proxy.js';
import { API_KEY, Throng, configuration, freePort } from './throng.js';

const TEST = { timeout: 60_000 };
// Clients of a test come from here, so that they are not where the proxy is.
const CLIENT = '127.0.0.9';
const FORGED = { 'X-Forwarded-For': '6.6.6.6', 'X-Real-IP': '6.6.6.6', Forwarded: 'for=6.6.6.6' };

// The ways a client may take through a proxy: each is a function of the proxy that connects from
// CLIENT with forged headers. `send` sends a command, `next` is the next reply or push, `closed` the
// code it was closed with.
const TRANSPORTS = {
  WebSocket: async (proxy) => {
    const socket = new WebSocket(proxy.websocket, { localAddress: CLIENT, headers: FORGED });
    const heard = [];
    socket.on('message', (data) => heard.push(...data.toString().split('\n').filter((line) => line !== '{}')));
    const closed = once(socket, 'close').then(([code]) => code);
    await once(socket, 'open');
    return {
      send: (command) => socket.send(JSON.stringify(command)),
      next: async () => {
        while (heard.length === 0) await once(socket, 'message');
        return JSON.parse(heard.shift());
      },
      closed,
    };
  },
  sse: (proxy) => overResponse(proxy, 'sse'),
  http_stream: (proxy) => overResponse(proxy, 'http_stream'),
};

/** A client of a long response, which its first command opens; the others it says at /emulation. */
function overResponse(proxy, transport) {
  const said = new EventEmitter();
  const heard = [];
  const closed = once(said, 'closed').then(([code]) => code);
  const post = (where, body) => http.request(proxy.http + where, {
    method: 'POST', localAddress: CLIENT, headers: FORGED, agent: false,
  }).end(body);
  let at;
  const hear = (line) => {
    const message = JSON.parse(line.replace(/^data: /, ''));
    at ??= message.connect;
    const code = message.push?.disconnect?.code;
    if (code) return said.emit('closed', code);
    if (Object.keys(message).length > 0) heard.push(message);
    return said.emit('heard');
  };
  return {
    send: (command) => {
      const data = JSON.stringify(command);
      if (at) {
        post('/emulation', JSON.stringify({ session: at.session, node: at.node, data })).on('response', (answer) => answer.resume());
      } else {
        post(`/connection/${transport}`, data).on('response', (response) => {
          readline.createInterface({ input: response }).on('line', (line) => line && hear(line));
        });
      }
    },
    next: async () => {
      while (heard.length === 0) await once(said, 'heard');
      return heard.shift();
    },
    closed,
  };
}

// What a proxy takes as too quiet in the test of that; throng pings more often there.
const QUIET = '3000ms';
const LIVELY = {
  trusted_proxies: ['127.0.0.1/32'],
  client: { ...configuration(0).client, ping_interval: '1s', pong_timeout: '500ms' },
};

/** A response that does not end: what is said comes as it is said, and pings keep it from being ended. */
async function streams(throng, proxy) {
  const request = { method: 'POST', body: JSON.stringify({ subs: { news: {} } }) };
  await Promise.all(['uni_sse', 'uni_http_stream'].map(async (transport) => {
    const { body } = await fetch(`${proxy.http}/connection/${transport}`, request);
    let said = '';
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    const hear = async (text) => {
      while (!said.includes(text)) {
        const { done, value } = await reader.read();
        assert.ok(!done, `it ended after ${said}`);
        said += value;
      }
    };
    await hear('{"connect":');
    // Longer than the proxy leaves a quiet connection.
    await wait(parseInt(QUIET, 10) + 1500);
    await throng.publish('news', transport);
    await hear(`"pub":{"data":"${transport}"`);
    await reader.cancel();
  }));
}

/** Declares a test for every way through a proxy. */
function throughEvery(name, test) {
  for (const [transport, connect] of Object.entries(TRANSPORTS)) {
    it(`${name} (${transport})`, TEST, () => test(connect));
  }
}

/** A client that connects through a proxy, hears a publication, and errs: its address, as logged. */
async function seen(throng, proxy, connect) {
  const from = throng.lines.length;
  const client = await connect(proxy);
  client.send({ id: 1, connect: {} });
  assert.ok((await client.next()).connect.client);
  client.send({ id: 2, subscribe: { channel: 'news' } });
  assert.deepEqual(await client.next(), { id: 2, subscribe: {} });
  // The server API passes as well.
  const response = await fetch(`${proxy.http}/api/publish`, {
    method: 'POST',
    headers: { 'X-API-Key': API_KEY },
    body: JSON.stringify({ channel: 'news', data: { through: 'a proxy' } }),
  });
  assert.equal(response.status, 200);
  assert.deepEqual(await response.json(), { result: {} });
  assert.deepEqual((await client.next()).push.pub.data, { through: 'a proxy' });
  client.send({ id: 3, connect: {} });
  assert.equal(await client.closed, 3501);
  return JSON.parse(await throng.line('connect came a second time', from)).fields.addr;
}

/** A throng with a backend that it asks who a client is; the rest of the configuration is the test's. */
async function behind(port, more, talksOn = port) {
  const backend = await Backend.start();
  const base = configuration(port);
  const client = { ...base.client, proxy: backend.options };
  const on = { enabled: true };
  const streams = { sse: on, http_stream: on, uni_sse: on, uni_http_stream: on };
  const throng = await Throng.start({ port: talksOn, config: { ...base, ...streams, client, ...more(base) } });
  return { backend, throng };
}

describe('nginx', () => {
  let throng;
  let proxy;
  let backend;

  async function start(options, changes) {
    const port = await freePort();
    ({ throng, backend } = await behind(port, () => options));
    proxy = await Proxy.nginx(port, changes);
  }

  async function stop() {
    await proxy?.stop();
    await throng?.stop();
    await backend?.stop();
  }

  describe('that is declared', () => {
    before(() => start({ trusted_proxies: ['127.0.0.1/32'] }));
    after(stop);

    throughEvery('passes clients on, and their addresses in X-Forwarded-For', async (connect) => {
      assert.equal(await seen(throng, proxy, connect), CLIENT);
      assert.equal(backend.addresses().at(-1), CLIENT);
    });
  });

  describe('that soon ends what is quiet', () => {
    before(() => start(LIVELY, [['_timeout 75s;', `_timeout ${QUIET};`]]));
    after(stop);

    it('passes long responses on as they come', TEST, () => streams(throng, proxy));
  });

  describe('that drops the Upgrade headers', () => {
    const MISSING = [
      'proxy_http_version 1.1;',
      'proxy_set_header Upgrade $http_upgrade;',
      'proxy_set_header Connection $connection_upgrade;',
    ];
    before(() => start({ trusted_proxies: ['127.0.0.1/32'] }, MISSING.map((line) => [line, ''])));
    after(stop);

    it('passes on the answer with the lines that it lacks, and they are all that it lacks', TEST, async () => {
      const headers = { Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==' };
      const refused = new WebSocket(proxy.websocket, { headers });
      const [request, response] = await once(refused, 'unexpected-response');
      assert.equal(response.statusCode, 426);
      let text = '';
      for await (const more of response.setEncoding('utf8')) text += more;
      request.destroy();
      const lines = text.split('\n').filter((line) => line.startsWith('    ')).map((line) => line.trim());
      assert.equal(lines.length, 5, text);
      // What the answer recommends is what the example does, but for the map.
      const example = await readFile(new URL('../../deploy/nginx.conf', import.meta.url), 'utf8');
      for (const line of lines) assert.ok(example.includes(line.replace('"upgrade"', '$connection_upgrade')), line);
      await stop();
      // Nothing but those lines stands where the example's were.
      const others = ['proxy_set_header Host $host;', 'proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;'];
      const changes = [...MISSING, ...others].map((line) => [line, '']);
      await start({ trusted_proxies: ['127.0.0.1/32'] }, [...changes, ['server_name _;', `server_name _;\n${lines.join('\n')}`]]);
      assert.equal(await seen(throng, proxy, TRANSPORTS.WebSocket), CLIENT);
      assert.deepEqual(backend.addresses(), [CLIENT]);
    });
  });

  describe('that is not declared', () => {
    beforeEach(() => start({}));
    afterEach(stop);

    throughEvery('is told of with the line to add, and that line helps', async (connect) => {
      assert.equal(await seen(throng, proxy, connect), '127.0.0.1');
      assert.deepEqual(backend.addresses(), ['127.0.0.1']);
      for (let request = 0; request < 25; request += 1) {
        await (await fetch(`${proxy.http}/connection/websocket`)).arrayBuffer();
      }
      const { message } = JSON.parse(await throng.line('trusted_proxies is empty'));
      const [, fix] = message.match(/^20 connections from 127\.0\.0\.1 carry X-Forwarded-For, .*: trusted_proxies = (\[.*\])$/);
      await stop();
      await start({ trusted_proxies: JSON.parse(fix) });
      assert.equal(await seen(throng, proxy, connect), CLIENT);
      assert.equal(backend.addresses().at(-1), CLIENT);
    });
  });
});

describe('an nginx that does not say for whom it asks', () => {
  const SAYS = 'proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;';
  const setup = {};

  async function start(options, changes) {
    const port = await freePort();
    Object.assign(setup, await behind(port, () => options));
    setup.proxy = await Proxy.nginx(port, changes);
  }

  async function stop() {
    await setup.proxy?.stop();
    await setup.throng?.stop();
    await setup.backend?.stop();
  }

  after(stop);

  it('is told of when many have come, and both lines help', TEST, async () => {
    await start({}, [[SAYS, '']]);
    for (let client = 0; client < 200; client += 1) {
      const socket = new WebSocket(setup.proxy.websocket, { localAddress: CLIENT });
      await once(socket, 'open');
      socket.terminate();
    }
    const { message } = JSON.parse(await setup.throng.line('clients have come from'));
    const [, line, fix] = message.match(/^200 clients have come from 127\.0\.0\.1 without X-Forwarded-For, .* other proxy_set_header lines: (proxy_set_header .*;) and in throng's configuration: trusted_proxies = (\[.*\])$/);
    await stop();
    await start({ trusted_proxies: JSON.parse(fix) }, [[SAYS, line]]);
    const client = await TRANSPORTS.WebSocket(setup.proxy);
    client.send({ id: 1, connect: {} });
    await client.next();
    assert.deepEqual(setup.backend.addresses(), [CLIENT]);
  });
});

describe('HAProxy', () => {
  /** With the PROXY protocol on the public port; the API and health are on the internal one. */
  async function start(protocol, send, trusted_proxies, options = {}, changes = []) {
    const [port, internal] = [await freePort(), await freePort()];
    const more = (base) => ({
      ...options,
      http_server: { ...base.http_server, proxy_protocol: protocol, internal_address: '127.0.0.1', internal_port: internal },
      trusted_proxies,
    });
    const { throng, backend } = await behind(port, more, internal);
    return { throng, backend, proxy: await Proxy.haproxy(port, internal, send, changes) };
  }

  async function stop({ throng, backend, proxy } = {}) {
    await proxy?.stop();
    await throng?.stop();
    await backend?.stop();
  }

  for (const [send, protocol] of [['send-proxy', 'v1'], ['send-proxy-v2', 'v2'], ['send-proxy-v2', 'on']]) {
    describe(`with ${send}, and proxy_protocol = "${protocol}"`, () => {
      let setup;

      before(async () => { setup = await start(protocol, send, ['127.0.0.1/32']); });
      after(() => stop(setup));

      throughEvery('passes clients on, and their addresses', async (connect) => {
        const { throng, proxy, backend } = setup;
        assert.equal(await seen(throng, proxy, connect), CLIENT);
        assert.equal(backend.addresses().at(-1), CLIENT);
        // Nor have its checks of health failed, or been taken for anything else: three would do.
        await wait(600);
        assert.doesNotMatch(proxy.said, /DOWN/);
        assert.deepEqual(throng.lines.filter((line) => line.includes('was closed')), []);
      });
    });
  }

  it('passes long responses on as they come, though it soon ends what is quiet', TEST, async () => {
    const setup = await start('v2', 'send-proxy-v2', ['127.0.0.1/32'], LIVELY, [['75s', QUIET]]);
    try {
      await streams(setup.throng, setup.proxy);
    } finally {
      await stop(setup);
    }
  });

  it('is told what to do when it does not send the header that is wanted', TEST, async () => {
    const setup = await start('v2', 'send-proxy', ['127.0.0.1']);
    try {
      const socket = new WebSocket(setup.proxy.websocket);
      const [error] = await once(socket, 'error');
      assert.match(error.message, /50[23]/);
      const line = await setup.throng.line('its PROXY header has the other version');
      assert.match(JSON.parse(line).message, /http_server\.proxy_protocol = "v2"; .*send-proxy-v2 is v2/);
    } finally {
      await stop(setup);
    }
  });
});

describe('Caddy', () => {
  let setup;

  before(async () => {
    const port = await freePort();
    setup = await behind(port, () => ({ trusted_proxies: ['127.0.0.1/32'] }));
    setup.proxy = await Proxy.caddy(port);
  });
  after(async () => {
    await setup?.proxy?.stop();
    await setup?.throng.stop();
    await setup?.backend.stop();
  });

  throughEvery('passes clients on, and their addresses in an X-Forwarded-For of its own', async (connect) => {
    assert.equal(await seen(setup.throng, setup.proxy, connect), CLIENT);
    assert.equal(setup.backend.addresses().at(-1), CLIENT);
  });
});
