// docs/getting-started.md as somebody follows it who is new: its blocks are run as they stand there; only ports and names
// of hosts are others.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFile, readFile, writeFile } from 'node:fs/promises';
import http from 'node:http';
import path from 'node:path';
import readline from 'node:readline';
import { after, before, describe, it } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { blocksOf, commands } from './blocks.js';
import { launch } from './browser.js';
import { BIN, Throng, emptyDirectory, freePort, run } from './throng.js';

const TEST = { timeout: 60_000 };
const GUIDE = 'getting-started.md';
const SDK = fileURLToPath(new URL('node_modules/centrifuge/dist/centrifuge.js', import.meta.url));
const execute = promisify(execFile);

describe('getting started', () => {
  let directory;
  let site;
  let origin;
  let port;
  let env;
  let throng;
  let browser;
  let key;
  const [js, sh, python, toml] = [{}, {}, {}, {}];

  /** A block with this test's server in it. */
  const here = (block) => block
    .replaceAll('wss://push.example.com', `ws://127.0.0.1:${port}`)
    .replaceAll('https://push.example.com', `http://127.0.0.1:${port}`)
    .replaceAll('localhost:8000', `127.0.0.1:${port}`);

  const pages = {
    '/socket': () => withToken(js.blocks.has('new WebSocket(')),
    '/source': () => withToken(js.blocks.has('new EventSource(')),
    '/sdk': () => js.blocks.has('new Centrifuge('),
  };
  const withToken = (block) => `const tokenFromYourApplication = await (await fetch('/push-token')).text();\n${block}`;

  async function answer(request, response) {
    if (request.url === '/push-token') {
      const { stdout } = await execute('python3', ['token.py', '42', key.secret], { cwd: directory });
      return response.end(stdout.trim());
    }
    if (request.url === '/sdk.js') {
      response.writeHead(200, { 'Content-Type': 'text/javascript' });
      return response.end(`${await readFile(SDK, 'utf8')}\nexport const Centrifuge = globalThis.Centrifuge;`);
    }
    if (!pages[request.url]) return response.writeHead(204).end();
    response.writeHead(200, { 'Content-Type': 'text/html; charset=utf-8' });
    return response.end(`<!doctype html><script type="importmap">{"imports":{"centrifuge":"/sdk.js"}}</script>
      <script type="module">${here(pages[request.url]())}</script>`);
  }

  before(async () => {
    for (const [language, into] of Object.entries({ js, sh, python, toml })) into.blocks = await blocksOf(GUIDE, language);
    directory = await emptyDirectory();
    port = await freePort();
    env = { THRONG_HTTP_SERVER_ADDRESS: '127.0.0.1', THRONG_HTTP_SERVER_PORT: String(port) };
    site = http.createServer(answer).listen(0, '127.0.0.1');
    await once(site, 'listening');
    origin = `http://127.0.0.1:${site.address().port}`;

    const [init, serve] = commands(sh.blocks.has('throng config init')).filter((line) => line.startsWith('throng '));
    const made = await run(init.replace('https://app.example.com', origin).split(' ').slice(1), { cwd: directory });
    assert.equal(made.code, 0, made.stderr);
    const file = path.join(directory, 'throng.toml');
    const text = await readFile(file, 'utf8');
    const value = (name) => text.match(new RegExp(`^${name}\\s*=\\s*"([^"]+)"`, 'm'))[1];
    key = { secret: value('hmac_secret_key'), api: value('key') };
    await appendFile(file, `\n${toml.blocks.has('[uni_websocket]')}\n[uni_sse]\nenabled = true\n`);
    await writeFile(path.join(directory, 'token.py'), `${python.blocks.has('def push_token')}\nimport sys\nprint(push_token(*sys.argv[1:]))\n`);
    await writeFile(path.join(directory, 'publish.py'), `${here(python.blocks.has('def publish'))}\nimport sys\nprint(json.dumps(publish(sys.argv[1], json.loads(sys.argv[2]), sys.argv[3])))\n`);
    await writeFile(path.join(directory, 'publish.mjs'), `${here(js.blocks.has('const publish'))}\nconsole.log(JSON.stringify(await publish(process.argv[2], JSON.parse(process.argv[3]))));\n`);
    throng = await Throng.start({ port, cwd: directory, args: serve.split(' ').slice(1), env });
    browser = await launch();
  });
  after(async () => {
    await browser?.close();
    await throng?.stop();
    site?.close();
    site?.closeAllConnections();
  });

  /** Waits until so many are subscribed to the channel of the guide. */
  async function subscribed(count) {
    for (;;) {
      const { body } = await throng.post('/api/presence_stats', { channel: 'news' }, { 'X-API-Key': key.api });
      const channels = await throng.post('/api/channels', { pattern: 'news' }, { 'X-API-Key': key.api });
      if (channels.body.result.channels.news?.num_clients === count) return body;
      await wait(20);
    }
  }

  /** A page of the guide, and what it logs. */
  async function visit(where) {
    const page = await browser.newPage();
    const logged = [];
    const complaints = [];
    page.on('console', async (message) => {
      if (message.type() === 'error') complaints.push(message.text());
      else logged.push(await Promise.all(message.args().map((argument) => argument.jsonValue())));
    });
    page.on('pageerror', (error) => complaints.push(String(error)));
    await page.goto(origin + where);
    const until = async (count) => {
      while (logged.length < count && complaints.length === 0) await wait(20);
      assert.deepEqual(complaints, []);
      return logged;
    };
    return { page, until };
  }

  for (const where of ['/socket', '/source']) {
    it(`a page without a library hears what curl publishes: ${where}`, TEST, async () => {
      const { page, until } = await visit(where);
      await subscribed(1);
      const { stdout } = await execute('sh', ['-c', here(sh.blocks.has('curl'))], { env: { ...process.env, KEY: key.api } });
      assert.deepEqual(Object.keys(JSON.parse(stdout).result).sort(), ['epoch', 'offset']);
      assert.deepEqual(await until(1), [['news', { text: 'hello' }]]);
      await page.close();
      await subscribed(undefined);
    });
  }

  it('a page with the SDK hears what Python and JavaScript publish', TEST, async () => {
    const { page, until } = await visit('/sdk');
    await subscribed(1);
    const fromPython = await execute('python3', ['publish.py', 'news', '{"from":"Python"}', key.api], { cwd: directory });
    const fromNode = await execute('node', ['publish.mjs', 'news', '{"from":"JavaScript"}'], { cwd: directory, env: { ...process.env, KEY: key.api } });
    for (const { stdout } of [fromPython, fromNode]) assert.ok(JSON.parse(stdout).result, stdout);
    assert.deepEqual(await until(2), [[{ from: 'Python' }], [{ from: 'JavaScript' }]]);
    await page.close();
    await subscribed(undefined);
  });

  it('throng subscribe hears what throng publish publishes', TEST, async () => {
    const [subscribe, publish] = commands(sh.blocks.has('throng publish'));
    const command = (line) => `exec ${line.replace(/^throng/, BIN)}`;
    const inShell = { cwd: directory, env: { ...process.env, THRONG_BIN: '', ...env } };
    const listening = spawn('sh', ['-c', command(subscribe)], { ...inShell, stdio: ['ignore', 'pipe', 'ignore'] });
    const ended = once(listening, 'exit');
    try {
      await subscribed(1);
      const { stdout } = await execute('sh', ['-c', command(publish)], inShell);
      assert.match(stdout, /1 /);
      for await (const line of readline.createInterface({ input: listening.stdout })) {
        if (line.includes('hello')) break;
      }
    } finally {
      listening.kill();
      await ended;
    }
  });
});
