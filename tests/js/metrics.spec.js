// What is to be seen at /metrics of a real server with real clients.

import assert from 'node:assert/strict';
import net from 'node:net';
import { after, before, describe, it } from 'node:test';

import { Centrifuge } from 'centrifuge';
import WebSocket from 'ws';

import { Throng, configuration, emptyDirectory, freePort, nextEvent, run } from './throng.js';

const TEST = { timeout: 60_000 };
const CLIENTS = 12;
const PUBLICATIONS = 9;

/** Every number on a page, by its series with the labels in order; what is malformed is thrown. */
function parse(page) {
  const series = new Map();
  let family;
  for (const line of page.trimEnd().split('\n')) {
    const comment = /^# (HELP|TYPE) ([a-z_][a-z0-9_]*) (.+)$/.exec(line);
    if (comment) {
      if (comment[1] === 'TYPE') assert.ok(['counter', 'gauge', 'histogram'].includes(comment[3]), line);
      family = comment[2];
      continue;
    }
    const sample = /^([a-z_][a-z0-9_]*)(?:\{(.*)\})? (\+Inf|[0-9.e+-]+)$/.exec(line);
    assert.ok(sample, line);
    const [, name, labels = '', value] = sample;
    assert.ok(name.startsWith(family), line);
    const pairs = [...labels.matchAll(/([a-z_]+)="([^"\\]*)"(?:,|$)/g)].map(([, label, of]) => `${label}=${of}`);
    const key = [name, ...pairs.sort()].join(' ');
    assert.ok(!series.has(key), `${line} comes twice`);
    series.set(key, value === '+Inf' ? Infinity : Number(value));
  }
  return series;
}

async function scrape(throng) {
  const response = await fetch(`${throng.http}/metrics`);
  assert.equal(response.status, 200);
  assert.equal(response.headers.get('content-type'), 'text/plain; version=0.0.4; charset=utf-8');
  return parse(await response.text());
}

/** Scrapes until a number is what is wanted: what the server does is done a moment after it is heard of. */
async function scrapeUntil(throng, key, wanted) {
  for (;;) {
    const series = await scrape(throng);
    if (series.get(key) === wanted) return series;
  }
}

async function connected(throng, options = {}) {
  const client = new Centrifuge(throng.websocket, { websocket: WebSocket, minReconnectDelay: 20, maxReconnectDelay: 100, ...options });
  client.on('error', () => {});
  const done = nextEvent(client, 'connected');
  client.connect();
  await done;
  return client;
}

async function subscribed(client, channel, options) {
  const sub = client.newSubscription(channel, options);
  sub.on('error', () => {});
  const done = nextEvent(sub, 'subscribed');
  sub.subscribe();
  return Object.assign(sub, { context: await done });
}

const closed = (socket) => new Promise((resolve) => { socket.on('close', resolve).on('error', () => {}); });

