// docs/from-centrifugo.md, its blocks run as they stand there; only ports are others. In the place of Centrifugo stands a
// throng that was started from Centrifugo's file: to clients and to what publishes the two are the same.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { chmod, readFile, writeFile } from 'node:fs/promises';
import net from 'node:net';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { promisify } from 'node:util';

import { Centrifuge } from 'centrifuge';
import WebSocket from 'ws';

import { blocksOf, commands } from './blocks.js';
import { Throng, emptyDirectory, freePort, gather, inSeconds, jwt, nextEvent, run } from './throng.js';

const TEST = { timeout: 60_000 };
const GUIDE = 'from-centrifugo.md';
const NGINX = ['/usr/sbin/nginx', '/usr/bin/nginx'].find(existsSync);
const VISITORS = 60;

describe('from Centrifugo', { skip: NGINX ? false : 'no nginx' }, () => {
  const servers = [];
  const blocks = {};
  const env = {};
  let directory;
  let ports;
  let nginx;
  let token;

  /** A block with this test's ports in it. */
  const here = (block) => block.replaceAll('8000', ports.old).replaceAll('8001', ports.new).replaceAll('8080', ports.nginx);

  async function start(port, args, more = env, cwd = directory) {
    const throng = await Throng.start({ port, args, cwd, env: more });
    servers.push(throng);
    return throng;
  }

  before(async () => {
    for (const language of ['json', 'sh', 'yaml', 'nginx', 'python']) blocks[language] = await blocksOf(GUIDE, language);
    directory = await emptyDirectory();
    await chmod(directory, 0o755);
    ports = { old: await freePort(), new: await freePort(), nginx: await freePort() };
    const [exported] = commands(blocks.sh.has('throng serve -c config.json'));
    const [, name, value] = exported.match(/^export (\w+)=(\w+)$/);
    env[name] = value;
    token = (user) => jwt({ sub: user, exp: inSeconds(600) }, value);
    await writeFile(path.join(directory, 'config.json'), here(blocks.json[0]));
    await writeFile(path.join(directory, 'publish.py'), blocks.python[0]);
    await start(ports.old, ['-c', 'config.json']);
  });
  after(async () => {
    if (nginx?.exitCode === null) {
      const ended = once(nginx, 'exit');
      nginx.kill('SIGTERM');
      await ended;
    }
    for (const throng of servers) await throng.stop();
  });

  /** The commands of throng in a block, as arguments. */
  const throngs = (has) => commands(here(blocks.sh.has(has))).filter((line) => line.startsWith('throng ')).map((line) => line.split(' ').slice(1));

  it('the file is checked and served as it is', TEST, async () => {
    const [check, serve] = throngs('throng serve -c config.json');
    const checked = await run(check, { cwd: directory, env });
    assert.equal(checked.code, 0, checked.stdout + checked.stderr);
    assert.match(checked.stdout + checked.stderr, /admin\.enabled = true: this is not there yet/);
    await start(ports.new, serve);
  });

  it('the imported file is the same server', TEST, async () => {
    const [bring, check] = throngs('throng config import');
    const imported = await run(bring, { cwd: directory, env });
    assert.equal(imported.code, 0, imported.stderr);
    const text = await readFile(path.join(directory, 'throng.toml'), 'utf8');
    assert.match(text, /\$\{CENTRIFUGO_VAR_TOKEN_KEY\}/);
    assert.ok(!text.includes(`"${env.CENTRIFUGO_VAR_TOKEN_KEY}"`));
    const checked = await run(check, { cwd: directory, env });
    assert.equal(checked.code, 0, checked.stdout + checked.stderr);
    const port = await freePort();
    const throng = await start(port, ['serve', '-c', 'throng.toml', `--http_server.port=${port}`]);
    await isThere(throng);
  });

  it('the environment of the compose file is the same server', TEST, async () => {
    const text = here(blocks.yaml[0]);
    const [, command] = text.match(/^ +command: throng (.*)$/m);
    const [, lines] = text.split('    environment:\n');
    const given = Object.fromEntries(lines.trimEnd().split('\n').map((line) => {
      const [, name, value] = line.match(/^ {6}(\w+): "?([^"]*)"?$/);
      return [name, value];
    }));
    const port = await freePort();
    await isThere(await start(port, command.split(' '), { ...given, CENTRIFUGO_HTTP_SERVER_PORT: String(port), THRONG_HTTP_SERVER_ADDRESS: '127.0.0.1' }, await emptyDirectory()));
  });

  /** Says what it must: a user with a token is subscribed, and recovers. */
  async function isThere(throng) {
    const client = new Centrifuge(throng.websocket, { websocket: WebSocket, token: token('ann') });
    const sub = client.newSubscription('chat:room');
    const [subscribed, heard] = [nextEvent(sub, 'subscribed'), nextEvent(sub, 'publication')];
    sub.subscribe();
    client.connect();
    assert.equal((await subscribed).recoverable, true);
    const { status } = await throng.post('/api/publish', { channel: 'chat:room', data: 1 }, { 'X-API-Key': 'change-me' });
    assert.equal(status, 200);
    assert.deepEqual((await heard).data, 1);
    client.disconnect();
  }

  /** nginx with this share for throng; without one, its line is taken out. */
  const configured = (share) => writeFile(path.join(directory, 'nginx.conf'), `pid ${directory}/nginx.pid; daemon off; error_log stderr crit;
    events { worker_connections 512; } http { access_log off; ${here(blocks.nginx[0]).replace(/ +10% .*\n/, (line) => (share ? line.replace('10% ', share) : ''))} }`);

  async function visitors() {
    return Promise.all(Array.from({ length: VISITORS }, async (_, n) => {
      const Visitor = class extends WebSocket {
        constructor(url, protocols) {
          super(url, protocols, { headers: { 'User-Agent': `visitor ${n}` }, origin: `http://localhost:${ports.nginx}` });
        }
      };
      const client = new Centrifuge(`ws://127.0.0.1:${ports.nginx}/connection/websocket`, { websocket: Visitor, token: token(`${n}`) });
      const sub = client.newSubscription('chat:all');
      const heard = gather(sub, 'publication', ({ data }) => data.text);
      const subscribed = nextEvent(sub, 'subscribed');
      sub.subscribe();
      client.connect();
      await subscribed;
      return { client, heard };
    }));
  }

  const clientsOf = async (throng) => {
    const { body } = await throng.post('/api/info', {}, { 'X-API-Key': 'change-me' });
    return body.result.nodes[0].num_clients;
  };

  /** How many of so many visitors come to each of the two. */
  async function shares() {
    const came = await visitors();
    const counts = await Promise.all(servers.slice(0, 2).map(clientsOf));
    for (const { client } of came) client.disconnect();
    for (const throng of servers.slice(0, 2)) while (await clientsOf(throng) > 0) await wait(20);
    return counts;
  }

  it('a tenth of the clients come to throng, and all hear what is published at both; then all, and none', TEST, async () => {
    await configured('10% ');
    nginx = spawn(NGINX, ['-p', directory, '-c', path.join(directory, 'nginx.conf')], { stdio: 'ignore' });
    for (let isUp = false; !isUp; await wait(20)) {
      const socket = net.connect(ports.nginx, '127.0.0.1');
      isUp = await once(socket, 'connect').then(() => true, () => false);
      socket.destroy();
    }
    const came = await visitors();
    const [old, young] = await Promise.all(servers.slice(0, 2).map(clientsOf));
    assert.equal(old + young, VISITORS);
    assert.ok(young > 0 && young < VISITORS / 3, `${young} of ${VISITORS}`);
    const args = ['publish.py', `http://127.0.0.1:${ports.old}`, `http://127.0.0.1:${ports.new}`, 'chat:all', 'hello'];
    await promisify(execFile)('python3', args, { cwd: directory });
    for (const { heard } of came) assert.deepEqual(await heard.until(1), ['hello']);
    for (const { client } of came) client.disconnect();

    // The way on, and the way back.
    for (const [share, expected] of [['100% ', [0, VISITORS]], [undefined, [VISITORS, 0]]]) {
      await configured(share);
      await promisify(execFile)(NGINX, ['-p', directory, '-c', path.join(directory, 'nginx.conf'), '-s', 'reload']);
      // The old workers take some more connections meanwhile.
      for (let got; JSON.stringify(got) !== JSON.stringify(expected);) got = await shares();
    }
  });
});
