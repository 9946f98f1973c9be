// A hand-written page without a library, from another origin, in a real browser.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import { after, before, describe, it } from 'node:test';

import { launch, openPage } from './browser.js';
import { Throng, configuration, freePort } from './throng.js';

const TEST = { timeout: 40_000 };

let browser;
let site;
let origin;

before(async () => {
  const page = await readFile(new URL('../../examples/plain.html', import.meta.url));
  site = http.createServer((request, response) => {
    const found = request.url.startsWith('/plain.html');
    response.writeHead(found ? 200 : 204, { 'Content-Type': 'text/html; charset=utf-8' }).end(found ? page : '');
  }).listen(0, '127.0.0.1');
  await once(site, 'listening');
  origin = `http://127.0.0.1:${site.address().port}`;
  browser = await launch();
});
after(async () => {
  await browser?.close();
  site?.close();
});

async function serverFor(allowedOrigins) {
  const port = await freePort();
  const base = configuration(port);
  return Throng.start({
    port,
    config: {
      ...base,
      uni_websocket: { enabled: true },
      client: { ...base.client, allowed_origins: allowedOrigins },
    },
  });
}

function openPlain(throng) {
  return openPage(browser, `${origin}/plain.html?channel=news&server=${encodeURIComponent(`ws://127.0.0.1:${throng.port}`)}`);
}

describe('a page without a library', () => {
  it('receives pushes when its origin is allowed', TEST, async () => {
    const throng = await serverFor([origin]);
    try {
      const page = await openPlain(throng);
      await page.locator('#state', { hasText: 'connected' }).waitFor();
      for (const n of [1, 2, 3]) await throng.publish('news', { n });
      await page.locator('#messages li').nth(2).waitFor();
      assert.deepEqual(await page.locator('#messages li').allTextContents(), ['{"n":3}', '{"n":2}', '{"n":1}']);
      assert.deepEqual(page.complaints, []);
      await page.close();
    } finally {
      await throng.stop();
    }
  });

  it('is refused when its origin is not, and the log says which option decides', TEST, async () => {
    const throng = await serverFor(['https://app.example.com']);
    try {
      const page = await openPlain(throng);
      await page.locator('#state', { hasText: 'closed (1006)' }).waitFor();
      assert.match(await throng.line('client.allowed_origins'), new RegExp(origin.replaceAll('.', '\\.')));
      await page.close();
    } finally {
      await throng.stop();
    }
  });
});