describe('the page', () => {
  let throng;
  const clients = [];

  before(async () => {
    const port = await freePort();
    throng = await Throng.start({ port, config: { ...configuration(port), prometheus: { enabled: true } } });
  });
  after(async () => {
    for (const client of clients) client.disconnect();
    await throng?.stop();
  });

  it('tells what has happened, and nothing else', TEST, async () => {
    const before = await scrape(throng);
    assert.equal(before.get('throng_node_num_clients'), 0);
    const heard = [];
    for (let number = 0; number < CLIENTS; number += 1) {
      const client = await connected(throng);
      clients.push(client);
      const sub = await subscribed(client, 'chat:room', { recoverable: true });
      heard.push(new Promise((resolve) => {
        let count = 0;
        sub.on('publication', () => {
          count += 1;
          if (count === PUBLICATIONS) resolve();
        });
      }));
    }
    for (let number = 0; number < PUBLICATIONS; number += 1) await throng.publish('chat:room', { number });
    await Promise.all(heard);

    // One error of each kind of command, and one of the API.
    await assert.rejects(clients[0].history('closed:x', { limit: 1 }), { code: 108 });
    await assert.rejects(clients[0].rpc('nothing', {}), { code: 108 });
    await assert.rejects(throng.publish('nowhere:x', {}), { code: 102 });

    // One client goes, misses two publications, and recovers them.
    const [{ epoch, offset }] = [await throng.api('history', { channel: 'chat:room', limit: 1 })];
    for (const number of [1, 2]) await throng.publish('chat:room', { number });
    const late = await connected(throng);
    clients.push(late);
    const { context } = await subscribed(late, 'chat:room', { recoverable: true, since: { epoch, offset } });
    assert.equal(context.recovered, true);

    // One is sent away, and one is refused for its origin.
    const victim = new WebSocket(throng.websocket);
    victim.on('open', () => victim.send('this is no command'));
    assert.equal(await closed(victim), 3501);
    const stranger = new WebSocket(throng.websocket, { origin: 'https://elsewhere.example' });
    await closed(stranger);

    const now = await scrapeUntil(throng, 'throng_client_num_server_disconnects code=3501', 1);
    const of = (key) => now.get(key);
    assert.equal(of('throng_node_num_clients'), CLIENTS + 1);
    assert.equal(of('throng_node_num_users'), 1, 'all are anonymous');
    assert.equal(of('throng_node_num_subscriptions'), CLIENTS + 1);
    assert.equal(of('throng_node_num_channels'), 1);
    assert.equal(of('throng_client_connections_inflight transport=websocket'), CLIENTS + 1);
    assert.equal(of('throng_client_connections_accepted client_name=js transport=websocket'), CLIENTS + 1);
    assert.equal(of('throng_client_subscriptions_accepted'), CLIENTS + 1);
    assert.equal(of('throng_node_messages_sent_count type=publication'), PUBLICATIONS + 2);
    // Those who were there heard all of them, the last two as well.
    const pushes = CLIENTS * (PUBLICATIONS + 2);
    assert.equal(of('throng_transport_messages_sent frame_type=push_publication transport=websocket'), pushes);
    assert.ok(of('throng_transport_messages_sent_size frame_type=push_publication transport=websocket') > 40 * pushes);
    assert.equal(of('throng_transport_messages_received frame_type=subscribe transport=websocket'), CLIENTS + 1);
    assert.equal(of('throng_client_command_duration_seconds_count method=subscribe'), CLIENTS + 1);
    assert.equal(of('throng_client_command_duration_seconds_count method=connect'), CLIENTS + 1);
    assert.equal(of('throng_client_num_reply_errors code=108 method=history'), 1);
    assert.equal(of('throng_client_num_reply_errors code=108 method=rpc'), 1);
    assert.equal(of('throng_api_command_errors_total error=102 method=publish protocol=http'), 1);
    assert.equal(of('throng_api_command_duration_seconds_count method=publish protocol=http'), PUBLICATIONS + 3);
    assert.equal(of('throng_client_recover has_recovered_publications=yes recovered=yes'), 1);
    assert.equal(of('throng_client_recovered_publications_sum'), 2);
    assert.equal(of('throng_transport_outgoing_close_count code=3501 transport=websocket'), 1);
    assert.equal(of('throng_refused_total reason=origin'), 1);
    assert.equal(of('throng_refused_total reason=full'), 0);
    assert.equal(of('throng_node_incoming_http_requests_total method=GET path=/connection/websocket status=403'), 1);
    assert.equal(of('throng_budget_used_descriptors lane=clients'), CLIENTS + 1);
    assert.ok(of('throng_clients_max') > 100);
    assert.equal(of('throng_outboxes'), 0);
    assert.ok(of('throng_accept_queue_max listener=public') > 0);
    assert.ok(of('throng_full_in_seconds') > 0);
    const fanOuts = of('throng_node_broadcast_duration_seconds_count type=publication');
    assert.ok(fanOuts >= PUBLICATIONS + 2, `${fanOuts}: one for each publication and shard`);
    // As node sees it.
    assert.ok(Math.abs(of('process_start_time_seconds') - Date.now() / 1000) < 60);
    assert.ok(of('process_open_fds') > CLIENTS && of('process_max_fds') >= of('process_open_fds'));
  });

  it('counts who goes', TEST, async () => {
    const before = await scrape(throng);
    const gone = clients.splice(0, 3);
    for (const client of gone) client.disconnect();
    const left = before.get('throng_node_num_clients') - gone.length;
    const after = await scrapeUntil(throng, 'throng_node_num_clients', left);
    assert.equal(after.get('throng_client_connections_inflight transport=websocket'), left);
    assert.equal(after.get('throng_node_action_count action=remove_client'), gone.length);
    assert.ok(!after.has('throng_client_num_server_disconnects code=3000'), 'that they went is not the server’s doing');
  });

  it('is read with GET and HEAD only', TEST, async () => {
    const head = await fetch(`${throng.http}/metrics`, { method: 'HEAD' });
    assert.equal(head.status, 200);
    assert.equal(await head.text(), '');
    const post = await fetch(`${throng.http}/metrics`, { method: 'POST' });
    assert.deepEqual([post.status, post.headers.get('allow')], [405, 'GET, HEAD']);
  });
});

