// Tokens that an identity provider signs: its keys are fetched, change, and are not to be had.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { generateKeyPairSync, sign } from 'node:crypto';
import { once } from 'node:events';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';

import { Centrifuge } from 'centrifuge';
import WebSocket from 'ws';

import { Throng, configuration, emptyDirectory, freePort, inSeconds, nextEvent, run } from './throng.js';

const TEST = { timeout: 60_000 };

const base64url = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

const KINDS = {
  RS256: ['rsa', { modulusLength: 2048 }, 'sha256'],
  ES256: ['ec', { namedCurve: 'P-256' }, 'sha256'],
  ES384: ['ec', { namedCurve: 'P-384' }, 'sha384'],
  ES512: ['ec', { namedCurve: 'P-521' }, 'sha512'],
  EdDSA: ['ed25519', {}, null],
};

/** A pair of keys that signs tokens. */
class Signer {
  constructor(alg, kid) {
    const [kind, options, hash] = KINDS[alg];
    Object.assign(this, generateKeyPairSync(kind, options), { alg, kid, hash });
  }

  get jwk() { return { ...this.publicKey.export({ format: 'jwk' }), kid: this.kid, use: 'sig', alg: this.alg }; }
  get publicPem() { return this.publicKey.export({ format: 'pem', type: 'spki' }); }
  get privatePem() { return this.privateKey.export({ format: 'pem', type: 'pkcs8' }); }

  token(claims, kid = this.kid) {
    const head = `${base64url({ alg: this.alg, typ: 'JWT', kid })}.${base64url({ aud: 'app', exp: inSeconds(600), ...claims })}`;
    const key = { key: this.privateKey, dsaEncoding: 'ieee-p1363' };
    return `${head}.${sign(this.hash, Buffer.from(head), key).toString('base64url')}`;
  }
}

/** A place that publishes keys, and counts who asks. */
class Provider {
  keys = [];
  status = 200;
  asked = 0;
  #answers;

  static async start() {
    const provider = new Provider();
    provider.server = createServer(async (_, response) => {
      provider.asked += 1;
      await provider.#answers;
      const jwks = JSON.stringify({ keys: provider.keys.map(({ jwk }) => jwk) });
      response.writeHead(provider.status, { 'Content-Type': 'application/json' }).end(jwks);
    }).listen(0, '127.0.0.1');
    await once(provider.server, 'listening');
    return provider;
  }

  get url() { return `http://127.0.0.1:${this.server.address().port}/keys`; }

  /** Who asks waits until the function that this returns is called. */
  hold() {
    let release;
    this.#answers = new Promise((resolve) => { release = resolve; });
    return release;
  }

  stop() {
    this.server.closeAllConnections();
    this.server.close();
  }
}

const clients = [];
after(() => { for (const client of clients) client.disconnect(); });

function newClient(throng, options) {
  const client = new Centrifuge(throng.websocket, { websocket: WebSocket, minReconnectDelay: 50, maxReconnectDelay: 200, ...options });
  client.on('error', () => {});
  clients.push(client);
  return client;
}

/** Connects with this token; what came of it: `connected`, or the code of a close or an error. */
async function tried(throng, token) {
  const client = newClient(throng, { token });
  const ends = Promise.race([
    nextEvent(client, 'connected').then(() => 'connected'),
    nextEvent(client, 'disconnected').then(({ code }) => code),
    nextEvent(client, 'error').then(({ error }) => error.code),
  ]);
  client.connect();
  const end = await ends;
  client.disconnect();
  return end;
}

function start(port, token, more = {}, env = {}) {
  const base = configuration(port);
  return Throng.start({ port, env, config: { ...base, client: { token: { audience: 'app', ...token }, ...more } } });
}

