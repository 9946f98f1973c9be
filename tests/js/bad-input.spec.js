// Bad input against the real server, over every door: what is answered, what is closed and with which code; and
// that a neighbour goes on undisturbed, and the server's memory stays where it was.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';

import WebSocket from 'ws';

import { API_KEY, Throng, configuration, freePort, gather, inSeconds, jwt, run } from './throng.js';

const TEST = { timeout: 60_000 };
/** What the server's memory may have grown by when everybody has gone, in kB; most of it is the allocator's. */
const GROWN_KB_MAX = 200_000;

let throng;
let resident;
let neighbour;

/** The server's memory, in kB. */
async function memory() {
  const status = await readFile(`/proc/${throng.process.pid}/status`, 'utf8');
  return Number(/VmRSS:\s+(\d+)/.exec(status)[1]);
}

/** Somebody who listens all the time, and is told something after every test. */
class Neighbour {
  count = 0;

  static async join() {
    const one = new Neighbour();
    one.client = await Peer.connected({ token: jwt({ sub: 'neighbour', exp: inSeconds(600) }) });
    assert.ok((await one.client.ask({ subscribe: { channel: 'neighbour' } })).subscribe);
    return one;
  }

  /** Nothing was lost, nothing came twice, nothing else came. */
  async isUndisturbed() {
    await throng.publish('neighbour', this.count += 1);
    const numbers = (all) => all.filter(({ push }) => push).map(({ push }) => push.pub.data);
    const heard = await this.client.until((all) => numbers(all).length >= this.count);
    assert.deepEqual(numbers(heard), Array.from({ length: this.count }, (_, n) => n + 1));
  }
}

/** A WebSocket that speaks for itself, in JSON. */
class Peer {
  heard = [];
  #waiting = new Set();
  #id = 1;

