// The real nginx and the real HAProxy in front, with the files of deploy/: clients pass, and throng
// sees where they really are.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { readFile, rm, writeFile } from 'node:fs/promises';
import net from 'node:net';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';

import WebSocket from 'ws';

import { API_KEY, Throng, configuration, emptyDirectory, freePort } from './throng.js';

const TEST = { timeout: 30_000 };
const START_MS_MAX = 10_000;
// Clients of a test come from here, so that they are not where the proxy is.
const CLIENT = '127.0.0.9';
const FORGED = { 'X-Forwarded-For': '6.6.6.6', 'X-Real-IP': '6.6.6.6', Forwarded: 'for=6.6.6.6' };

const isRoot = process.getuid() === 0;

/** The program, where Debian puts it; users have no /usr/sbin in their PATH. */
function program(name) {
  const found = (process.env.PATH ?? '').split(':').concat('/usr/sbin', '/usr/local/sbin')
    .map((directory) => path.join(directory, name)).find(existsSync);
  assert.ok(found, `there is no ${name}: sudo apt-get install ${name}`);
  return found;
}

/** An example of deploy/ with other ports and places. Every change must find something to change. */
async function example(name, changes) {
  let text = await readFile(new URL(`../../deploy/${name}`, import.meta.url), 'utf8');
  for (const [from, to] of changes) {
    assert.ok(text.includes(from), `deploy/${name} has no ${JSON.stringify(from)}`);
    text = text.replaceAll(from, to);
  }
  return text;
}

/** A proxy that runs until `stop()`. */
class Proxy {
  static async nginx(throngPort) {
    const proxy = await Proxy.#new();
    // As root, its workers are somebody else, who must come through here.
    const place = (name) => path.join(proxy.directory, name);
    const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
      .map((kind) => `    ${kind}_temp_path ${place(kind)};\n`).join('');
    const text = await example('nginx.conf', [
      ['user www-data;', isRoot ? 'user nobody nogroup;' : ''],
      ['worker_processes auto;', 'worker_processes 2;'],
      ['worker_rlimit_nofile 65536;', ''],
      ['worker_connections 32768;', 'worker_connections 400;'],
      ['pid /run/nginx.pid;', `pid ${place('nginx.pid')};`],
      ['error_log /var/log/nginx/error.log warn;', 'error_log stderr warn;'],
      ['http {\n', `http {\n${temporary}`],
      ['_timeout 75s;', `_timeout ${QUIET_MS_MAX}ms;`],
      ['listen 80;', `listen 127.0.0.1:${proxy.port};`],
      ['127.0.0.1:8000;', `127.0.0.1:${throngPort};`],
    ]);
    return proxy.#start('nginx', text, (file) => ['-e', 'stderr', '-p', proxy.directory, '-c', file, '-g', 'daemon off;']);
  }

  static async haproxy(throngPort, internalPort, send) {
    const proxy = await Proxy.#new();
    const text = await example('haproxy.cfg', [
      ['maxconn 50000', 'maxconn 400'],
      ['75s', `${QUIET_MS_MAX}ms`],
      ['    user haproxy\n    group haproxy\n', ''],
      ['bind :80\n', `bind 127.0.0.1:${proxy.port}\n`],
      ['127.0.0.1:8000 send-proxy-v2 check port 8001', `127.0.0.1:${throngPort} ${send} check port ${internalPort} inter 100ms`],
      ['server throng1 127.0.0.1:8001', `server throng1 127.0.0.1:${internalPort}`],
    ]);
    return proxy.#start('haproxy', text, (file) => ['-db', '-f', file]);
  }

  static async #new() {
    const proxy = new Proxy();
    proxy.directory = await emptyDirectory();
    proxy.port = await freePort();
    return proxy;
  }

  async #start(name, text, args) {
    const file = path.join(this.directory, `${name}.conf`);
    await writeFile(file, text);
    this.said = '';
    this.process = spawn(program(name), args(file), { cwd: this.directory, stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [this.process.stdout, this.process.stderr]) {
      stream.setEncoding('utf8').on('data', (more) => { this.said += more; });
    }
    this.exited = once(this.process, 'exit');
    await this.#listens(name);
    return this;
  }

  async #listens(name) {
    const deadline = Date.now() + START_MS_MAX;
    for (;;) {
      const socket = net.connect(this.port, '127.0.0.1');
      const listens = await new Promise((resolve) => {
        socket.on('connect', () => resolve(true)).on('error', () => resolve(false));
      });
      socket.destroy();
      if (listens) return;
      assert.equal(this.process.exitCode, null, `${name} ended at once: ${this.said}`);
      assert.ok(Date.now() < deadline, `${name} does not listen: ${this.said}`);
      await wait(20);
    }
  }

  get http() { return `http://127.0.0.1:${this.port}`; }
  get websocket() { return `ws://127.0.0.1:${this.port}/connection/websocket`; }

  async stop() {
    if (this.process.exitCode === null) this.process.kill('SIGTERM');
    await this.exited;
    await rm(this.directory, { recursive: true, force: true });
  }
}

