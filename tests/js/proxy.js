// Starts real proxies for a test: with the files of deploy/, or as a distribution sets them up.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { readFile, rm, writeFile } from 'node:fs/promises';
import net from 'node:net';
import path from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';

import { emptyDirectory, freePort } from './throng.js';

const START_MS_MAX = 30_000;

export const isRoot = process.getuid() === 0;

/** The program, where Debian puts it; users have no /usr/sbin in their PATH. */
export function program(name) {
  const found = (process.env.PATH ?? '').split(':').concat('/usr/sbin', '/usr/local/sbin')
    .map((directory) => path.join(directory, name)).find(existsSync);
  assert.ok(found, `there is no ${name}: sudo apt-get install ${name}`);
  return found;
}

/** A text with other ports and places. Every change must find something to change. */
export function changed(name, text, changes) {
  return changes.reduce((so_far, [from, to]) => {
    assert.ok(so_far.includes(from), `${name} has no ${JSON.stringify(from)}`);
    return so_far.replaceAll(from, to);
  }, text);
}

/** An example of deploy/ with other ports and places. */
export async function example(name, changes) {
  return changed(`deploy/${name}`, await readFile(new URL(`../../deploy/${name}`, import.meta.url), 'utf8'), changes);
}

/** A proxy that runs until `stop()`. */
export class Proxy {
  static async nginx(throngPort, changes = []) {
    const proxy = await Proxy.#new();
    const text = await example('nginx.conf', [
      // As root, its workers are somebody else, who must come through here.
      ['user www-data;', isRoot ? 'user nobody nogroup;' : ''],
      ['worker_processes auto;', 'worker_processes 2;'],
      ['worker_rlimit_nofile 65536;', ''],
      ['worker_connections 32768;', 'worker_connections 400;'],
      ['pid /run/nginx.pid;', `pid ${proxy.place('nginx.pid')};`],
      ['error_log /var/log/nginx/error.log warn;', 'error_log stderr warn;'],
      ['http {\n', `http {\n${proxy.#temporary()}`],
      ['listen 80;', `listen 127.0.0.1:${proxy.port};`],
      ['127.0.0.1:8000;', `127.0.0.1:${throngPort};`],
      ...changes,
    ]);
    await proxy.#start('nginx', text, (file) => ['nginx', '-e', 'stderr', '-p', proxy.directory, '-c', file, '-g', 'daemon off;']);
    return proxy;
  }

  /** Debian's own nginx.conf, under the limit that a service gets, with a site in sites-enabled. */
  static async stockNginx(site) {
    const proxy = await Proxy.#new();
    const stock = await readFile('/etc/nginx/nginx.conf', 'utf8');
    const text = changed('/etc/nginx/nginx.conf', stock, [
      ['user www-data;', isRoot ? 'user www-data;' : ''],
      ['pid /run/nginx.pid;', `pid ${proxy.place('nginx.pid')};`],
      ['error_log /var/log/nginx/error.log;', 'error_log stderr;'],
      ['access_log /var/log/nginx/access.log;', 'access_log off;'],
      // What else is on this machine is none of the test's business.
      ['include /etc/nginx/conf.d/*.conf;', ''],
      ['include /etc/nginx/sites-enabled/*;', `include ${proxy.place('site')};`],
    ]);
    await writeFile(proxy.place('site'), proxy.#temporary() + site(proxy.port));
    const args = (file) => ['bash', '-c', 'ulimit -Sn 1024; exec "$0" "$@"', program('nginx'), '-e', 'stderr', '-c', file, '-g', 'daemon off;'];
    await proxy.#start('nginx', text, args);
    return proxy;
  }

  static async haproxy(throngPort, internalPort, send, changes = []) {
    const proxy = await Proxy.#new();
    const text = await example('haproxy.cfg', [
      ['maxconn 50000', 'maxconn 400'],
      ['    user haproxy\n    group haproxy\n', ''],
      ['bind :80\n', `bind 127.0.0.1:${proxy.port}\n`],
      ['127.0.0.1:8000 send-proxy-v2 check port 8001', `127.0.0.1:${throngPort} ${send} check port ${internalPort} inter 100ms`],
      ['server throng1 127.0.0.1:8001', `server throng1 127.0.0.1:${internalPort}`],
      ...changes,
    ]);
    await proxy.#start('haproxy', text, (file) => ['haproxy', '-db', '-f', file]);
    return proxy;
  }

  static async caddy(throngPort) {
    const proxy = await Proxy.#new();
    const text = await example('Caddyfile', [
      ['push.example.com {', `{\n\tadmin off\n}\nhttp://:${proxy.port} {\n\tbind 127.0.0.1`],
      ['127.0.0.1:8000', `127.0.0.1:${throngPort}`],
    ]);
    await proxy.#start('caddy', text, (file) => ['caddy', 'run', '--adapter', 'caddyfile', '--config', file]);
    return proxy;
  }

  static async #new() {
    const proxy = new Proxy();
    proxy.directory = await emptyDirectory();
    proxy.port = await freePort();
    return proxy;
  }

  place(name) { return path.join(this.directory, name); }

  /** Where nginx keeps what does not fit into memory; only root may use the package's places. */
  #temporary() {
    return ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
      .map((kind) => `    ${kind}_temp_path ${this.place(kind)};\n`).join('');
  }

  async #start(name, text, args) {
    this.file = this.place(`${name}.conf`);
    await writeFile(this.file, text);
    this.said = '';
    const [command, ...rest] = args(this.file);
    const env = { ...process.env, HOME: this.directory, XDG_DATA_HOME: this.directory, XDG_CONFIG_HOME: this.directory };
    this.process = spawn(program(command), rest, { cwd: this.directory, env, stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [this.process.stdout, this.process.stderr]) {
      stream.setEncoding('utf8').on('data', (more) => { this.said += more; });
    }
    this.exited = once(this.process, 'exit');
    await this.#listens(name);
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
