// The first of the README's two commands, as somebody types it who has just cloned this.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { it } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';

import { freePort } from './throng.js';

const ROOT = path.resolve(import.meta.dirname, '../..');
const PATIENCE_MS = 240_000;

it('make run opens the playground, and what is published arrives', { timeout: PATIENCE_MS + 10_000 }, async () => {
  const port = await freePort();
  const make = spawn('make', ['run', `ARGS=-p ${port}`], { cwd: ROOT, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = once(make, 'exit');
  let said = '';
  for (const stream of [make.stdout, make.stderr]) stream.setEncoding('utf8').on('data', (more) => { said += more; });
  const at = `http://127.0.0.1:${port}`;
  try {
    const deadline = Date.now() + PATIENCE_MS;
    let page;
    while (!page) {
      assert.ok(make.exitCode === null && Date.now() < deadline, said);
      // What answers first is there when it is built, which depends on what was built before.
      page = await fetch(at).then((answer) => answer.text(), () => wait(200));
    }
    assert.match(page, /<html/);
    const published = await fetch(`${at}/api/publish`, {
      method: 'POST', body: JSON.stringify({ channel: 'news', data: { text: 'hi' } }),
    });
    assert.ok((await published.json()).result);
  } finally {
    if (make.exitCode === null) process.kill(-make.pid, 'SIGTERM');
    await ended;
  }
});
