// The playground of development mode, in a real browser.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import { after, before, describe, it } from 'node:test';

import WebSocket from 'ws';

import { launch, openPage } from './browser.js';
import { Throng, freePort, run } from './throng.js';

const TEST = { timeout: 40_000 };

let throng;
let browser;

before(async () => {
  const port = await freePort();
  // No configuration at all, as after a fresh clone; only the port is the test's.
  throng = await Throng.start({ port, args: ['serve', '--dev'], env: { THRONG_HTTP_SERVER_PORT: String(port) } });
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await throng?.stop();
});

async function playground(hash = '') {
  const page = await openPage(browser, `http://localhost:${throng.port}/${hash}`);
  await page.waitForSelector('#status[data-state=connected]');
  const first = decodeURIComponent(hash.slice(1).split(',')[0]) || 'news';
  await page.waitForSelector(`#channels .subscribed[data-channel="${first}"]`);
  return page;
}

const message = (page, text) => page.locator('#messages .message', { hasText: text }).first();

describe('the playground', () => {
  it('opens connected and subscribed to news, without a complaint', TEST, async () => {
    const page = await playground();
    assert.match(await page.textContent('#fact-client'), /^[0-9a-f]{8}$/);
    assert.match(await page.textContent('#fact-latency'), /ms$/);
    await page.locator('#people li', { hasText: 'this tab' }).waitFor();
    assert.deepEqual(page.complaints, []);
    await page.close();
  });

  it('is served under a policy that lets in nothing from elsewhere', TEST, async () => {
    const response = await fetch(`http://localhost:${throng.port}/`);
    assert.match(response.headers.get('content-type'), /^text\/html/);
    assert.match(response.headers.get('content-security-policy'), /default-src 'self'/);
  });

  it('shows in two tabs what one of them publishes, and who is here', TEST, async () => {
    const [one, two] = [await playground(), await playground()];
    await one.fill('#payload', 'from the first tab');
    await one.press('#payload', 'Enter');
    await message(one, 'from the first tab').waitFor();
    await message(two, 'from the first tab').waitFor();
    assert.equal(await message(one, 'from the first tab').locator('.from').textContent(), 'this tab');
    await one.locator('#people li').nth(1).waitFor();
    await two.close();
    // The other leaves the list as it leaves the channel.
    await one.waitForFunction(() => document.querySelectorAll('#people li').length === 1);
    assert.deepEqual(one.complaints, []);
    await one.close();
  });

  it('publishes JSON, and says what is wrong with what is not', TEST, async () => {
    const page = await playground('#json');
    await page.locator('label:has(input[value=json])').click();
    await page.fill('#payload', '{"a": ');
    await page.locator('#payload-note.wrong').waitFor();
    await page.fill('#payload', '{"a": [1, 2], "deep": {"b": null}}');
    await page.press('#payload', 'Control+Enter');
    await message(page, '"deep"').waitFor();
    await page.close();
  });

  it('shows what the server API publishes', TEST, async () => {
    const page = await playground();
    // Development mode asks for no key.
    const answer = await throng.post('/api/publish', { channel: 'news', data: { text: 'from curl' } });
    assert.equal(answer.status, 200);
    await message(page, 'from curl').waitFor();
    assert.equal(await message(page, 'from curl').locator('.from').textContent(), 'API');
    await page.close();
  });

  it('shows what `throng publish` publishes, and the command says to how many', TEST, async () => {
    const page = await playground('#crier');
    const published = await run(['publish', '--url', throng.http, 'crier', '{"text":"hear ye"}'], { cwd: throng.cwd });
    assert.equal(published.code, 0, published.stderr);
    assert.match(published.stdout, /published to crier: 1 subscriber/);
    await message(page, 'hear ye').waitFor();
    await page.close();
  });

  it('is subscribed to several channels at once, and can leave one', TEST, async () => {
    const page = await playground('#red,blue');
    await throng.post('/api/publish', { channel: 'red', data: 'r1' });
    await throng.post('/api/publish', { channel: 'blue', data: 'b1' });
    await message(page, 'r1').waitFor();
    await message(page, 'b1').waitFor();
    await page.click('#channels [data-channel=blue] .remove');
    await throng.post('/api/publish', { channel: 'blue', data: 'b2' });
    await throng.post('/api/publish', { channel: 'red', data: 'r2' });
    await message(page, 'r2').waitFor();
    assert.equal(await page.locator('#messages .message', { hasText: 'b2' }).count(), 0);
    await page.close();
  });

  it('recovers what it missed while the network was away', TEST, async () => {
    const page = await playground('#gap');
    await throng.post('/api/publish', { channel: 'gap', data: 'before' });
    await message(page, 'before').waitFor();
    await page.click('#drop');
    await page.waitForSelector('#status[data-state=waiting]');
    for (const n of [1, 2, 3]) await throng.post('/api/publish', { channel: 'gap', data: `missed ${n}` });
    await page.click('#notice-again');
    await page.locator('#messages .gap.kept', { hasText: '3 messages recovered' }).waitFor();
    const texts = await page.locator('#messages .message pre').allTextContents();
    assert.deepEqual(texts, ['"missed 3"', '"missed 2"', '"missed 1"', '"before"']);
    await page.close();
  });

  it('loads history, without showing a message twice', TEST, async () => {
    for (const n of [1, 2, 3]) await throng.post('/api/publish', { channel: 'past', data: `past ${n}` });
    const page = await playground('#past');
    await throng.post('/api/publish', { channel: 'past', data: 'live' });
    await message(page, 'live').waitFor();
    await page.click('#history');
    await page.locator('#messages .gap', { hasText: '3 from the history' }).waitFor();
    assert.equal(await page.locator('#messages .message').count(), 4);
    await page.close();
  });

  it('explains a close in plain words, and comes back when asked', TEST, async () => {
    const page = await playground();
    await throng.post('/api/disconnect', { user: '' });
    await page.waitForSelector('#status[data-state=closed]');
    assert.match(await page.textContent('#notice-title'), /3503/);
    assert.equal(await page.textContent('#notice-do'), 'throng explain 3503');
    await page.click('#toggle');
    await page.waitForSelector('#status[data-state=connected]');
    await page.close();
  });

  it('shows the frames, and snippets that follow the channel and the data', TEST, async () => {
    const page = await playground('#snippets');
    await page.click('#wire-toggle');
    await page.locator('#wire li', { hasText: '"subscribe"' }).first().waitFor();
    await page.fill('#payload', "it's on");
    const shown = await page.textContent('#terminal');
    assert.ok(shown.includes(`publish snippets '{"text":"it'\\''s on"}'`), shown);
    assert.ok(shown.includes(`http://localhost:${throng.port}/api/publish`), shown);
    for (const name of ['JavaScript', 'Python', 'Go', 'Dart', 'Swift', 'Plain JS']) {
      await page.click(`#tabs button:text-is("${name}")`);
      assert.ok((await page.textContent('#code code')).includes('"snippets"'), name);
    }
    assert.deepEqual(page.complaints, []);
    await page.close();
  });

  it('stays bounded under a flood', TEST, async () => {
    const page = await playground('#flood');
    for (let batch = 0; batch < 8; batch += 1) {
      const commands = Array.from({ length: 100 }, (_, n) => ({ publish: { channel: 'flood', data: batch * 100 + n + 1 } }));
      await throng.post('/api/batch', { commands });
    }
    await page.waitForFunction(() => document.querySelector('#messages .message pre')?.textContent === '800');
    assert.equal(await page.locator('#messages .message').count(), 500);
    await page.close();
  });
});

describe('development mode', () => {
  // `fetch` does not let a caller choose Host or Upgrade, an attacker's page may.
  async function status(headers) {
    const request = http.request(`${throng.http}/api/info`, { method: 'POST', headers });
    request.end('{}');
    const [response] = await once(request, 'response');
    response.resume();
    return response.statusCode;
  }

  it('answers under every name of this machine', TEST, async () => {
    for (const name of ['localhost', '127.0.0.1', '[::1]']) {
      const host = `${name}:${throng.port}`;
      assert.equal(await status({ Host: host, Origin: `http://${host}` }), 200, name);
    }
  });

  it('refuses a Host or an Origin from elsewhere, on the API too', TEST, async () => {
    for (const headers of [
      { Origin: 'https://evil.example' },
      { Origin: 'null' },
      { Host: `evil.example:${throng.port}` },
      { Origin: 'http://localhost.evil.example' },
    ]) {
      assert.equal(await status(headers), 403, JSON.stringify(headers));
    }
  });

  it('refuses a WebSocket from a page elsewhere', TEST, async () => {
    const socket = new WebSocket(throng.websocket, { origin: 'https://evil.example' });
    const [, response] = await once(socket, 'unexpected-response');
    assert.equal(response.statusCode, 403);
  });
});
