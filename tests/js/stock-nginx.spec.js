// Debian's nginx as it is installed, in front of throng as it is installed, and more users than the
// first has room for: what the screens print brings them in, and nothing else is changed.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { promisify } from 'node:util';

import WebSocket from 'ws';

import { Backend } from './backend.js';
import { Proxy, program } from './proxy.js';
import { Throng, configuration, freePort, run } from './throng.js';

const CLIENTS = 1500;
const AT_ONCE = 50;
const PATIENCE_MS = 120_000;

/** A site as one writes it after having read that WebSockets need the Upgrade headers. */
const site = (throngPort) => (port) => `
server {
    listen 127.0.0.1:${port};
    server_name _;
    location / {
        proxy_pass http://127.0.0.1:${throngPort};
        proxy_http_version 1.1;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection "upgrade";
        proxy_set_header Host $host;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }
}
`;

/** Where client number n is: each at an address of its own. */
const home = (n) => `127.1.${Math.floor(n / 250)}.${1 + (n % 250)}`;

/** Connects one client, and says what became of it. */
async function join(url, n) {
  const socket = new WebSocket(url, { localAddress: home(n), handshakeTimeout: 30_000 });
  try {
    await once(socket, 'open');
    socket.send('{"id":1,"connect":{}}');
    const [reply] = await once(socket, 'message');
    assert.ok(JSON.parse(reply.toString()).connect.client);
    return { socket };
  } catch (error) {
    return { error, socket };
  }
}

/** All clients, some at a time. */
async function crowd(url) {
  const joined = [];
  let next = 0;
  const some = async () => {
    while (next < CLIENTS) joined.push(await join(url, next++));
  };
  await Promise.all(Array.from({ length: AT_ONCE }, some));
  return joined;
}

/** What a screen says is to be written, and where. */
function changes(said) {
  const lines = said.split('\n').filter((line) => line.startsWith('    ')).map((line) => line.trim());
  const parsed = [];
  while (lines.length > 0 && lines[0] !== '# and then run') {
    const [, file, line, block] = lines.shift().match(/^# ([^\s:,]+)(?::(\d+), in place of the line there|, (within|above) events)$/);
    parsed.push({ file, line: Number(line), block, text: lines.shift() });
  }
  assert.equal(lines.length, 2, said);
  return { parsed, command: lines[1].split(' ') };
}

/** Does to the files what is said. */
async function apply({ parsed, command }) {
  // From below, so that the numbers of lines stay right.
  for (const { file, line, block, text } of parsed.sort((a, b) => (b.line || 0) - (a.line || 0))) {
    const lines = (await readFile(file, 'utf8')).split('\n');
    const events = lines.findIndex((each) => each.trim().startsWith('events'));
    if (line) lines[line - 1] = text;
    else lines.splice(block === 'within' ? events + 1 : events, 0, text);
    await writeFile(file, lines.join('\n'));
  }
  const [name, ...args] = command;
  await promisify(execFile)(name.startsWith('/') ? name : program(name), args);
}

describe('a stock nginx in front', () => {
  let throng;
  let proxy;
  let backend;
  let port;

  async function start(options) {
    const base = configuration(port);
    const client = { ...base.client, proxy: backend.options };
    throng = await Throng.start({ port, config: { ...base, client, ...options } });
  }

  before(async () => {
    port = await freePort();
    backend = await Backend.start();
    await start({});
    proxy = await Proxy.stockNginx(site(port));
  });
  after(async () => {
    await proxy?.stop();
    await throng?.stop();
    await backend?.stop();
  });

  it('lets all in when what the screens print is done, and their addresses are theirs', { timeout: 300_000 }, async () => {
    // As it is: not all get in, and the load says why.
    const load = run(['load', proxy.websocket, '--clients', String(CLIENTS), '--messages', '0', '--hold', '20', '--json']);
    let ended = false;
    load.then(() => { ended = true; });
    // Meanwhile, a probe finds it full. It may get in once or twice before.
    let probe;
    const deadline = Date.now() + PATIENCE_MS;
    do {
      assert.ok(Date.now() < deadline && !ended, 'no probe failed');
      probe = await run(['probe', proxy.http]);
    } while (probe.code === 0);
    const said = probe.stdout.replaceAll('\n', ' ');
    assert.match(said, /has worker_connections 768 \(.*nginx\.conf:\d+\), which is 384 clients/);
    assert.match(said, /A reload cuts nobody at once: .* A restart of nginx cuts everybody\./);
    // Before anybody has tried, too: throng knows what stands in front of it.
    const status = await run(['status', '--pid', String(throng.process.pid)]);
    assert.match(status.stdout, /^in front +nginx, pid \d+, has worker_connections 768 .*; to have more, set worker_connections \d+;/m);
    const { stdout } = await load;
    const report = JSON.parse(stdout);
    assert.ok(report.ramp.ready < CLIENTS, stdout);
    assert.match(report.first_failure.next, /has worker_connections 768 .* set worker_connections \d+; .* then run: .*nginx .*-s reload$/);
    assert.deepEqual([...new Set(backend.addresses())], ['127.0.0.1']);

    // The two fixes, as printed.
    const { message } = JSON.parse(await throng.line('trusted_proxies is empty'));
    const [, fix] = message.match(/ connections from 127\.0\.0\.1 carry X-Forwarded-For, .*: trusted_proxies = (\[.*\])$/);
    const before_reload = await nginxWorkers();
    await apply(changes(probe.stdout));
    await throng.stop();
    await start({ trusted_proxies: JSON.parse(fix) });
    while ((await nginxWorkers()).some((pid) => before_reload.includes(pid))) {
      assert.ok(Date.now() < deadline + PATIENCE_MS, 'nginx was not reloaded');
      await wait(50);
    }

    backend.asked.length = 0;
    const joined = await crowd(proxy.websocket);
    const failed = joined.filter(({ error }) => error);
    assert.equal(failed.length, 0, `${failed[0]?.error} ${proxy.said}`);
    assert.equal((await throng.api('info')).nodes[0].num_clients, CLIENTS);
    const homes = Array.from({ length: CLIENTS }, (_, n) => home(n));
    assert.deepEqual(backend.addresses().sort(), homes.sort());
    for (const { socket } of joined) socket.terminate();
  });

  /** The workers that nginx has now. */
  async function nginxWorkers() {
    const children = await readFile(`/proc/${proxy.process.pid}/task/${proxy.process.pid}/children`, 'utf8');
    return children.trim().split(' ');
  }
});
