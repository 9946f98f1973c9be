// What the tests of `throng doctor` need: processes with limits, crowds that wait, and what screens say.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { BIN, run } from './throng.js';

const here = (name) => fileURLToPath(new URL(name, import.meta.url));

/** What no event may be later than, on a machine that is busy with anything. */
export const PATIENCE_MS = 150_000;
/** Python with the Tornado of PyPI, made by scripts/need. */
export const TORNADO = path.join(path.dirname(BIN), '../tornado/bin/python');
export const PYTHON = existsSync(TORNADO) ? TORNADO : 'python3';
export const script = (name) => here(`doctor/${name}`);
/** Without Tornado there is nothing to exhaust. */
export const NO_TORNADO = existsSync(TORNADO) ? false : 'no Tornado in target/tornado: scripts/need --install tornado';
/** Only root makes namespaces and mounts, and becomes others. */
export const NOT_ROOT = process.getuid() === 0 ? false : 'only root can set it up';

/** Asks again until there is an answer. */
export async function until(what, ask) {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    assert.ok(Date.now() < deadline, `${what}, within ${PATIENCE_MS} ms`);
    await wait(50);
  }
}

/** Runs a line in a shell to its end, as one who reads it from a screen would. */
export function typed(line, { cwd } = {}) {
  // What is installed has no other place here than where it was built.
  const env = { ...process.env, PATH: `${path.dirname(BIN)}:${process.env.PATH}:/usr/sbin:/sbin` };
  return new Promise((resolve) => {
    execFile('bash', ['-c', line], { cwd, env, timeout: PATIENCE_MS }, (error, stdout, stderr) => {
      resolve({ code: error ? error.code ?? 1 : 0, stdout, stderr });
    });
  });
}

