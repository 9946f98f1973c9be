// Tags filters with the official JavaScript SDK: what is held back never arrives, live, after a cut and
// over a restart.

import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';

import WebSocket from 'ws';

import { ENCODINGS } from './encodings.js';
import { Relay, Throng, configuration, emptyDirectory, freePort, gather, killAll, nextEvent, run } from './throng.js';

const TEST = { timeout: 60_000 };

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
  throng = await Throng.start({
    port,
    config: {
      ...base,
      prometheus: { enabled: true },
      channel: {
        ...base.channel,
        namespaces: [
          { name: 'shop', ...everybody, history_size: 100, history_ttl: '300s', force_recovery: true, allow_tags_filter: true },
          { name: 'plain', ...everybody },
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

function subscription(Centrifuge, channel, tagsFilter, url = throng.websocket) {
  const client = new Centrifuge(url, { websocket: WebSocket, minReconnectDelay: 20, maxReconnectDelay: 100 });
  client.on('error', () => {});
  clients.push(client);
  const sub = client.newSubscription(channel, { tagsFilter });
  sub.on('error', () => {});
  const heard = gather(sub, 'publication', ({ data }) => data.n);
  sub.subscribe();
  client.connect();
  return { client, sub, heard };
}

async function subscribed(...args) {
  const made = subscription(...args);
  await nextEvent(made.sub, 'subscribed');
  return made;
}

const CHEAP_OR_RED = {
  op: 'or',
  nodes: [
    { key: 'price', cmp: 'lt', val: '10' },
    { op: 'and', nodes: [{ key: 'color', cmp: 'in', vals: ['red', 'crimson'] }, { op: 'not', nodes: [{ key: 'sold', cmp: 'ex' }] }] },
  ],
};
const GOODS = [
  [{ price: '9.99', color: 'blue' }, true],
  [{ price: '10.00', color: 'blue' }, false],
  [{ price: '200', color: 'red' }, true],
  [{ price: '200', color: 'red', sold: 'yes' }, false],
  [{ color: 'crimson' }, true],
  [{}, false],
];
const WANTED = GOODS.flatMap(([, passes], n) => (passes ? [n] : []));

for (const { encoding, Centrifuge } of ENCODINGS) {
  describe(`in ${encoding}`, () => {
    const publish = async (channel, from) => {
      for (const [n, [tags]] of GOODS.entries()) await throng.publish(channel, { n: from + n }, { tags });
    };

    it('only what the filter lets through arrives, live, after a cut and over a restart', TEST, async () => {
      const channel = `shop:${encoding}`;
      const relay = await Relay.to(throng.port);
      const { client, sub, heard } = await subscribed(Centrifuge, channel, CHEAP_OR_RED, relay.websocket);
      const all = await subscribed(Centrifuge, channel);
      await publish(channel, 0);
      const expected = [0, 6, 12].map((from) => WANTED.map((n) => from + n));
      assert.deepEqual(await heard.until(3), expected[0]);
      const gone = nextEvent(client, 'connecting');
      relay.cut();
      await gone;
      await publish(channel, 6);
      const back = nextEvent(sub, 'subscribed');
      relay.mend();
      assert.equal((await back).recovered, true);
      assert.deepEqual(await heard.until(6), expected.slice(0, 2).flat());
      const ran = await run(['restart', '--json', '--pid', String(pid)], { env: { XDG_RUNTIME_DIR: runtime } });
      assert.equal(ran.code, 0, `${ran.stdout}${ran.stderr}`);
      pid = JSON.parse(ran.stdout).outcome.to.pid;
      pids.push(pid);
      await publish(channel, 12);
      assert.deepEqual(await heard.until(9), expected.flat());
      assert.equal((await all.heard.until(18)).length, 18);
      const page = await (await fetch(`${throng.http}/metrics`)).text();
      const [, withheld] = page.match(/^throng_node_tags_filter_dropped_publications (\d+)$/m);
      assert.ok(Number(withheld) >= 9, withheld);
      client.disconnect();
      await relay.stop();
    });

    it('a filter is refused where it is not allowed, or is none', TEST, async () => {
      for (const [channel, filter] of [['plain:a', CHEAP_OR_RED], [`shop:none-${encoding}`, { key: 'a', cmp: 'like', val: 'b' }]]) {
        const { sub } = subscription(Centrifuge, channel, filter);
        const { code } = await nextEvent(sub, 'unsubscribed');
        assert.equal(code, 107);
      }
    });
  });
}