describe('where the page is', () => {
  it('is off until it is switched on', TEST, async () => {
    const throng = await Throng.start();
    try {
      const response = await fetch(`${throng.http}/metrics`);
      assert.equal(response.status, 404);
      assert.match(await response.text(), /prometheus\.enabled is off/);
    } finally {
      await throng.stop();
    }
  });

  it('leaves the public port for the internal one, at its own path and with Centrifugo’s names', TEST, async () => {
    const [port, internal] = [await freePort(), await freePort()];
    const base = configuration(port);
    const throng = await Throng.start({
      port,
      config: {
        ...base,
        http_server: { ...base.http_server, internal_port: internal },
        prometheus: { enabled: true, handler_prefix: '/numbers', compat: 'centrifugo' },
      },
    });
    try {
      assert.equal((await fetch(`${throng.http}/numbers`)).status, 404);
      const page = await (await fetch(`http://127.0.0.1:${internal}/numbers`)).text();
      const series = parse(page);
      assert.equal(series.get('centrifugo_node_num_clients'), 0);
      assert.ok(series.has('throng_clients_max') && !series.has('throng_node_num_clients'));
      assert.ok(series.has('throng_accept_queue_max listener=internal'));
    } finally {
      await throng.stop();
    }
  });

  it('answers while the server is full and clients are refused', TEST, async () => {
    const port = await freePort();
    const base = configuration(port);
    const throng = await Throng.start({
      port,
      config: { ...base, client: { ...base.client, connection_limit: 2 }, prometheus: { enabled: true } },
    });
    const sockets = [];
    try {
      for (let number = 0; number < 2; number += 1) {
        const socket = new WebSocket(throng.websocket);
        sockets.push(socket);
        await nextEvent(socket, 'open');
      }
      for (let number = 0; number < 5; number += 1) await closed(new WebSocket(throng.websocket));
      const series = await scrape(throng);
      assert.equal(series.get('throng_refused_total reason=full'), 5);
      assert.equal(series.get('throng_node_client_connection_limit'), 5);
      assert.equal(series.get('throng_clients_max'), 2);
      assert.equal(series.get('throng_full_in_seconds'), 0);
    } finally {
      for (const socket of sockets) socket.terminate();
      await throng.stop();
    }
  });

  it('shows who does not keep up', TEST, async () => {
    const port = await freePort();
    const throng = await Throng.start({ port, config: { ...configuration(port), prometheus: { enabled: true } } });
    // A client that never reads what it is told.
    const socket = net.connect(port, '127.0.0.1');
    try {
      await nextEvent(socket, 'connect');
      socket.write('GET /connection/websocket HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
        + 'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n');
      await nextEvent(socket, 'data');
      const command = Buffer.from('{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"hall"}}');
      socket.write(Buffer.concat([Buffer.from([0x81, 0x80 | command.length, 0, 0, 0, 0]), command]));
      await nextEvent(socket, 'data', (data) => data.includes('"subscribe"'));
      socket.pause();
      let series = await scrape(throng);
      while (series.get('throng_outboxes') === 0) {
        for (let number = 0; number < 8; number += 1) await throng.publish('hall', 'x'.repeat(60_000));
        series = await scrape(throng);
      }
      assert.equal(series.get('throng_outboxes'), 1);
      assert.ok(series.get('throng_outbox_bytes') > 0);
      assert.equal(series.get('throng_outbox_largest_bytes'), series.get('throng_outbox_bytes'));
      assert.ok(series.get('throng_buffer_bytes') >= series.get('throng_outbox_bytes'));
    } finally {
      socket.destroy();
      await throng.stop();
    }
  });
});

