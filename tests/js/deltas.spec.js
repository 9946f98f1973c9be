// Deltas with the official JavaScript SDK, whose own reader of Fossil's patches checks each sum: what
// it makes of them is what was published, on every transport, after a cut and over restarts.

import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';

import { Centrifuge as Json } from 'centrifuge';
import { Centrifuge as Protobuf } from 'centrifuge/build/protobuf';
import { EventSource } from 'eventsource';
import WebSocket from 'ws';

import { Relay, Throng, configuration, emptyDirectory, freePort, gather, killAll, nextEvent, run } from './throng.js';

const TEST = { timeout: 90_000 };
const CODECS = [{ encoding: 'JSON', Centrifuge: Json }, { encoding: 'Protobuf', Centrifuge: Protobuf }];
const DELTA = { delta: 'fossil' };

let throng;
let runtime;
let pid;
const pids = [];
const clients = [];

before(async () => {
  runtime = await emptyDirectory();
  const port = await freePort();
  const base = configuration(port);
  const everybody = base.channel.without_namespace;
  const kept = { ...everybody, history_size: 1000, history_ttl: '300s', allowed_delta_types: ['fossil'] };
  throng = await Throng.start({
    port,
    config: {
      ...base,
      sse: { enabled: true },
      http_stream: { enabled: true },
      channel: {
        ...base.channel,
        namespaces: [
          { name: 'doc', ...kept, delta_publish: true, force_recovery: true },
          { name: 'asked', ...kept, force_recovery: true },
          { name: 'cache', ...kept, delta_publish: true, force_recovery: true, force_recovery_mode: 'cache', auto_cache_recover: true },
          { name: 'live', ...kept, delta_publish: true },
        ],
      },
    },
    env: { XDG_RUNTIME_DIR: runtime },
  });
  pid = throng.process.pid;
  pids.push(pid);
});
after(async () => {
  for (const client of clients) client.disconnect();
  killAll(pids);
  await throng?.stop();
  await rm(runtime, { recursive: true, force: true });
});

/** What a publication says, of either codec. */
const read = ({ data }) => (ArrayBuffer.isView(data) ? JSON.parse(Buffer.from(data)) : data);

async function subscribed({ Centrifuge, transport }, channel, options, url = throng.websocket, as = read) {
  const endpoint = transport && [{ transport, endpoint: `${throng.http}/connection/${transport}` }];
  const client = new Centrifuge(endpoint ?? url, {
    websocket: WebSocket,
    eventsource: EventSource,
    fetch,
    readableStream: ReadableStream,
    emulationEndpoint: `${throng.http}/emulation`,
    minReconnectDelay: 20,
    maxReconnectDelay: 100,
  });
  const trouble = [];
  client.on('error', ({ error }) => trouble.push(`${error.code} ${error.message}`));
  clients.push(client);
  const sub = client.newSubscription(channel, options);
  sub.on('error', ({ error }) => trouble.push(`${error.code} ${error.message}`));
  const heard = gather(sub, 'publication', as);
  const done = nextEvent(sub, 'subscribed');
  sub.subscribe();
  client.connect();
  return { client, sub, heard, trouble, context: await done };
}

