// The first hour with throng: a configuration is written, a page connects; then one thing after
// another is taken away, and each time one line of the log names the option behind the refusal.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile, readdir, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';

import { Centrifuge } from 'centrifuge';
import WebSocket from 'ws';

import { Throng, emptyDirectory, freePort, nextEvent, run } from './throng.js';

const TEST = { timeout: 30_000 };
const ORIGIN = 'https://app.example.com';

let directory;
let file;
let written;
let printed;

before(async () => {
  directory = await emptyDirectory();
  printed = await run(['config', 'init', '--origin', ORIGIN], { cwd: directory });
  assert.equal(printed.code, 0, printed.stderr);
  const [name] = await readdir(directory);
  file = path.join(directory, name);
  written = await readFile(file, 'utf8');
});
after(() => rm(directory, { recursive: true, force: true }));

/** The value of an option that stands on a line of its own in the TOML file. */
function option(name) {
  const found = written.match(new RegExp(`^${name}\\s*=\\s*"([^"]+)"`, 'm'));
  assert.ok(found, `${name} is in the file`);
  return found[1];
}

/** The file with one option changed. */
function changed(name, value) {
  const line = new RegExp(`^${name}\\s*=.*$`, 'm');
  assert.match(written, line);
  return written.replace(line, `${name} = ${value}`);
}

async function serve(text) {
  const port = await freePort();
  const config = path.join(directory, `trial-${port}.toml`);
  await writeFile(config, text, { mode: 0o600 });
  return Throng.start({ port, config, cwd: directory, env: { THRONG_HTTP_SERVER_PORT: String(port) } });
}

/** Runs `trial` against a server with that configuration; what it returns must be said in one line. */
async function refusal(text, trial, name) {
  const throng = await serve(text);
  try {
    const before = throng.lines.length;
    await trial(throng);
    const line = await throng.line(name, before);
    const lines = throng.lines.slice(before).filter((other) => other.includes(name));
    assert.deepEqual(lines, [line]);
  } finally {
    await throng.stop();
  }
}

async function token() {
  const made = await run(['token', '--user', 'alice', '-c', file], { cwd: directory });
  assert.equal(made.code, 0, made.stderr);
  return made.stdout.match(/[\w-]+\.[\w-]+\.[\w-]+/)[0];
}

class FromPage extends WebSocket {
  constructor(url, protocols) {
    super(url, protocols, { origin: ORIGIN });
  }
}

async function client(throng) {
  const page = new Centrifuge(throng.websocket, { websocket: FromPage, token: await token() });
  page.on('error', () => {});
  return page;
}

describe('config init', () => {
  it('writes a file that only its owner reads, with keys of its own', TEST, async () => {
    assert.equal((await stat(file)).mode & 0o777, 0o600);
    assert.ok(option('hmac_secret_key').length >= 32);
    assert.ok(option('key').length >= 32);
    assert.notEqual(option('hmac_secret_key'), option('key'));
    assert.ok(written.includes(ORIGIN));
  });

  it('prints what to do next, and does not print a secret by accident', TEST, async () => {
    assert.match(printed.stdout, /throng serve/);
    assert.match(printed.stdout, /throng publish/);
    assert.ok(!printed.stderr.includes(option('hmac_secret_key')));
  });

  it('does not overwrite a file', TEST, async () => {
    const again = await run(['config', 'init', '--origin', ORIGIN], { cwd: directory });
    assert.notEqual(again.code, 0);
    assert.equal(await readFile(file, 'utf8'), written);
  });

  it('passes its own check', TEST, async () => {
    const checked = await run(['config', 'check', '-c', file], { cwd: directory });
    assert.equal(checked.code, 0, checked.stdout + checked.stderr);
  });
});

describe('the first page', () => {
  it('connects, subscribes and receives what the API publishes', TEST, async () => {
    const throng = await serve(written);
    const page = await client(throng);
    try {
      const sub = page.newSubscription('news');
      const joined = nextEvent(sub, 'subscribed');
      const heard = nextEvent(sub, 'publication');
      sub.subscribe();
      page.connect();
      await joined;
      const published = await throng.post('/api/publish', { channel: 'news', data: { text: 'hi' } }, { 'X-API-Key': option('key') });
      assert.equal(published.status, 200);
      assert.deepEqual((await heard).data, { text: 'hi' });
    } finally {
      page.disconnect();
      await throng.stop();
    }
  });

  it('without the token’s key: 3500, and client.token.hmac_secret_key is named', TEST, async () => {
    await refusal(changed('hmac_secret_key', '""'), async (throng) => {
      const page = await client(throng);
      const closed = nextEvent(page, 'disconnected');
      page.connect();
      assert.equal((await closed).code, 3500);
    }, 'client.token.hmac_secret_key');
  });

  it('without the origin: 403, and client.allowed_origins is named', TEST, async () => {
    await refusal(changed('allowed_origins', '[]'), async (throng) => {
      const [, response] = await once(new FromPage(throng.websocket), 'unexpected-response');
      assert.equal(response.statusCode, 403);
    }, 'client.allowed_origins');
  });

  it('without the API’s key in the file: 401, and http_api.key is named', TEST, async () => {
    const key = option('key');
    await refusal(changed('key', '""'), async (throng) => {
      const answer = await throng.post('/api/publish', { channel: 'news', data: 1 }, { 'X-API-Key': key });
      assert.equal(answer.status, 401);
    }, 'http_api.key');
  });

  it('without the API’s key in the header: 401, and http_api.key is named', TEST, async () => {
    await refusal(written, async (throng) => {
      const answer = await throng.post('/api/publish', { channel: 'news', data: 1 });
      assert.equal(answer.status, 401);
    }, 'http_api.key');
  });

  it('without the permission: 103, and allow_subscribe_for_client is named', TEST, async () => {
    await refusal(changed('allow_subscribe_for_client', 'false'), async (throng) => {
      const page = await client(throng);
      const sub = page.newSubscription('news');
      const ended = nextEvent(sub, 'unsubscribed');
      sub.subscribe();
      page.connect();
      assert.equal((await ended).code, 103);
      page.disconnect();
    }, 'allow_subscribe_for_client');
  });
});