describe('keys of an identity provider', () => {
  let provider;
  let throng;
  const first = new Signer('ES256', 'first');
  before(async () => {
    provider = await Provider.start();
    provider.keys = [first, ...['RS256', 'ES384', 'ES512', 'EdDSA'].map((alg) => new Signer(alg, alg))];
    throng = await start(await freePort(), { jwks_public_endpoint: provider.url });
  });
  after(async () => {
    provider.stop();
    await throng?.stop();
  });

  it('are fetched once for all who come together, and serve every algorithm', TEST, async () => {
    const release = provider.hold();
    const users = provider.keys.flatMap((key) => Array.from({ length: 20 }, (_, at) => key.token({ sub: `user ${at}` })));
    const ends = users.map((token) => tried(throng, token));
    await wait(200);
    release();
    assert.deepEqual(new Set(await Promise.all(ends)), new Set(['connected']));
    assert.equal(provider.asked, 1);
  });

  it('do not accept what another key has signed, nor a secret, nor none', TEST, async () => {
    const forger = new Signer('ES256', 'first');
    assert.equal(await tried(throng, forger.token({ sub: 'root' })), 3500);
    assert.equal(await tried(throng, first.token({ sub: 'root', aud: 'another' })), 3500);
    assert.equal(await tried(throng, first.token({ sub: 'root', exp: inSeconds(-1) })), 109);
    const [, claims] = first.token({ sub: 'root' }).split('.');
    assert.equal(await tried(throng, `${base64url({ alg: 'none' })}.${claims}.`), 3500);
    assert.equal(await tried(throng, `${base64url({ alg: 'HS256', kid: 'first' })}.${claims}.AAAA`), 3500);
    const line = await throng.line('made with another key');
    assert.match(line, /3500/);
    const ran = await run(['who', '--json', '--pid', String(throng.process.pid)]);
    assert.match(ran.stdout, /made with another key, or changed/);
    assert.match(ran.stdout, /aud \(another\) is not what client.token.audience asks for/);
    for (const text of [ran.stdout, throng.lines.join()]) assert.ok(!text.includes(claims));
  });

  it('that change are found, and a flood of unknown ones asks once in ten seconds', TEST, async () => {
    const asked = provider.asked;
    const next = new Signer('ES256', 'next');
    provider.keys = [first, next];
    // Strangers, over and over again, until the new key has arrived.
    let going = true;
    const flood = Array.from({ length: 20 }, async (_, at) => {
      const ends = new Set();
      for (let number = 0; going; number += 1) {
        ends.add(await tried(throng, next.token({ sub: 'x' }, `unknown ${at} ${number}`)));
        await wait(20);
      }
      return ends;
    });
    const begun = Date.now();
    const client = newClient(throng, { token: next.token({ sub: 'ann' }) });
    const connected = nextEvent(client, 'connected');
    client.connect();
    await connected;
    const seconds = (Date.now() - begun) / 1000;
    going = false;
    const ends = new Set((await Promise.all(flood)).flatMap((each) => [...each]));
    for (const end of ends) assert.ok([100, 3500].includes(end), `${end}`);
    const questions = provider.asked - asked;
    assert.ok(questions >= 1 && questions <= 1 + Math.floor((seconds + 10) / 10), `${questions} in ${seconds} s`);
    // The old key is still there.
    assert.equal(await tried(throng, first.token({ sub: 'bob' })), 'connected');
    client.disconnect();
  });

  it('go on to be used while the provider is down, and unknown ones are a temporary error', TEST, async () => {
    provider.status = 503;
    assert.equal(await tried(throng, first.token({ sub: 'ann' })), 'connected');
    // The SDK comes again by itself, and is let in when the provider is back.
    const late = new Signer('RS256', 'late');
    const client = newClient(throng, { token: late.token({ sub: 'ann' }) });
    const errors = [];
    client.on('error', ({ error }) => errors.push(error.code));
    const connected = nextEvent(client, 'connected');
    client.connect();
    await throng.line('answered 503; client.token.jwks_public_endpoint');
    assert.equal(await tried(throng, first.token({ sub: 'ann' })), 'connected');
    provider.status = 200;
    provider.keys = [first, late];
    await connected;
    assert.deepEqual(new Set(errors), new Set([100]));
    client.disconnect();
  });

  it('are counted in throng status', TEST, async () => {
    const ran = await run(['status', '--json', '--pid', String(throng.process.pid)]);
    const { tokens } = JSON.parse(ran.stdout);
    assert.ok(tokens.genuine >= 100 && tokens.forged >= 1 && tokens.fetches_failed >= 1, JSON.stringify(tokens));
    assert.equal(tokens.fetches, provider.asked);
  });
});