/** A process and what it started, until `stop()`. */
export class Target {
  /** Runs a line of shell; with `exec` in it the process is the program itself. */
  static start(line, { args = [], cwd, env = {} } = {}) {
    const target = new Target();
    target.said = '';
    target.process = spawn('bash', ['-c', line, 'bash', ...args.map(String)], {
      cwd,
      env: { ...process.env, ...env },
      detached: true, // a group of its own, which ends together
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    for (const stream of [target.process.stdout, target.process.stderr]) {
      stream.setEncoding('utf8').on('data', (more) => {
        // Servers that are out of descriptors say so a thousand times a second.
        if (target.said.length < 64_000) target.said += more;
      });
    }
    target.ended = once(target.process, 'exit');
    return target;
  }

  /** Tornado, with a limit. */
  static async tornado(port, limit = 'ulimit -Sn 1024') {
    const target = Target.start(`${limit}; exec "$1" "$2" "$3"`, { args: [TORNADO, script('push.py'), port] });
    await target.listens(port);
    return target;
  }

  get pid() { return this.process.pid; }

  /** `started`: somebody else has started it again, and ours may have ended. */
  async listens(port, { started = false } = {}) {
    await until(`somebody listens on ${port}: ${this.said}`, async () => {
      assert.ok(started || this.process.exitCode === null, this.said);
      return canConnect(port);
    });
  }

  /** The text that it printed, once there is one that matches. */
  async says(pattern) {
    return until(`it says ${pattern}`, () => {
      const found = this.said.match(pattern);
      assert.ok(found || this.process.exitCode === null, this.said);
      return found;
    });
  }

  async stop() {
    try {
      process.kill(-this.process.pid, 'SIGKILL');
    } catch {
      // It has ended by itself.
    }
    await this.ended;
  }
}

function canConnect(port) {
  return new Promise((resolve) => {
    const probe = net.connect(port, '127.0.0.1');
    probe.once('connect', () => { probe.destroy(); resolve(true); });
    probe.once('error', () => resolve(false));
  });
}

/** Clients with WebSockets. Who is not let in waits, and is not sent away. */
export class Crowd {
  members = [];

  constructor(port, size, { at = '/ws' } = {}) {
    for (let n = 0; n < size; n += 1) this.members.push(this.#join(port, at));
  }

  #join(port, at) {
    const member = { isIn: false, isGone: false };
    // As kernels do, it tries again by itself while nobody answers.
    member.socket = net.connect(port, '127.0.0.1');
    member.socket.on('connect', () => member.socket.write(
      `GET ${at} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n`
      + `Sec-WebSocket-Key: ${randomBytes(16).toString('base64')}\r\nSec-WebSocket-Version: 13\r\n\r\n`,
    ));
    member.socket.on('data', (data) => { if (data.includes('101 Switching')) member.isIn = true; });
    member.socket.on('error', (error) => { member.error = error; });
    member.socket.on('close', () => { member.isGone = true; });
    return member;
  }

  get inside() { return this.members.filter(({ isIn }) => isIn).length; }
  get dropped() { return this.members.filter(({ isGone }) => isGone).length; }

  async allIn() {
    await until(`all are in, of ${this.members.length} there are ${this.inside}`, () => this.inside === this.members.length);
  }

  leave() {
    for (const { socket } of this.members) socket.destroy();
  }
}

/** What the doctor says to programs. */
export async function told(...args) {
  const { code, stdout, stderr } = await run(['doctor', '--json', ...args.map(String)]);
  assert.ok(stdout, stderr);
  return { code, ...JSON.parse(stdout) };
}

/** What the doctor says to people; kept within a screen of 80 by 24. */
export async function screen(...args) {
  const { code, stdout, stderr } = await run(['doctor', ...args.map(String)]);
  if (process.env.THRONG_TEST_SHOW) process.stderr.write(`\n$ throng doctor ${args.join(' ')}\n${stdout}${stderr}`);
  return new Screen(code, stdout, stderr);
}

class Screen {
  constructor(code, text, stderr) {
    Object.assign(this, { code, text, stderr });
    this.lines = text.trimEnd().split('\n');
  }

  /** The text of a label, its lines joined. */
  part(label) {
    const at = this.lines.findIndex((line) => line.startsWith(label));
    if (at < 0) return '';
    const more = this.lines.slice(at + 1);
    const end = more.findIndex((line) => !line.startsWith('        '));
    return [this.lines[at].slice(label.length), ...more.slice(0, end < 0 ? undefined : end)].map((line) => line.trim()).join(' ');
  }

  get verdict() { return `${this.lines[0].split(' ')[0]} ${this.part(this.lines[0].split(' ')[0])}`; }

  /** The command after `now`. */
  get now() {
    const line = this.lines.find((each) => each.startsWith('now '));
    return line?.slice(8).split('    ')[0].trim();
  }

  /** The commands below `for good`: those lines that stand on their own. */
  get forGood() {
    const at = this.lines.findIndex((line) => line.startsWith('for good'));
    return this.lines.slice(at + 1).filter((_, n, all) => all.slice(0, n + 1).every((line) => line.startsWith('        '))).map((line) => line.slice(8));
  }

  /** The seven facts that somebody tired asks for, without scrolling. */
  holdsTheSevenFacts({ fixable = true } = {}) {
    const rows = this.lines.reduce((sum, line) => sum + Math.max(1, Math.ceil([...line].length / 80)), 0);
    assert.ok(rows <= 23, `${rows} rows:\n${this.text}`);
    assert.match(this.lines[0], /^(FULL|TIGHT|OK) /, this.text);
    // What is used and what the limit is, of what binds first.
    assert.match(this.text, /^first  .*?  +\d\S*( [KMG]iB| bytes)?  +\d/m, this.text);
    const labels = fixable ? ['why', 'now', 'for good', 'next'] : ['why', 'next'];
    for (const label of labels) assert.ok(this.part(label).length > 10, `${label}:\n${this.text}`);
    assert.match(this.text, /(^|  )check  /m, this.text);
  }
}

/** The soft and hard limit on open files that the kernel shows. */
export function limitOf(pid) {
  return readFileSync(`/proc/${pid}/limits`, 'utf8').match(/^Max open files +(\S+) +(\S+)/m).slice(1).map(Number);
}

/** Whether a program is installed. */
export function lacks(...programs) {
  const places = `${process.env.PATH}:/usr/sbin:/sbin`.split(':');
  const missing = programs.filter((name) => !places.some((place) => existsSync(path.join(place, name))));
  return missing.length > 0 && `not installed: ${missing.join(', ')}`;
}