/** A client that connects through a proxy, hears a publication, and errs: its address, as logged. */
async function seen(throng, proxy) {
  const from = throng.lines.length;
  const socket = new WebSocket(proxy.websocket, { localAddress: CLIENT, headers: FORGED });
  const heard = [];
  socket.on('message', (data) => heard.push(...data.toString().split('\n').filter((line) => line !== '{}')));
  const next = async () => {
    while (heard.length === 0) await once(socket, 'message');
    return JSON.parse(heard.shift());
  };
  await once(socket, 'open');
  socket.send('{"id":1,"connect":{}}');
  assert.ok((await next()).connect.client);
  socket.send('{"id":2,"subscribe":{"channel":"news"}}');
  assert.deepEqual(await next(), { id: 2, subscribe: {} });
  // The server API passes as well.
  const response = await fetch(`${proxy.http}/api/publish`, {
    method: 'POST',
    headers: { 'X-API-Key': API_KEY },
    body: JSON.stringify({ channel: 'news', data: { through: 'a proxy' } }),
  });
  assert.equal(response.status, 200);
  await response.arrayBuffer();
  assert.deepEqual((await next()).push.pub.data, { through: 'a proxy' });
  socket.send('{"id":3,"connect":{}}');
  const [code] = await once(socket, 'close');
  assert.equal(code, 3501);
  return JSON.parse(await throng.line('connect came a second time', from)).fields.addr;
}

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
    await wait(QUIET_MS_MAX + 1500);
    await throng.publish('news', transport);
    await hear(`"pub":{"data":"${transport}"`);
    await reader.cancel();
  }));
}

// What a proxy of a test takes as too quiet; throng pings more often.
const QUIET_MS_MAX = 3000;
const STREAMS = { uni_sse: { enabled: true }, uni_http_stream: { enabled: true } };
const PINGS = { ping_interval: '1s', pong_timeout: '500ms' };

describe('nginx', () => {
  let throng;
  let proxy;

  async function start(options) {
    const port = await freePort();
    const base = configuration(port);
    const client = { ...base.client, ...PINGS };
    throng = await Throng.start({ port, config: { ...base, ...STREAMS, client, ...options } });
    proxy = await Proxy.nginx(port);
  }

  async function stop() {
    await proxy?.stop();
    await throng?.stop();
  }

  describe('that is declared', () => {
    before(() => start({ trusted_proxies: ['127.0.0.1/32'] }));
    after(stop);

    it('passes clients on, and their addresses in X-Forwarded-For', TEST, async () => {
      assert.equal(await seen(throng, proxy), CLIENT);
    });

    it('passes long responses on as they come', TEST, () => streams(throng, proxy));

    it('passes the answer to a request without Upgrade on, with the lines that it lacks', TEST, async () => {
      const response = await fetch(`${proxy.http}/connection/websocket`);
      assert.equal(response.status, 426);
      const config = await readFile(new URL('../../deploy/nginx.conf', import.meta.url), 'utf8');
      const lines = (await response.text()).split('\n').filter((line) => line.startsWith('    ')).map((line) => line.trim());
      assert.equal(lines.length, 5);
      // What the answer recommends is what the example does.
      for (const line of lines) {
        assert.ok(config.includes(line.replace('"upgrade"', '$connection_upgrade')), line);
      }
    });
  });

  describe('that is not declared', () => {
    before(() => start({}));
    after(stop);

    it('is told of with the line to add, and that line helps', TEST, async () => {
      assert.equal(await seen(throng, proxy), '127.0.0.1');
      for (let request = 0; request < 25; request += 1) {
        await (await fetch(`${proxy.http}/connection/websocket`)).arrayBuffer();
      }
      const { message } = JSON.parse(await throng.line('trusted_proxies is empty'));
      const [, fix] = message.match(/^20 connections from 127\.0\.0\.1 carry X-Forwarded-For, .*: trusted_proxies = (\[.*\])$/);
      await stop();
      await start({ trusted_proxies: JSON.parse(fix) });
      assert.equal(await seen(throng, proxy), CLIENT);
    });
  });
});

describe('HAProxy', () => {
  for (const [send, protocol] of [['send-proxy', 'v1'], ['send-proxy-v2', 'v2'], ['send-proxy-v2', 'on']]) {
    describe(`with ${send}, and proxy_protocol = "${protocol}"`, () => {
      let throng;
      let proxy;

      before(async () => {
        const [port, internal] = [await freePort(), await freePort()];
        const base = configuration(port);
        const http_server = { ...base.http_server, proxy_protocol: protocol, internal_address: '127.0.0.1', internal_port: internal };
        const client = { ...base.client, ...PINGS };
        const config = { ...base, ...STREAMS, client, http_server, trusted_proxies: ['127.0.0.1/32'] };
        // Health and the API are on the internal port, which is the one that a test talks to.
        throng = await Throng.start({ port: internal, config });
        proxy = await Proxy.haproxy(port, internal, send);
      });
      after(async () => {
        await proxy?.stop();
        await throng?.stop();
      });

      it('passes long responses on as they come', TEST, () => streams(throng, proxy));

      it('passes clients on, and their addresses', TEST, async () => {
        assert.equal(await seen(throng, proxy), CLIENT);
        // Nor have its checks of health failed, or been taken for anything else: three would do.
        await wait(600);
        assert.doesNotMatch(proxy.said, /DOWN/);
        assert.deepEqual(throng.lines.filter((line) => line.includes('was closed')), []);
      });
    });
  }

  it('is told what to do when it does not send the header that is wanted', TEST, async () => {
    const [port, internal] = [await freePort(), await freePort()];
    const base = configuration(port);
    const http_server = { ...base.http_server, proxy_protocol: 'v2', internal_address: '127.0.0.1', internal_port: internal };
    const throng = await Throng.start({ port: internal, config: { ...base, http_server, trusted_proxies: ['127.0.0.1'] } });
    const proxy = await Proxy.haproxy(port, internal, 'send-proxy');
    try {
      const socket = new WebSocket(proxy.websocket);
      const [error] = await once(socket, 'error');
      assert.match(error.message, /50[23]/);
      const line = await throng.line('its PROXY header has the other version');
      assert.match(JSON.parse(line).message, /http_server\.proxy_protocol = "v2"; .*send-proxy-v2 is v2/);
    } finally {
      await proxy.stop();
      await throng.stop();
    }
  });
});