  static async open(url = throng.websocket, protocols = []) {
    const peer = new Peer();
    peer.socket = new WebSocket(url, protocols, { perMessageDeflate: false });
    peer.socket.on('error', () => {});
    peer.socket.on('message', (data, isBinary) => {
      if (!isBinary) {
        for (const line of data.toString().split('\n')) {
          if (line === '{}') peer.socket.send('{}');
          else peer.heard.push(JSON.parse(line));
        }
      } else peer.heard.push(...replies(data));
      for (const look of peer.#waiting) look();
    });
    peer.closed = once(peer.socket, 'close').then(([code]) => {
      peer.code = code;
      for (const look of peer.#waiting) look();
      return code;
    });
    await once(peer.socket, 'open');
    return peer;
  }

  static async connected(connect = {}, ...more) {
    const peer = await Peer.open(...more);
    const [{ error }] = [await peer.ask({ connect })];
    assert.equal(error, undefined);
    return peer;
  }

  send(data) {
    this.socket.send(data);
  }

  /** What it has heard, as soon as that holds, or it is closed. */
  until(holds) {
    return new Promise((resolve) => {
      const look = () => {
        if (!holds(this.heard) && this.code === undefined) return;
        this.#waiting.delete(look);
        resolve(this.heard);
      };
      this.#waiting.add(look);
      look();
    });
  }

  /** The reply to a command, or undefined where it is closed instead. */
  async ask(command) {
    const id = (this.#id += 1);
    this.send(JSON.stringify({ id, ...command }));
    return (await this.until((all) => all.some((reply) => reply.id === id))).find((reply) => reply.id === id);
  }

  /** What comes of a message: a code of an error or of a close, or 0. `id` is the id of its reply. */
  async outcome(data, id) {
    const from = this.heard.length;
    this.send(data);
    const all = await this.until((heard) => heard.slice(from).some((reply) => reply.id === id));
    const reply = all.slice(from).find((one) => one.id === id);
    return reply === undefined ? this.code : reply.error?.code ?? 0;
  }
}

/** The messages of a Protobuf frame, as far as they matter here: the id, and the code of an error. */
function replies(frame) {
  const all = [];
  for (let at = 0; at < frame.length;) {
    const [length, from] = readVarint(frame, at);
    at = from + Number(length);
    const reply = {};
    for (let inner = from; inner < at;) {
      const [key, next] = readVarint(frame, inner);
      if (key % 8n === 0n) {
        const [value, rest] = readVarint(frame, next);
        if (key === 8n) reply.id = Number(value);
        inner = rest;
      } else {
        const [size, start] = readVarint(frame, next);
        inner = start + Number(size);
        if (key === 18n) reply.error = { code: Number(readVarint(frame, start + 1)[0]) };
      }
    }
    all.push(reply);
  }
  return all;
}

function readVarint(bytes, from) {
  let value = 0n;
  for (let at = from, shift = 0n; ; at += 1, shift += 7n) {
    value |= BigInt(bytes[at] & 0x7f) << shift;
    if (bytes[at] < 0x80) return [value, at + 1];
  }
}

function varint(value) {
  const bytes = [];
  for (let left = BigInt(value); ; left >>= 7n) {
    bytes.push(Number(left & 0x7fn) | (left > 0x7fn ? 0x80 : 0));
    if (left <= 0x7fn) return Buffer.from(bytes);
  }
}

/** A field: a number is one, anything else is bytes; an array is a message of fields. */
function field(tag, value) {
  if (typeof value === 'number' || typeof value === 'bigint') return Buffer.concat([varint(tag << 3), varint(value)]);
  const bytes = Array.isArray(value) ? Buffer.concat(value) : Buffer.from(value);
  return Buffer.concat([varint((tag << 3) | 2), varint(bytes.length), bytes]);
}

const delimited = (...fields) => {
  const message = Buffer.concat(fields);
  return Buffer.concat([varint(message.length), message]);
};

before(async () => {
  const port = await freePort();
  const base = configuration(port);
  throng = await Throng.start({
    port,
    config: {
      ...base,
      sse: { enabled: true },
      http_stream: { enabled: true },
      uni_websocket: { enabled: true },
      uni_sse: { enabled: true },
      uni_http_stream: { enabled: true },
    },
  });
  neighbour = await Neighbour.join();
  resident = await memory();
});
beforeEach(() => neighbour.isUndisturbed());
afterEach(() => neighbour.isUndisturbed());
after(async () => {
  const grown = await memory() - resident;
  neighbour?.client.socket.terminate();
  await throng?.stop();
  assert.ok(grown < GROWN_KB_MAX, `the server has grown by ${grown} kB`);
});

const LONG = 'x'.repeat(60_000);
const DEEP = '['.repeat(30_000) + ']'.repeat(30_000);

/** Fields of each command: what kind each is, and what becomes of the command without it. 0 is a result. */
const COMMANDS = {
  subscribe: {
    tag: 5,
    fields: {
      channel: ['string', 1], token: ['string', 2], recover: ['boolean', 3], epoch: ['string', 6], offset: ['number', 7],
      data: ['bytes', 8], positioned: ['boolean', 9], recoverable: ['boolean', 10], join_leave: ['boolean', 11],
      delta: ['string', 12], flag: ['number', 14],
    },
    whole: { channel: 'chat:whole' },
    without: { channel: 3501 },
  },
  unsubscribe: { tag: 6, fields: { channel: ['string', 1] }, whole: { channel: 'chat:whole' }, without: { channel: 3501 } },
  publish: {
    tag: 7,
    fields: { channel: ['string', 1], data: ['bytes', 2] },
    whole: { channel: 'chat:whole', data: '1' },
    without: { channel: 3501, data: 107 },
  },
  presence: { tag: 8, fields: { channel: ['string', 1] }, whole: { channel: 'chat:whole' }, without: { channel: 3501 } },
  presence_stats: { tag: 9, fields: { channel: ['string', 1] }, whole: { channel: 'chat:whole' }, without: { channel: 3501 } },
  history: {
    tag: 10,
    fields: { channel: ['string', 1], limit: ['number', 7], reverse: ['boolean', 9] },
    whole: { channel: 'chat:whole' },
    without: { channel: 3501 },
  },
  rpc: { tag: 13, fields: { data: ['bytes', 1], method: ['string', 2] }, whole: { method: 'none', data: '1' }, without: { method: 108, data: 108 }, result: 108 },
  send: { tag: 12, fields: { data: ['bytes', 1] }, whole: { data: '1' }, without: { data: 3508 }, result: 3508 },
  refresh: { tag: 14, fields: { token: ['string', 1] }, whole: { token: 'a.b.c' }, without: { token: 3501 }, result: 3500 },
  sub_refresh: {
    tag: 15,
    fields: { channel: ['string', 1], token: ['string', 2] },
    whole: { channel: 'chat:none', token: 'a.b.c' },
    without: { channel: 3501, token: 103 },
    result: 103,
  },
};

/** Runs rows of [what, message, id of the reply, code] over connections that are opened again when one was closed. */
async function rows(all, connect) {
  let peer;
  const wrong = [];
  for (const [what, message, id, code] of all) {
    if (peer === undefined || peer.code !== undefined) peer = await connect();
    const came = await peer.outcome(message, id);
    if (came !== code) wrong.push(`${what}: ${came} instead of ${code}`);
    const closes = code >= 1000;
    if (closes !== (peer.code !== undefined)) wrong.push(`${what}: closed with ${peer.code}`);
  }
  peer?.socket.terminate();
  assert.deepEqual(wrong, []);
}

describe('a command in JSON', () => {
  let id = 1000;
  const next = () => (id += 1);
  const text = (name, fields) => `"${name}":{${Object.entries(fields).map(([key, value]) => `"${key}":${value}`).join()}}`;
  const written = (command, given) => Object.fromEntries(Object.entries(given).map(([name, value]) => [
    name, command.fields[name][0] === 'bytes' ? value : JSON.stringify(value),
  ]));
  const row = (what, name, fields, code) => {
    const own = next();
    return [what, `{"id":${own},${text(name, fields)}}`, own, code];
  };

  it('without a field of its own', TEST, async () => {
    const all = [];
    for (const [name, command] of Object.entries(COMMANDS)) {
      const whole = written(command, command.whole);
      all.push(row(`${name}, whole`, name, whole, command.result ?? 0));
      for (const [missing, code] of Object.entries(command.without)) {
        const { [missing]: _, ...rest } = whole;
        all.push(row(`${name} without ${missing}`, name, rest, code));
        all.push(row(`${name} with null for ${missing}`, name, { ...rest, [missing]: 'null' }, code));
      }
      if (name === 'subscribe') all.push(row('leaving again', 'unsubscribe', { channel: '"chat:whole"' }, 0));
    }
    await rows(all, () => Peer.connected());
  });

  it('with a field of another kind', TEST, async () => {
    const others = { string: ['7', 'true', '[]', '{}'], number: ['"7"', 'true', '[]', '{}', '1.5', '1e99'], boolean: ['7', '"true"', '[]', '{}'], bytes: [] };
    const all = [];
    for (const [name, command] of Object.entries(COMMANDS)) {
      for (const [wrong, [kind]] of Object.entries(command.fields)) {
        for (const value of others[kind]) {
          all.push(row(`${name} with ${value} for ${wrong}`, name, { ...written(command, command.whole), [wrong]: value }, 3501));
        }
      }
      for (const value of ['7', '"x"', '[]', 'true']) all.push([`${name}: ${value}`, `{"id":${next()},"${name}":${value}}`, id, 3501]);
    }
    await rows(all, () => Peer.connected());
  });

  it('with something huge, deep, or out of range', TEST, async () => {
    const huge = JSON.stringify(LONG);
    const all = [
      row('a long channel', 'subscribe', { channel: huge }, 107),
      row('a channel of 256 bytes', 'subscribe', { channel: JSON.stringify('x'.repeat(256)) }, 107),
      row('a channel of 255 bytes', 'subscribe', { channel: JSON.stringify('x'.repeat(255)) }, 0),
      row('a channel beyond ASCII', 'subscribe', { channel: '"chat:\\u00e4"' }, 107),
      row('a broken escape', 'subscribe', { channel: '"\\ud800"' }, 3501),
      row('a long token of a subscription', 'subscribe', { channel: '"a"', token: huge }, 103),
      row('a long epoch', 'subscribe', { channel: '"chat:epoch"', recover: 'true', epoch: huge }, 0),
      row('a negative offset', 'subscribe', { channel: '"chat:x"', offset: '-1' }, 3501),
      row('the largest offset', 'subscribe', { channel: '"chat:largest"', recover: 'true', offset: '18446744073709551615' }, 0),
      row('an offset beyond it', 'subscribe', { channel: '"chat:x"', offset: '18446744073709551616' }, 3501),
      row('the smallest limit', 'history', { channel: '"chat:x"', limit: '-2147483648' }, 0),
      row('a limit beyond it', 'history', { channel: '"chat:x"', limit: '2147483648' }, 3501),
      row('backwards from nowhere', 'history', { channel: '"chat:x"', limit: '1', reverse: 'true' }, 0),
      row('a long method', 'rpc', { method: huge }, 108),
      row('much data', 'publish', { channel: '"chat:x"', data: huge }, 0),
      row('a long token', 'refresh', { token: huge }, 3500),
      row('a filter of a million', 'subscribe', { channel: '"chat:tf"', tf: `{"nodes":[${'{},'.repeat(10_000)}{}]}` }, 107),
      ['no message at all', '', 0, 3501],
      ['blank lines', '\n\n', 0, 3501],
      ['an array', '[]', 0, 3501],
      ['half an object', '{"id":1', 0, 3501],
      ['two objects in a line', '{"id":1}{"id":2}', 0, 3501],
      ['much nothing', ' '.repeat(65_000), 0, 3501],
      ['deep nothing', DEEP, 0, 3501],
      ['one byte too many', ' '.repeat(65_537), 0, 1009],
      ['not UTF-8', Buffer.from([0x7b, 0xff, 0x7d]), 0, 3501],
    ];
    await rows(all, () => Peer.connected());
  });

  it('with ids that are none, with two wishes, with fields that nobody knows', TEST, async () => {
    const rpc = '"rpc":{"method":"x"}';
    const all = [
      ...['-1', '4294967296', '"2"', '1.5', 'null', '0', '[]', '{}'].map((bad) => [`id ${bad}`, `{"id":${bad},${rpc}}`, -1, 3501]),
      ['no id', `{${rpc}}`, -1, 3501],
      ['the largest id', `{"id":4294967295,${rpc}}`, 4_294_967_295, 108],
      ['an id alone', '{"id":7}', -1, 3501],
      ['a pong that nobody asked for', '{}', -1, 3501],
      ['a ping', '{"id":8,"ping":{}}', -1, 3501],
      ['a second connect', '{"id":9,"connect":{}}', -1, 3501],
      ['two wishes: the first in the protocol’s order', '{"id":10,"publish":{"channel":""},"subscribe":{"channel":"chat:two"}}', 10, 0],
      ['unknown fields', '{"id":11,"rpc":{"method":"x","later":{"a":[1]}},"later":"too"}', 11, 108],
      ['an unknown wish', '{"id":12,"later":{}}', -1, 3501],
    ];
    await rows(all, () => Peer.connected());
  });

  it('before connect, or after one that was refused', TEST, async () => {
    for (const [name, command] of Object.entries(COMMANDS)) {
      const peer = await Peer.open();
      assert.equal(await peer.outcome(`{"id":1,${text(name, written(command, command.whole))}}`, 1), 3501, name);
    }
    const peer = await Peer.open();
    const expired = jwt({ sub: 'ann', exp: inSeconds(-1) });
    assert.equal((await peer.ask({ connect: { token: expired } })).error.code, 109);
    assert.equal(await peer.outcome('{"id":9,"connect":{}}', 9), 3501);
  });

  it('that connects with the wrong things', TEST, async () => {
    const all = [
      ['{"token":7}', 3501], ['{"subs":[]}', 3501], ['{"subs":{"a":7}}', 3501], ['{"subs":{"a":{"offset":"1"}}}', 3501],
      ['{"headers":{"a":1}}', 3501], ['{"name":{}}', 3501], ['[]', 3501], ['7', 3501],
      [`{"token":"${LONG}"}`, 3500], [`{"name":"${LONG}","version":"${LONG.slice(55_000)}"}`, 0], ['null', 3501],
      [`{"subs":{${Array.from({ length: 4000 }, (_, n) => `"c${n}":{}`).join()}}}`, 0],
    ];
    for (const [connect, code] of all) {
      const peer = await Peer.open();
      assert.equal(await peer.outcome(`{"id":1,"connect":${connect}}`, 1), code, connect.slice(0, 80));
      peer.socket.terminate();
    }
  });
});

describe('a command in Protobuf', () => {
  let id = 1000;
  const next = () => (id += 1);
  const connect = async () => {
    const peer = await Peer.open(throng.websocket, ['centrifuge-protobuf']);
    assert.equal(await peer.outcome(delimited(field(1, 1), field(4, [])), 1), 0);
    return peer;
  };
  const fieldsOf = (command, given) => Object.entries(given).map(([name, value]) => field(command.fields[name][1], value));
  const row = (what, command, fields, code) => {
    const own = next();
    return [what, delimited(field(1, own), field(command.tag, fields)), own, code];
  };

  it('without a field, with one twice, or of another kind', TEST, async () => {
    const all = [];
    for (const [name, command] of Object.entries(COMMANDS)) {
      const result = command.result ?? 0;
      all.push(row(`${name}, whole`, command, fieldsOf(command, command.whole), result));
      if (name === 'subscribe') all.push(row('leaving', COMMANDS.unsubscribe, fieldsOf(command, { channel: 'chat:whole' }), 0));
      for (const [missing, code] of Object.entries(command.without)) {
        const { [missing]: _, ...rest } = command.whole;
        all.push(row(`${name} without ${missing}`, command, fieldsOf(command, rest), code));
        // proto3: the last one counts.
        const twice = [field(command.fields[missing][1], ''), ...fieldsOf(command, command.whole)];
        all.push(row(`${name} with ${missing} twice`, command, twice, result));
        if (name === 'subscribe') all.push(row('leaving', COMMANDS.unsubscribe, fieldsOf(command, { channel: 'chat:whole' }), 0));
      }
      for (const [wrong, [kind, tag]] of Object.entries(command.fields)) {
        const value = kind === 'string' || kind === 'bytes' ? 7 : 'x';
        all.push(row(`${name} with another kind of ${wrong}`, command, [...fieldsOf(command, command.whole), field(tag, value)], 3501));
        if (kind === 'string') {
          all.push(row(`${name} with no UTF-8 for ${wrong}`, command, [field(tag, Buffer.from([0xff, 0xfe]))], 3501));
        }
      }
      all.push(row(`${name} with a field of tomorrow`, command, [...fieldsOf(command, command.whole), field(500, 'x')], result));
      if (name === 'subscribe') all.push(row('leaving', COMMANDS.unsubscribe, fieldsOf(command, { channel: 'chat:whole' }), 0));
    }
    await rows(all, connect);
  });

  it('that is cut, too long, or no message at all', TEST, async () => {
    const whole = delimited(field(1, 5), field(13, [field(2, 'x')]));
    const all = [
      ['nothing', Buffer.alloc(0), -1, 3501],
      ['a pong that nobody asked for', Buffer.from([0]), -1, 3501],
      ...Array.from({ length: whole.length - 1 }, (_, n) => [`${n + 1} bytes of it`, whole.subarray(0, n + 1), -1, 3501]),
      ['a length beyond everything', Buffer.from([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]), -1, 3501],
      ['a length that never ends', Buffer.alloc(20, 0xff), -1, 3501],
      ['an id that is bytes', delimited(field(1, 'x'), field(13, [])), -1, 3501],
      ['a group', delimited(Buffer.from([0x0b, 0x0c])), -1, 3501],
      ['field 0', delimited(Buffer.from([0x00, 0x00])), -1, 3501],
      ['text', 'x', -1, 3501],
      ['a message too large', Buffer.alloc(65_537), -1, 1009],
    ];
    await rows(all, connect);
  });
});

describe('a token', () => {
  const ok = { exp: inSeconds(600) };

  it('of a connection that does not fit', TEST, async () => {
    const all = [
      [jwt({ sub: 'ann', exp: inSeconds(-1) }), 109],
      [jwt({ sub: 'ann', nbf: inSeconds(60), ...ok }), 109],
      [jwt({ sub: 'ann', expire_at: inSeconds(-1), ...ok }), 110],
      [jwt({ sub: 'ann', ...ok }, 'another key'), 3500],
      [jwt({ sub: 'ann', channel: 'a', ...ok }), 3500],
      [jwt({ sub: 7, ...ok }), 3500],
      [jwt({ sub: 'ann', exp: 'soon' }), 3500],
      [jwt([]), 3500],
      [`${jwt({ sub: 'ann', ...ok })}x`, 3500],
      [jwt({ sub: 'ann', ...ok }).replace(/^[^.]+/, Buffer.from('{"alg":"none"}').toString('base64url')), 3500],
      ['...', 3500],
      [jwt({ sub: 'ann', channels: ['nowhere:a'], ...ok }), 3501],
      [jwt({ sub: 'ann', channels: Array.from({ length: 129 }, (_, n) => `c${n}`), ...ok }), 3505],
    ];
    for (const [token, code] of all) {
      const peer = await Peer.open();
      assert.equal(await peer.outcome(JSON.stringify({ id: 1, connect: { token } }), 1), code, token);
      peer.socket.terminate();
    }
  });

  it('of a subscription that does not fit', TEST, async () => {
    const channel = 'closed:room';
    const all = [
      [jwt({ sub: 'ann', channel, ...ok }), 0],
      [jwt({ sub: 'ann', channel, exp: inSeconds(-1) }), 109],
      [jwt({ sub: 'ann', channel, expire_at: inSeconds(-1), ...ok }), 110],
      [jwt({ sub: 'ann', channel, ...ok }, 'another key'), 103],
      [jwt({ sub: 'ann', ...ok }), 103],
      [jwt({ sub: 'ann', channel: 'closed:other', ...ok }), 3500],
      [jwt({ sub: 'bob', channel, ...ok }), 3500],
      [jwt({ sub: 'ann', channel, client: 'another', ...ok }), 3500],
    ];
    for (const [token, code] of all) {
      const peer = await Peer.connected({ token: jwt({ sub: 'ann', ...ok }) });
      const frame = JSON.stringify({ id: 9, subscribe: { channel, token } });
      assert.equal(await peer.outcome(frame, 9), code, token);
      peer.socket.terminate();
    }
  });
});

describe('a response that never ends', () => {
  /** The answer to a request; the body as far as it comes with the first bytes, or to its end. */
  async function request(path, { method = 'GET', body, headers } = {}) {
    const sent = http.request(throng.http + path, { method, headers, agent: false });
    sent.end(body);
    const [response] = await once(sent, 'response');
    let text = '';
    for await (const more of response) {
      text += more;
      if (/"(connect|disconnect|error)"/.test(text)) break;
    }
    sent.destroy();
    return { status: response.statusCode, text };
  }

  it('begins with a good request, or says what was wrong', TEST, async () => {
    const query = (text) => `?cf_connect=${encodeURIComponent(text)}`;
    const all = [
      ['/connection/sse', {}, 400],
      [`/connection/sse${query('{"id":1,"connect":{}}')}`, {}, 200, '"connect"'],
      [`/connection/sse${query('{"id":1')}`, {}, 200, '3501'],
      [`/connection/sse${query('{"id":1,"publish":{}}')}`, {}, 200, '3501'],
      [`/connection/sse${query('{"id":1,"connect":{"token":"x"}}')}`, {}, 200, '3500'],
      [`/connection/uni_sse${query('[]')}`, {}, 400, 'not readable'],
      [`/connection/uni_sse${query('{"subs":{"nowhere:a":{}}}')}`, {}, 200, '3501'],
      ['/connection/uni_http_stream', { method: 'POST', body: '{"token":1}' }, 400, 'not readable'],
      ['/connection/http_stream', { method: 'POST', body: '{}' }, 200, '3501'],
      ['/connection/http_stream', { method: 'POST', body: 'x'.repeat(65_537) }, 413],
      ['/connection/http_stream', { method: 'PUT', body: '{}' }, 405],
      ['/connection/http_stream', { method: 'POST', body: Buffer.from([0xff]) }, 200, '3501'],
    ];
    for (const [path, options, status, says = ''] of all) {
      const answer = await request(path, options);
      assert.equal(answer.status, status, `${path} ${answer.text}`);
      assert.ok(answer.text.includes(says), `${path}: ${answer.text}`);
    }
  });

  it('is spoken to by requests, good and bad', TEST, async () => {
    const sent = http.request(`${throng.http}/connection/http_stream`, { method: 'POST' });
    sent.end('{"id":1,"connect":{}}');
    const [response] = await once(sent, 'response');
    const { got, until } = gather(response.setEncoding('utf8'), 'data');
    const end = once(response, 'end');
    let text = (await until(1)).join('');
    const { session, node } = JSON.parse(text).connect;
    const emulate = async (body, headers) => (await request('/emulation', { method: 'POST', body, headers })).status;
    const envelope = (data, of = { session, node }) => JSON.stringify({ ...of, data });
    const binary = { 'Content-Type': 'application/octet-stream' };
    assert.equal(await emulate(''), 400);
    assert.equal(await emulate('[]'), 400);
    assert.equal(await emulate('{"session":7}'), 400);
    assert.equal(await emulate(DEEP), 400);
    assert.equal(await emulate(Buffer.from([0xff, 0xff]), binary), 400);
    assert.equal(await emulate('x'.repeat(65_537)), 413);
    assert.equal((await request('/emulation')).status, 405);
    assert.equal(await emulate(envelope('{}', { session, node: 'another' })), 404);
    assert.equal(await emulate(envelope('{}', { session: 'x', node })), 204);
    assert.equal(await emulate(envelope('{"id":2,"rpc":{}}')), 204);
    for (let n = 2; !text.includes('"id":2'); n += 1) text = (await until(n)).join('');
    // What is no command ends the session, which is told there.
    assert.equal(await emulate(envelope('no command')), 204);
    await end;
    assert.ok(got.join('').includes('"code":3501'), got.join(''));
    sent.destroy();
  });

  it('over a uni WebSocket, too', TEST, async () => {
    for (const [message, code] of [['', 3501], ['[]', 3501], ['{"subs":7}', 3501], [`{"token":"${LONG}"}`, 3500], ['x'.repeat(65_537), 1009]]) {
      const peer = await Peer.open(throng.uniWebsocket);
      peer.send(message);
      assert.equal(await peer.closed, code, message.slice(0, 40));
    }
    const peer = await Peer.open(throng.uniWebsocket);
    peer.send('{}');
    await peer.until((all) => all.some(({ connect }) => connect));
    // It has nothing to say any more; what it says is passed over.
    for (let n = 0; n < 1000; n += 1) peer.send('nonsense');
    peer.socket.terminate();
  });
});

describe('a client that wants too much', () => {
  it('subscribes to ten thousand channels', TEST, async () => {
    const peer = await Peer.connected();
    for (let n = 0; n < 10_000; n += 500) {
      const frame = Array.from({ length: 500 }, (_, at) => JSON.stringify({ id: 100 + n + at, subscribe: { channel: `many${n + at}` } }));
      peer.send(frame.join('\n'));
    }
    const all = await peer.until((heard) => heard.length >= 10_001);
    const codes = all.filter(({ id }) => id >= 100).map(({ error }) => error?.code ?? 0);
    assert.deepEqual([codes.filter((code) => code === 0).length, codes.filter((code) => code === 106).length], [128, 9872]);
    peer.socket.terminate();
  });

  it('says a hundred thousand things at once', TEST, async () => {
    const peer = await Peer.connected();
    const sent = 100_000;
    for (let n = 0; n < sent; n += 1000) {
      peer.send(Array.from({ length: 1000 }, (_, at) => `{"id":${100 + n + at},"rpc":{"method":"x"}}`).join('\n'));
    }
    await neighbour.isUndisturbed();
    const all = await peer.until((heard) => heard.length > sent);
    assert.deepEqual(all.slice(1).map(({ id }) => id - 100), Array.from({ length: sent }, (_, n) => n));
    peer.socket.terminate();
  });

  it('asks and never reads what is answered', TEST, async () => {
    const peer = await Peer.connected();
    await peer.ask({ subscribe: { channel: 'chat:flood' } });
    await throng.publish('chat:flood', 'x'.repeat(60_000));
    peer.socket.pause();
    const closed = throng.line('3008', throng.lines.length);
    for (let n = 0; n < 3000; n += 1) {
      peer.send(Array.from({ length: 100 }, (_, at) => `{"id":${10 + n * 100 + at},"history":{"channel":"chat:flood","limit":1}}`).join('\n'));
    }
    await closed;
    peer.socket.terminate();
  });

  it('listens and never reads what is published', TEST, async () => {
    const from = throng.lines.length;
    const peer = await Peer.connected();
    await peer.ask({ subscribe: { channel: 'torrent' } });
    peer.socket.pause();
    const data = 'x'.repeat(60_000);
    for (let n = 0; n < 300 && !throng.lines.slice(from).some((line) => line.includes('3008')); n += 1) await throng.publish('torrent', data);
    await throng.line('3008', from);
    peer.socket.terminate();
  });

  it('comes and goes in a crowd that says nonsense', TEST, async () => {
    for (let round = 0; round < 5; round += 1) {
      const crowd = await Promise.all(Array.from({ length: 100 }, () => Peer.open()));
      for (const [at, peer] of crowd.entries()) peer.send(Buffer.alloc(60_000, at));
      assert.deepEqual(new Set(await Promise.all(crowd.map(({ closed }) => closed))), new Set([3501]));
    }
  });
});

describe('clients whose commands wait', () => {
  it('are closed themselves when they hold more than all may', TEST, async () => {
    // An application that never answers.
    const silent = http.createServer(() => {}).listen(0, '127.0.0.1');
    await once(silent, 'listening');
    const port = await freePort();
    const endpoint = `http://127.0.0.1:${silent.address().port}/rpc`;
    const small = await Throng.start({
      port,
      config: {
        ...configuration(port),
        limits: { buffer_bytes: '1MiB' },
        rpc: { proxy: { endpoint, timeout: '30s' }, without_namespace: { proxy_enabled: true } },
      },
    });
    try {
      const bystander = await Peer.connected({}, small.websocket);
      const crowd = await Promise.all(Array.from({ length: 30 }, () => Peer.connected({}, small.websocket)));
      const one = '{"id":7,"rpc":{"method":"x"}}\n';
      const frame = one.repeat(Math.floor(65_000 / one.length)).trimEnd();
      const first = Promise.race(crowd.map(({ closed }) => closed));
      for (const peer of crowd) peer.send(frame);
      assert.equal(await first, 3008);
      assert.equal((await bystander.ask({ presence_stats: { channel: 'chat:x' } })).error, undefined);
      assert.ok(crowd.some(({ code }) => code === undefined), 'no more than are too many');
      for (const peer of [bystander, ...crowd]) peer.socket.terminate();
    } finally {
      await small.stop();
      silent.closeAllConnections();
      silent.close();
    }
  });
});

describe('the server API', () => {
  const post = async (method, body) => {
    const response = await fetch(`${throng.http}/api/${method}`, { method: 'POST', headers: { 'X-API-Key': API_KEY }, body });
    const text = await response.text();
    return { status: response.status, text, code: response.status === 200 ? JSON.parse(text).error?.code : undefined };
  };

  it('is sent another kind of value for each field of each method', TEST, async () => {
    const { paths, components } = JSON.parse((await run(['openapi'])).stdout);
    const schemaOf = (schema) => (schema?.$ref ? components.schemas[schema.$ref.split('/').at(-1)] : schema);
    const wrong = [];
    let tried = 0;
    for (const [path, { post: operation }] of Object.entries(paths)) {
      const method = path.split('/').at(-1);
      const schema = schemaOf(operation.requestBody.content['application/json'].schema);
      for (const [name, property] of Object.entries(schema.properties ?? {})) {
        const { type } = schemaOf(property) ?? {};
        for (const [kind, value] of [['string', '"x"'], ['integer', '7'], ['boolean', 'true'], ['array', '[1]'], ['object', '{"x":{}}']]) {
          if (type === undefined || [type].flat().includes(kind) || type === 'number') continue;
          tried += 1;
          const { status, text, code } = await post(method, `{"${name}":${value}}`);
          if (status !== 400 && code !== 107) wrong.push(`${method} with ${value} for ${name}: ${status} ${text}`);
        }
      }
      for (const body of ['', '[]', '7', 'null', '{', '"x"', `{"x":${DEEP}}`, Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d])]) {
        tried += 1;
        const { status, text, code } = await post(method, body);
        // What nobody knows is passed over, however deep it is.
        const passes = typeof body === 'string' && body.startsWith('{"x"');
        if (status !== 400 && code !== 107 && !(status === 200 && passes)) wrong.push(`${method} with ${String(body).slice(0, 20)}: ${status} ${text}`);
      }
    }
    assert.ok(tried > 200, String(tried));
    assert.deepEqual(wrong, []);
  });

  it('is sent too much, too deep, or twice', TEST, async () => {
    assert.equal((await post('publish', Buffer.alloc(16 << 20, 'x'))).status, 400);
    // One byte more is refused before it is sent.
    const announced = http.request(`${throng.http}/api/publish`, {
      method: 'POST', headers: { 'X-API-Key': API_KEY, 'Content-Length': (16 << 20) + 1 }, agent: false,
    });
    announced.on('error', () => {}).flushHeaders();
    const [refused] = await once(announced, 'response');
    assert.equal(refused.statusCode, 413);
    announced.destroy();
    // What is published is relayed, however deep it is.
    assert.equal((await post('publish', `{"channel":"a","data":${DEEP}}`)).code, undefined);
    assert.equal((await post('publish', '{"channel":"twice","channel":"again","data":1}')).code, 107);
    const many = Array.from({ length: 10_000 }, () => '{"publish":{"channel":"nowhere:x","data":1}}').join();
    const batch = await post('batch', `{"commands":[${many}]}`);
    assert.ok([200, 400].includes(batch.status), String(batch.status));
    const channels = Array.from({ length: 5000 }, (_, n) => `"c${n}"`).join();
    const broadcast = await post('broadcast', `{"channels":[${channels}],"data":1}`);
    assert.ok([200, 400].includes(broadcast.status), String(broadcast.status));
    assert.equal((await post('publish', '{"channel":"a","b64data":"*"}')).code, 107);
  });
});
