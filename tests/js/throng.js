// Starts the real server for a test, and lets the test talk to it.

import { spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import readline from 'node:readline';
import { setTimeout as after } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

export const API_KEY = 'test-api-key';
export const HMAC_KEY = 'test-hmac-key';

export const BIN = path.resolve(process.env.THRONG_BIN
  ?? fileURLToPath(new URL('../../target/debug/throng', import.meta.url)));
if (!existsSync(BIN)) {
  throw new Error(`no binary at ${BIN}: run cargo build -p throng, or name another in THRONG_BIN`);
}
const START_MS_MAX = 20_000;

/** A port that was free a moment ago. */
export async function freePort() {
  const probe = net.createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address();
  probe.close();
  await once(probe, 'close');
  return port;
}

/** A new directory; a server that looks for files in its working directory finds none. */
export function emptyDirectory() {
  return mkdtemp(path.join(os.tmpdir(), 'throng-test-'));
}

/** The environment without variables that throng would read as options; THRONG_BIN is the test's own. */
function environment(added) {
  const kept = Object.entries(process.env).filter(([name]) => !/^(THRONG|CENTRIFUGO)_/.test(name));
  return { ...Object.fromEntries(kept), ...added };
}

/** Runs a command of throng to its end. */
export async function run(args, { cwd, env = {}, input } = {}) {
  const child = spawn(BIN, args, { cwd, env: environment(env) });
  const printed = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr']) {
    child[name].setEncoding('utf8').on('data', (text) => { printed[name] += text; });
  }
  child.stdin.end(input);
  const [code] = await once(child, 'close');
  return { code, ...printed };
}

/** What most tests start from; `overrides` replaces whole sections. */
export function configuration(port, overrides = {}) {
  const everybody = {
    allow_subscribe_for_client: true,
    allow_subscribe_for_anonymous: true,
    allow_publish_for_client: true,
    allow_publish_for_anonymous: true,
  };
  const everything = {
    ...everybody,
    presence: true,
    join_leave: true,
    history_size: 1000,
    history_ttl: '300s',
    force_recovery: true,
    allow_presence_for_client: true,
    allow_presence_for_anonymous: true,
    allow_history_for_client: true,
    allow_history_for_anonymous: true,
  };
  return {
    http_server: { address: '127.0.0.1', port },
    health: { enabled: true },
    http_api: { key: API_KEY },
    client: {
      token: { hmac_secret_key: HMAC_KEY },
      allow_anonymous_connect_without_token: true,
    },
    channel: {
      without_namespace: everybody,
      namespaces: [
        { name: 'chat', ...everything },
        { name: 'short', ...everything, history_size: 5 },
        { name: 'closed' },
        { name: 'blind', ...everybody, presence: true, history_size: 10, history_ttl: '60s' },
      ],
    },
    ...overrides,
  };
}

/** A running server. `stop()` belongs into an `after` hook. */
export class Throng {
  lines = []; // Everything it said on stderr, a line each.
  #waiting = new Set();

  /** Starts with a configuration (an object, or the path of a file), or with other arguments. */
  static async start({ config, args, env = {}, port, cwd, binary = BIN } = {}) {
    const throng = new Throng();
    throng.binary = binary;
    throng.port = port ?? await freePort();
    throng.cwd = cwd ?? await emptyDirectory();
    throng.ownsCwd = cwd === undefined;
    let file = config;
    if (args === undefined && typeof config !== 'string') {
      file = path.join(throng.cwd, 'config.json');
      await writeFile(file, JSON.stringify(config ?? configuration(throng.port)));
    }
    await throng.#spawn(args ?? ['serve', '-c', file], env);
    return throng;
  }