describe('a restart while keys are fetched', () => {
  it('lets in who waits for them', { timeout: 120_000 }, async () => {
    const key = new Signer('ES256', 'key');
    const provider = await Provider.start();
    provider.keys = [key];
    const runtime = await emptyDirectory();
    const env = { XDG_RUNTIME_DIR: runtime };
    const throng = await start(await freePort(), { jwks_public_endpoint: provider.url }, {}, env);
    const pids = [throng.process.pid];
    try {
      const release = provider.hold();
      const client = newClient(throng, { token: key.token({ sub: 'ann' }) });
      const events = [];
      client.on('disconnected', ({ code }) => events.push(code));
      const connected = nextEvent(client, 'connected');
      client.connect();
      while (provider.asked === 0) await wait(10);
      const ran = await run(['restart', '--json', '--pid', String(pids[0])], { env });
      assert.equal(ran.code, 0, `${ran.stdout}${ran.stderr}`);
      pids.push(JSON.parse(ran.stdout).outcome.to.pid);
      release();
      await connected;
      assert.deepEqual(events, []);
      // The new process has asked, and looked at the signature, itself.
      assert.ok(provider.asked >= 2, `${provider.asked}`);
      const status = await run(['status', '--json', '--pid', String(pids[1])], { env });
      const { tokens, pid } = JSON.parse(status.stdout);
      assert.deepEqual([pid, tokens.genuine, tokens.waiting], [pids[1], 1, 0]);
      client.disconnect();
    } finally {
      for (const pid of pids) {
        try {
          process.kill(pid, 'SIGKILL');
        } catch { /* it has ended */ }
      }
      await throng.stop();
      provider.stop();
      await rm(runtime, { recursive: true, force: true });
    }
  });
});

describe('keys behind TLS', () => {
  const key = new Signer('EdDSA', 'key');
  let directory;
  let server;
  before(async () => {
    directory = await emptyDirectory();
    const made = spawnSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes',
      '-keyout', 'key.pem', '-out', 'certificate.pem', '-subj', '/CN=keys', '-days', '2',
      '-addext', 'subjectAltName=IP:127.0.0.1', '-addext', 'basicConstraints=critical,CA:FALSE'], { cwd: directory });
    assert.equal(made.status, 0, String(made.stderr));
    const read = (name) => readFile(path.join(directory, name));
    const answer = JSON.stringify({ keys: [key.jwk] });
    server = createSecureServer({ key: await read('key.pem'), cert: await read('certificate.pem') },
      (request, response) => response.writeHead(request.url === '/one/keys' ? 200 : 404).end(answer)).listen(0, '127.0.0.1');
    await once(server, 'listening');
  });
  after(async () => {
    server?.close();
    await rm(directory, { recursive: true, force: true });
  });

  const place = () => ({
    jwks_public_endpoint: `https://127.0.0.1:${server.address().port}/{{tenant}}/keys`,
    issuer_regex: '^https://login/(?P<tenant>one|two)$',
  });

  it('are had where the authority is known, at the address that the issuer chooses', TEST, async () => {
    const port = await freePort();
    const throng = await start(port, place(), {}, { SSL_CERT_FILE: path.join(directory, 'certificate.pem') });
    try {
      assert.equal(await tried(throng, key.token({ sub: 'ann', iss: 'https://login/one' })), 'connected');
      assert.equal(await tried(throng, key.token({ sub: 'ann', iss: 'https://login/two' })), 100);
      assert.equal(await tried(throng, key.token({ sub: 'ann', iss: 'https://login/three' })), 3500);
      await throng.line('/two/keys answered 404');
    } finally {
      await throng.stop();
    }
  });

  it('are not had where it is not', TEST, async () => {
    const throng = await start(await freePort(), place());
    try {
      assert.equal(await tried(throng, key.token({ sub: 'ann', iss: 'https://login/one' })), 100);
      await throng.line('is not trusted: invalid peer certificate');
    } finally {
      await throng.stop();
    }
  });
});