describe('over a restart', () => {
  it('counters go on, and who asks over an old connection is answered', TEST, async () => {
    const runtime = await emptyDirectory();
    const port = await freePort();
    const throng = await Throng.start({
      port,
      config: { ...configuration(port), prometheus: { enabled: true } },
      env: { XDG_RUNTIME_DIR: runtime },
    });
    const pids = [throng.process.pid];
    const client = await connected(throng);
    // As Prometheus does: one connection for all its questions.
    const old = net.connect(port, '127.0.0.1');
    try {
      await nextEvent(old, 'connect');
      const sub = await subscribed(client, 'hall');
      for (let number = 0; number < 5; number += 1) {
        const heard = nextEvent(sub, 'publication');
        await throng.publish('hall', { number });
        await heard;
      }
      await assert.rejects(client.rpc('nothing', {}), { code: 108 });
      const before = await scrape(throng);
      const ran = await run(['restart', '--json', '--pid', String(pids[0])], { env: { XDG_RUNTIME_DIR: runtime } });
      assert.equal(ran.code, 0, `${ran.stdout}${ran.stderr}`);
      pids.push(JSON.parse(ran.stdout).outcome.to.pid);

      // The old process still has this connection.
      const answered = new Promise((resolve) => {
        let text = '';
        old.setEncoding('utf8').on('data', (more) => { text += more; }).on('close', () => resolve(text));
      });
      old.write('GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n');
      const [head, page] = (await answered).split('\r\n\r\n');
      assert.match(head, /^HTTP\/1\.1 200 /);
      assert.match(head, /connection: close/i);

      for (const after of [parse(page), await scrape(throng)]) {
        for (const [key, value] of before) {
          if (/_(total|count|sum|sent|received|accepted|errors|size|bucket|disconnects|unsubscribes|recover)\b/.test(key)
            && !key.startsWith('process_')) {
            assert.ok(after.get(key) >= value, `${key}: ${after.get(key)} after ${value}`);
          }
        }
        assert.equal(after.get('throng_restarts_total'), 1);
        assert.equal(after.get('throng_node_num_clients'), 1);
        assert.equal(after.get('throng_client_connections_inflight transport=websocket'), 1);
        assert.equal(after.get('throng_client_connections_accepted client_name=js transport=websocket'), 1);
        assert.equal(after.get('throng_client_num_reply_errors code=108 method=rpc'), 1);
        assert.equal(after.get('throng_transport_messages_sent frame_type=push_publication transport=websocket'), 5);
      }
      const heard = nextEvent(sub, 'publication');
      await throng.publish('hall', {});
      await heard;
      await scrapeUntil(throng, 'throng_transport_messages_sent frame_type=push_publication transport=websocket', 6);
    } finally {
      old.destroy();
      client.disconnect();
      for (const pid of pids) {
        try {
          process.kill(pid, 'SIGKILL');
        } catch { /* it has ended */ }
      }
      await throng.stop();
    }
  });
});
