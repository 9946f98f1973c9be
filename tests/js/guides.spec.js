// The guides' own blocks, run as they stand there; only ports and directories are others.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { chmod, rm, writeFile } from 'node:fs/promises';
import net from 'node:net';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { promisify } from 'node:util';

import WebSocket from 'ws';

import { blocks } from './blocks.js';
import { launch } from './browser.js';
import { BIN, Throng, emptyDirectory, freePort } from './throng.js';

const TEST = { timeout: 60_000 };
const PYTHON = path.join(path.dirname(BIN), '../tornado/bin/python');
const NGINX = ['/usr/sbin/nginx', '/usr/bin/nginx'].find(existsSync);

/** Waits until somebody listens there. */
async function listens(port) {
  for (;;) {
    const socket = net.connect(port, '127.0.0.1');
    try {
      await once(socket, 'connect');
      return;
    } catch {
      await wait(20);
    } finally {
      socket.destroy();
    }
  }
}

describe('from Tornado', { skip: existsSync(PYTHON) && NGINX ? false : 'no Tornado in target/tornado, or no nginx' }, () => {
  const started = [];
  let directory;
  let throng;
  let browser;
  let ports;

  function start(program, args) {
    // What its own children inherit of ours would keep the test's output open.
    const child = spawn(program, args, { cwd: directory, stdio: 'ignore' });
    started.push(child);
    return child;
  }

  /** A block with this test's ports and directories in it. */
  function here(block) {
    return block
      .replaceAll('8888', ports.after).replaceAll('8887', ports.before)
      .replaceAll('8000', ports.throng).replaceAll('8080', ports.nginx)
      .replaceAll('/var/www/push', directory);
  }

  const page = (block) => `<!doctype html><ul></ul><script>
    const PUSH = location.origin.replace('http', ${JSON.stringify(block.includes('new WebSocket') ? 'ws' : 'http')});
    const show = (text) => document.querySelector('ul').append(Object.assign(document.createElement('li'), { textContent: text }));
    ${block}</script>`;

  before(async () => {
    directory = await emptyDirectory();
    // nginx reads it as another user.
    await chmod(directory, 0o755);
    ports = { before: await freePort(), after: await freePort(), throng: await freePort(), nginx: await freePort() };
    const all = await blocks('from-tornado.md');
    const of = (language) => all.filter(([each]) => each === language).map(([, block]) => block);
    const [beforePy, afterPy] = of('python');
    await writeFile(path.join(directory, 'before.py'), beforePy);
    await writeFile(path.join(directory, 'after.py'), afterPy);
    const [oldPage, socketPage, sourcePage] = of('js');
    await writeFile(path.join(directory, 'before.html'), page(oldPage));
    await writeFile(path.join(directory, 'after.html'), page(socketPage));
    await writeFile(path.join(directory, 'source.html'), page(sourcePage));
    const [toml] = of('toml');
    await writeFile(path.join(directory, 'throng.toml'), `trusted_proxies = ["127.0.0.1/32"]\n${here(toml)}`);
    const [nginx] = of('nginx');
    await writeFile(path.join(directory, 'nginx.conf'), `pid ${directory}/nginx.pid; daemon off; error_log stderr crit;
      events {} http { access_log off; types { text/html html; } ${here(nginx).replace('location = / {', `location ~ [.]html$ { root ${directory}; } location = / {`)} }`);
    start(PYTHON, ['before.py', ports.before]);
    start(PYTHON, ['after.py', ports.after, `http://127.0.0.1:${ports.throng}`]);
    throng = await Throng.start({ port: ports.throng, config: path.join(directory, 'throng.toml'), cwd: directory });
    start(NGINX, ['-p', directory, '-c', path.join(directory, 'nginx.conf')]);
    await Promise.all(Object.values(ports).map(listens));
    browser = await launch();
  });
  after(async () => {
    await browser?.close();
    await throng?.stop();
    // nginx ends its workers when it is asked to end, and not when it is killed.
    await Promise.all(started.map((child) => {
      const ended = once(child, 'exit');
      child.kill('SIGTERM');
      return ended;
    }));
    if (directory) await rm(directory, { recursive: true, force: true });
  });

  /** A page as this user, who has logged in. */
  async function visit(user, file) {
    const context = await browser.newContext();
    await context.addCookies([{ name: 'user', value: user, url: `http://localhost:${ports.nginx}` }]);
    const tab = await context.newPage();
    // nginx decides who gets which page; here each is wanted.
    await tab.goto(`http://localhost:${ports.nginx}/${file}`);
    return tab;
  }

  async function send(port, user, text) {
    const answer = await fetch(`http://127.0.0.1:${port}/send/${user}`, { method: 'POST', body: new URLSearchParams({ text }) });
    assert.equal(answer.status, 200);
  }

  it('the old server and its page are what they were', TEST, async () => {
    const tab = await visit('ann', 'before.html');
    // The handler has no word for "connected"; what is sent again and again arrives at last.
    for (;;) {
      await send(ports.before, 'ann', 'old');
      if (await tab.locator('li').count() > 0) break;
      await wait(20);
    }
    assert.equal(await tab.locator('li').first().textContent(), 'old');
  });

  for (const file of ['after.html', 'source.html']) {
    it(`the new page hears its user's messages: ${file}`, TEST, async () => {
      const [ann, bob] = [await visit('ann', file), await visit('bob', file)];
      for (const user of ['ann', 'bob']) {
        for (;;) {
          const answer = await fetch(`${throng.http}/api/channels`, {
            method: 'POST', headers: { 'X-API-Key': 'change-me' }, body: JSON.stringify({ pattern: `#${user}` }),
          });
          const { result } = await answer.json();
          if (result.channels[`#${user}`]) break;
          await wait(20);
        }
      }
      await send(ports.after, 'ann', 'for ann');
      await send(ports.after, 'bob', 'for bob');
      await ann.locator('li').first().waitFor();
      await bob.locator('li').first().waitFor();
      assert.deepEqual(await ann.locator('li').allTextContents(), ['for ann']);
      assert.deepEqual(await bob.locator('li').allTextContents(), ['for bob']);
      await ann.context().close();
      await bob.context().close();
    });
  }

  it('who is not logged in is told so', TEST, async () => {
    const socket = new WebSocket(`ws://127.0.0.1:${ports.nginx}/connection/uni_websocket`);
    socket.on('open', () => socket.send('{}'));
    const [code, reason] = await once(socket, 'close');
    assert.deepEqual([code, String(reason)], [4501, 'log in first']);
  });

  it('nginx gives a tenth of the visitors the new page', TEST, async () => {
    let news = 0;
    for (let n = 0; n < 300; n += 1) {
      const answer = await fetch(`http://127.0.0.1:${ports.nginx}/`, { headers: { 'User-Agent': `visitor ${n}` } });
      if ((await answer.text()).includes('uni_websocket')) news += 1;
    }
    assert.ok(news > 10 && news < 60, `${news} of 300`);
  });

  it('the question can be tried by hand', TEST, async () => {
    const { stdout } = await promisify(execFile)(BIN, ['backend', 'try', 'connect', '-c', 'throng.toml', '--header', 'Cookie: user=ann'], { cwd: directory });
    assert.match(stdout, /"user": ?"ann"/);
    assert.match(stdout, /X-Real-IP/i);
  });
});