describe('public keys of the configuration', () => {
  const key = new Signer('ES256');
  const subscriptions = new Signer('RS256');
  let throng;
  before(async () => {
    throng = await start(
      await freePort(),
      { ecdsa_public_key: key.publicPem },
      { subscription_token: { enabled: true, rsa_public_key: subscriptions.publicPem }, expired_close_delay: '5s' },
    );
  });
  after(() => throng?.stop());

  it('renew connections and subscriptions before their time is over', TEST, async () => {
    let connections = 0;
    let rooms = 0;
    const client = newClient(throng, {
      getToken: async () => {
        connections += 1;
        return key.token({ sub: 'ann', exp: inSeconds(connections > 1 ? 600 : 2) });
      },
    });
    const events = [];
    client.on('disconnected', ({ code }) => events.push(code));
    const sub = client.newSubscription('$room', {
      getToken: async () => {
        rooms += 1;
        return subscriptions.token({ sub: 'ann', channel: '$room', exp: inSeconds(rooms > 1 ? 600 : 2) });
      },
    });
    sub.on('unsubscribed', ({ code }) => events.push(code));
    const subscribed = nextEvent(sub, 'subscribed');
    sub.subscribe();
    client.connect();
    await subscribed;
    while (connections < 2 || rooms < 2) await wait(50);
    const heard = nextEvent(sub, 'publication');
    await throng.publish('$room', { n: 1 });
    assert.deepEqual((await heard).data, { n: 1 });
    assert.deepEqual(events, []);
    client.disconnect();
  });

  it('keep the two kinds of token apart', TEST, async () => {
    assert.equal(await tried(throng, subscriptions.token({ sub: 'ann' })), 3500);
    assert.equal(await tried(throng, key.token({ sub: 'ann', channel: '$room' })), 3500);
    const client = newClient(throng, { token: key.token({ sub: 'ann' }) });
    const sub = client.newSubscription('$room', { token: key.token({ sub: 'ann', channel: '$room' }) });
    const refused = nextEvent(sub, 'unsubscribed');
    sub.subscribe();
    client.connect();
    assert.equal((await refused).code, 103);
    client.disconnect();
  });

  it('are what throng token signs for and checks with', TEST, async () => {
    const file = path.join(throng.cwd, 'private.pem');
    await writeFile(file, key.privatePem);
    const config = path.join(throng.cwd, 'config.json');
    const made = await run(['token', '--user', 'ann', '--private-key', file, '-c', config]);
    assert.equal(made.code, 0, made.stderr);
    assert.equal(await tried(throng, made.stdout.trim()), 'connected');
    const good = await run(['token', '--check', '-', '-c', config], { input: made.stdout });
    assert.equal(good.code, 0, good.stdout + good.stderr);
    assert.match(good.stdout, /^accepted\n\nsigned with {2}ES256\n/);
    const bad = await run(['token', '--check', subscriptions.token({ sub: 'ann' }), '-c', config, '--json']);
    assert.equal(bad.code, 1);
    const { accepted, code, why } = JSON.parse(bad.stdout);
    assert.deepEqual([accepted, code], [false, 3500]);
    assert.match(why, /signed with RS256, which needs client.token.rsa_public_key, and only ecdsa_public_key is set/);
  });
});
