// The OpenAPI document of the server API against the server: schemathesis makes requests out of it, good and bad ones,
// and holds every answer against it.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';

import { API_KEY, BIN, Throng, configuration, freePort, run } from './throng.js';

const TEST = { timeout: 240_000 };
const ST = path.join(path.dirname(BIN), '../schemathesis/bin/st');
const skip = existsSync(ST) ? false : 'no schemathesis in target/schemathesis: scripts/need --install schemathesis';

/** Closes the objects of the answers: what an answer holds and the document does not tell is a failure. */
function closed(schema) {
  if (typeof schema !== 'object' || schema === null) return schema;
  if (Array.isArray(schema)) return schema.map(closed);
  const inner = Object.fromEntries(Object.entries(schema).map(([name, part]) => [name, closed(part)]));
  return inner.properties && inner.type === 'object' ? { additionalProperties: false, ...inner } : inner;
}

describe('OpenAPI', { skip }, () => {
  let throng;
  let maps;
  let polls;
  let document;

  before(async () => {
    const start = async (everything, more = {}) => {
      const port = await freePort();
      const channel = { max_length: 100_000, without_namespace: everything, proxy: more.proxy };
      const config = { ...configuration(port), shared_poll: more.shared_poll, channel };
      return Throng.start({ port, config });
    };
    // Channels of any name keep history and presence, so that only what the document forbids is refused.
    const any = { channel_regex: '(?s)^.*$' };
    const everything = { ...configuration(0).channel.namespaces.find(({ name }) => name === 'chat'), ...any };
    delete everything.name;
    throng = await start(everything);
    maps = await start({ ...any, subscription_type: 'map', map: { mode: 'recoverable', key_ttl: '1m' } });
    polls = await start(
      { ...any, subscription_type: 'shared_poll', shared_poll: { mode: 'versioned', publish_enabled: true } },
      { shared_poll: { hmac_secret_key: 'secret' }, proxy: { shared_poll_refresh: { endpoint: 'http://127.0.0.1:9/' } } },
    );
    const { stdout } = await run(['openapi']);
    // Bounds that a number here would not hold exactly are carried as text.
    const { paths, components, ...head } = JSON.parse(stdout.replace(/: (-?\d{16,})/g, ': "=$1"'));
    for (const { post } of Object.values(paths)) post.responses = closed(post.responses);
    document = path.join(throng.cwd, 'openapi.json');
    const whole = JSON.stringify({
      ...head,
      paths,
      components: { ...components, schemas: closed(components.schemas), responses: closed(components.responses) },
    });
    await writeFile(document, whole.replace(/"=(-?\d{16,})"/g, '$1'));
  });
  after(async () => {
    await throng?.stop();
    await maps?.stop();
    await polls?.stop();
  });

  /** What schemathesis says when it is through, where it found something. */
  function schemathesis(server, ...more) {
    const args = [
      'run', document, '--url', `${server.http}/api`, '--header', `X-API-Key: ${API_KEY}`,
      '--checks', 'all', '--max-examples', '20', '--seed', '1', '--no-shrink', '--continue-on-failure',
      '--generation-database', 'none', '--warnings', 'off', '--no-color', ...more,
    ];
    return new Promise((resolve) => {
      execFile(ST, args, { cwd: throng.cwd, timeout: TEST.timeout, maxBuffer: 1 << 26 }, (error, stdout, stderr) => {
        resolve(error ? `${error.code ?? error.signal}\n${stdout}${stderr}` : '');
      });
    });
  }

  it('tells of every answer, with errors in the body', TEST, async () => {
    const found = (server, ...more) => schemathesis(
      server,
      '--header', 'X-Centrifugo-Error-Mode: body',
      // A bad request is answered with 200 and an error, as Centrifugo's backends expect.
      '--exclude-checks', 'negative_data_rejection',
      ...more,
    );
    assert.equal(await found(throng, '--exclude-path-regex', '/(map_|shared_poll_)'), '');
    assert.equal(await found(maps, '--include-path-regex', '/map_'), '');
    assert.equal(await found(polls, '--include-path-regex', '/shared_poll_'), '');
  });

  it('tells of every answer, with errors as statuses, and of what is a bad request', TEST, async () => {
    const found = (server, ...more) => schemathesis(
      server, '--header', 'X-Centrifugo-Error-Mode: transport', ...more,
    );
    // Its reverse read from 0 is answered with the error 100, as Centrifugo's is, and that is the status 500.
    assert.equal(await found(throng, '--exclude-path-regex', '/(map_|shared_poll_|history$)'), '');
    // A read from a place of another life of the map is refused, and which those are no document can tell.
    assert.equal(await found(maps, '--include-path-regex', '/map_(publish|remove|stats|clear)'), '');
    assert.equal(await found(polls, '--include-path-regex', '/shared_poll_'), '');
  });
});