  async #spawn(args, env) {
    this.process = spawn(this.binary, args, {
      cwd: this.cwd,
      env: environment(env),
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.exited = once(this.process, 'exit');
    this.process.stdout.resume();
    readline.createInterface({ input: this.process.stderr }).on('line', (line) => this.#heard(line));
    await Promise.race([
      this.#answers(),
      this.exited.then(([code]) => { throw new Error(`throng exited with ${code} at once:\n${this.lines.join('\n')}`); }),
    ]);
  }

  get http() { return `http://127.0.0.1:${this.port}`; }
  get websocket() { return `ws://127.0.0.1:${this.port}/connection/websocket`; }
  get uniWebsocket() { return `ws://127.0.0.1:${this.port}/connection/uni_websocket`; }

  // There is no event for "listening" that a client of the network could wait for.
  async #answers() {
    const deadline = Date.now() + START_MS_MAX;
    for (;;) {
      try {
        await (await fetch(`${this.http}/health`)).arrayBuffer();
        return;
      } catch (error) {
        if (Date.now() > deadline) throw new Error(`no answer from ${this.http}: ${this.lines.join('\n')}`, { cause: error });
        await after(20);
      }
    }
  }

  #heard(line) {
    this.lines.push(line);
    for (const wait of this.#waiting) wait();
  }

  /** The first line on stderr that has the text, from line number `from` on. */
  line(text, from = 0) {
    return new Promise((resolve) => {
      const look = () => {
        const found = this.lines.slice(from).find((line) => line.includes(text));
        if (found === undefined) return;
        this.#waiting.delete(look);
        resolve(found);
      };
      this.#waiting.add(look);
      look();
    });
  }

  /** One call of the server API: the result; an error reply is thrown with its code. */
  async api(method, params = {}) {
    const { body } = await this.post(`/api/${method}`, params, { 'X-API-Key': API_KEY });
    if (body.error) throw Object.assign(new Error(body.error.message), { code: body.error.code });
    return body.result ?? body;
  }

  async post(where, params, headers = {}) {
    const response = await fetch(this.http + where, { method: 'POST', headers, body: JSON.stringify(params) });
    const text = await response.text();
    // What is refused before it is understood is answered in plain words.
    const isJson = response.headers.get('content-type')?.startsWith('application/json');
    return { status: response.status, text, body: isJson ? JSON.parse(text) : undefined };
  }

  publish(channel, data, more = {}) {
    return this.api('publish', { channel, data, ...more });
  }

  async stop() {
    if (this.process.exitCode === null && this.process.signalCode === null) this.process.kill('SIGKILL');
    await this.exited;
    if (this.ownsCwd) await rm(this.cwd, { recursive: true, force: true });
  }
}

/** A TCP relay in front of a server: the network that a test can cut. */
export class Relay {
  #pairs = new Set();
  #cut = false;

  static async to(port) {
    const relay = new Relay();
    relay.server = net.createServer((near) => relay.#join(near, port)).listen(0, '127.0.0.1');
    await once(relay.server, 'listening');
    relay.port = relay.server.address().port;
    return relay;
  }

  #join(near, port) {
    if (this.#cut) return near.resetAndDestroy();
    const far = net.connect(port, '127.0.0.1');
    for (const [one, other] of [[near, far], [far, near]]) {
      this.#pairs.add(one);
      one.pipe(other);
      one.on('error', () => other.destroy());
      one.on('close', () => {
        this.#pairs.delete(one);
        other.destroy();
      });
    }
  }

  get websocket() { return `ws://127.0.0.1:${this.port}/connection/websocket`; }

  /** Resets every connection, and every new one until `mend`. */
  cut() {
    this.#cut = true;
    for (const socket of this.#pairs) socket.resetAndDestroy();
  }

  mend() { this.#cut = false; }

  /** Lets nothing through any more, and closes nothing. */
  stall() {
    for (const socket of this.#pairs) socket.unpipe().pause();
  }

  async stop() {
    this.cut();
    this.server.close();
    await once(this.server, 'close');
  }
}

const base64url = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

/** A token as a backend would make it. */
export function jwt(claims, key = HMAC_KEY) {
  const head = `${base64url({ alg: 'HS256', typ: 'JWT' })}.${base64url(claims)}`;
  return `${head}.${createHmac('sha256', key).update(head).digest('base64url')}`;
}

export const inSeconds = (seconds) => Math.floor(Date.now() / 1000) + seconds;

/** Ends these processes at once; those that have ended are no matter. */
export function killAll(pids) {
  for (const pid of pids) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch { /* it has ended */ }
  }
}

/** The next event of that name that matches. Ask before doing what causes it. */
export function nextEvent(emitter, name, matches = () => true) {
  return new Promise((resolve) => {
    const heard = (context) => {
      if (!matches(context)) return;
      emitter.removeListener(name, heard);
      resolve(context);
    };
    emitter.on(name, heard);
  });
}

/** Gathers what an emitter says, and waits until there are so many. */
export function gather(emitter, name, map = (context) => context) {
  const got = [];
  const waiting = new Set();
  emitter.on(name, (context) => {
    got.push(map(context));
    for (const wait of waiting) wait();
  });
  const until = (count) => new Promise((resolve) => {
    const look = () => {
      if (got.length < count) return;
      waiting.delete(look);
      resolve(got);
    };
    waiting.add(look);
    look();
  });
  return { got, until };
}