/** Numbers that look random, the same each time: a failure comes again. */
function chance(seed) {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

const WORDS = ['score', 'жёлтый', '🐝🐝', 'line\nbreak', '"quoted"', '\\', ' ', '\u2028', 'aaaaaaaaaaaaaaaaaaaaaaaa', ''];

/** The next version of a document: some of it changed, moved, added or gone. */
function changed(document, next) {
  const rows = structuredClone(document.rows);
  for (let edits = next(4); edits >= 0; edits -= 1) {
    const at = next(rows.length + 1);
    const row = { id: next(1000), text: Array.from({ length: next(12) }, () => WORDS[next(WORDS.length)]).join(' ') };
    switch (next(4)) {
      case 0: rows.splice(at, 1); break;
      case 1: rows.splice(at, 0, row); break;
      case 2: rows.push(...rows.splice(0, at)); break;
      default: if (at < rows.length) rows[at] = row;
    }
  }
  return { version: document.version + 1, rows };
}

const first = { version: 0, rows: Array.from({ length: 30 }, (_, id) => ({ id, text: `the row of number ${id}` })) };

for (const codec of CODECS) {
  describe(`in ${codec.encoding}`, () => {
    it('every document is read as it was published, most of them from patches', TEST, async () => {
      const channel = `doc:live-${codec.encoding}`;
      const takes = await subscribed(codec, channel, DELTA);
      const plain = await subscribed(codec, channel);
      const next = chance(7);
      const published = [];
      for (let document = first; published.length < 300; document = changed(document, next)) {
        published.push(document);
        await throng.publish(channel, document);
      }
      assert.deepEqual(await takes.heard.until(300), published);
      assert.deepEqual(await plain.heard.until(300), published);
      const { numFullPayloads, numDeltaPayloads, compressionRatio } = takes.sub.deltaStats();
      assert.ok(numDeltaPayloads > 250 && numFullPayloads < 50, `${numDeltaPayloads} patches, ${numFullPayloads} whole`);
      assert.ok(compressionRatio > 0.5, `${compressionRatio}`);
      assert.deepEqual([takes.trouble, plain.trouble], [[], []]);
    });

    it('only what is published for it comes as a patch, and what is not kept breaks nothing', TEST, async () => {
      const channel = `asked:${codec.encoding}`;
      const { sub, heard, trouble } = await subscribed(codec, channel, DELTA);
      const publish = (version, options) => throng.api('publish', { channel, data: { ...first, version }, ...options });
      await publish(1);
      await publish(2);
      assert.equal((await heard.until(2)).length, 2);
      assert.equal(sub.deltaStats().numDeltaPayloads, 0);
      await publish(3, { delta: true });
      await publish(4, { delta: true, skip_history: true });
      await publish(5, { delta: true });
      await publish(6, { delta: true });
      await throng.api('history_remove', { channel });
      await publish(7, { delta: true });
      await publish(8, { delta: true });
      const versions = (await heard.until(8)).map(({ version }) => version);
      assert.deepEqual(versions, [1, 2, 3, 4, 5, 6, 7, 8]);
      // 3, 6 and 8: before 5 came one that is not kept, and before 7 there is none.
      assert.equal(sub.deltaStats().numDeltaPayloads, 3);
      assert.deepEqual(trouble, []);
    });

    it('a recovery after a cut goes on in patches', TEST, async () => {
      const channel = `doc:cut-${codec.encoding}`;
      const relay = await Relay.to(throng.port);
      const { sub, heard, trouble, client } = await subscribed(codec, channel, DELTA, relay.websocket);
      for (let version = 1; version <= 3; version += 1) await throng.publish(channel, { ...first, version });
      await heard.until(3);
      const gone = nextEvent(client, 'connecting');
      relay.cut();
      await gone;
      for (let version = 4; version <= 8; version += 1) await throng.publish(channel, { ...first, version });
      const back = nextEvent(sub, 'subscribed');
      const before = sub.deltaStats();
      relay.mend();
      const context = await back;
      assert.equal(context.recovered, true);
      await throng.publish(channel, { ...first, version: 9 });
      const versions = (await heard.until(9)).map(({ version }) => version);
      assert.deepEqual(versions, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
      const after = sub.deltaStats();
      assert.equal(after.numFullPayloads - before.numFullPayloads, 1);
      assert.equal(after.numDeltaPayloads - before.numDeltaPayloads, 5);
      assert.deepEqual(trouble.filter((each) => !/transport closed|connection closed/.test(each)), []);
      client.disconnect();
      await relay.stop();
    });

    it('the latest of a cache comes whole, and patches of it', TEST, async () => {
      const channel = `cache:${codec.encoding}`;
      await throng.publish(channel, { ...first, version: 1 });
      const { sub, heard } = await subscribed(codec, channel, DELTA);
      await throng.publish(channel, { ...first, version: 2 });
      assert.deepEqual((await heard.until(2)).map(({ version }) => version), [1, 2]);
      const { numFullPayloads, numDeltaPayloads } = sub.deltaStats();
      assert.deepEqual([numFullPayloads, numDeltaPayloads], [1, 1]);
    });
  });
}

it('everybody in a mixed crowd reads the same', TEST, async () => {
  const channel = 'live:crowd';
  const ways = [
    ...CODECS,
    { transport: 'sse', Centrifuge: Json },
    { transport: 'http_stream', Centrifuge: Json },
    { transport: 'http_stream', Centrifuge: Protobuf },
  ];
  const crowd = await Promise.all(ways.flatMap((way) => [
    subscribed(way, channel, DELTA),
    subscribed(way, channel),
  ]));
  const next = chance(99);
  const published = [];
  let late;
  for (let document = first; published.length < 60;) {
    // In one call, so that several are handed out in one pass.
    const commands = [];
    for (let count = 1 + next(9); count > 0 && published.length < 60; count -= 1) {
      published.push(document);
      commands.push({ publish: { channel, data: document } });
      document = changed(document, next);
    }
    await throng.api('batch', { commands });
    if (published.length >= 30 && !late) {
      late = { ...await subscribed(CODECS[0], channel, DELTA), from: published.length };
    }
  }
  for (const { heard, trouble } of crowd) {
    assert.deepEqual(await heard.until(60), published);
    assert.deepEqual(trouble, []);
  }
  for (const { sub } of crowd.filter((_, at) => at % 2 === 0)) assert.ok(sub.deltaStats().numDeltaPayloads > 40);
  assert.deepEqual(await late.heard.until(60 - late.from), published.slice(late.from));
});

it('bytes that are no JSON are read, too', TEST, async () => {
  const channel = 'live:bytes';
  const as = ({ data }) => data;
  const crowd = await Promise.all(CODECS.map((codec) => subscribed(codec, channel, DELTA, undefined, as)));
  const bytes = (number) => Buffer.concat([Buffer.alloc(200, 0xfe), Buffer.from([number])]);
  const json = JSON.stringify(first);
  const sent = [bytes(1), bytes(2), Buffer.from(json), bytes(3), Buffer.from(json)];
  for (const each of sent) await throng.api('publish', { channel, b64data: each.toString('base64') });
  const [inJson, inProtobuf] = await Promise.all(crowd.map(({ heard }) => heard.until(5)));
  const isJson = (each) => each[0] === 0x7b;
  assert.deepEqual(inJson, sent.map((each) => (isJson(each) ? JSON.parse(each) : each.toString('base64'))));
  assert.deepEqual(inProtobuf.map((each) => Buffer.from(each)), sent);
  assert.equal(crowd[1].sub.deltaStats().numDeltaPayloads, 1);
});

it('patches go on over a restart', TEST, async () => {
  const channel = 'doc:restart';
  const crowd = await Promise.all(CODECS.map((codec) => subscribed(codec, channel, DELTA)));
  const publish = (version) => throng.publish(channel, { ...first, version });
  await publish(1);
  await publish(2);
  for (let version = 3; version <= 8; version += 2) {
    const ran = await run(['restart', '--json', '--pid', String(pid)], { env: { XDG_RUNTIME_DIR: runtime } });
    assert.equal(ran.code, 0, `${ran.stdout}${ran.stderr}`);
    pid = JSON.parse(ran.stdout).outcome.to.pid;
    pids.push(pid);
    await publish(version);
    await publish(version + 1);
  }
  for (const { sub, heard, trouble } of crowd) {
    assert.deepEqual((await heard.until(8)).map(({ version }) => version), [1, 2, 3, 4, 5, 6, 7, 8]);
    const { numFullPayloads, numDeltaPayloads } = sub.deltaStats();
    assert.deepEqual([numFullPayloads, numDeltaPayloads], [1, 7]);
    assert.deepEqual(trouble, []);
  }
});

describe('a document of 2 KB of which one field changes', () => {
  const PUBLICATIONS = 100;

  /** Bytes that arrive on the socket of a client that is subscribed so. */
  async function received(protocol, wish) {
    const channel = `doc:bytes-${protocol}-${wish}`;
    const socket = new WebSocket(throng.websocket, protocol ? ['centrifuge-protobuf'] : []);
    const frames = gather(socket, 'message', (data) => data);
    await nextEvent(socket, 'open');
    const said = protocol
      // Connect, and subscribe with the delta where it is wished for: fields by hand, since the
      // SDK hides its socket.
      ? [message(1, [0x08, 1], field(4, [])), message(2, [0x08, 2], field(5, [...text(1, channel), ...(wish ? text(12, wish) : [])]))]
      : ['{"id":1,"connect":{}}', JSON.stringify({ id: 2, subscribe: { channel, delta: wish } })];
    for (const each of said) socket.send(each);
    await frames.until(2);
    const publish = (version) => throng.publish(channel, { version: 1000 + version, text: 'x,'.repeat(1000) });
    await publish(0);
    await frames.until(3);
    const before = socket._socket.bytesRead;
    for (let version = 1; version <= PUBLICATIONS; version += 1) await publish(version);
    await frames.until(3 + PUBLICATIONS);
    const bytes = socket._socket.bytesRead - before;
    socket.close();
    return bytes / PUBLICATIONS;
  }

  const field = (number, bytes) => [(number << 3) | 2, ...varint(bytes.length), ...bytes];
  const text = (number, value) => field(number, [...Buffer.from(value)]);
  const varint = (value) => (value < 128 ? [value] : [(value & 127) | 128, ...varint(value >> 7)]);
  const message = (_, id, request) => Buffer.from([...varint(id.length + request.length), ...id, ...request]);

  for (const [name, protocol] of [['JSON', false], ['Protobuf', true]]) {
    it(`costs less than a tenth of the bytes in ${name}`, TEST, async (test) => {
      const whole = await received(protocol);
      const patches = await received(protocol, 'fossil');
      assert.ok(whole > 2000, `${whole} bytes each`);
      assert.ok(patches < whole / 10, `${patches} bytes each instead of ${whole}`);
      test.diagnostic(`${name}: ${whole} bytes each, as patches ${patches}`);
    });
  }
});
