// The playground: a client of throng in one file, without a library. The upper half speaks the
// client protocol over one WebSocket and knows nothing of the page; the lower half is the page.

// ---------------------------------------------------------------------------------------------
// The client
// ---------------------------------------------------------------------------------------------

const BACKOFF_MS_MIN = 500;
const BACKOFF_MS_MAX = 20_000;
// The server says how often it pings; a connection is dead when a ping is this much overdue.
const PING_GRACE_MS = 10_000;

/** One connection that keeps itself alive, and the subscriptions that survive it. */
class Client {
  state = 'closed'; // closed | connecting | connected | waiting (for the next attempt)
  id = '';
  channels = new Map();

  #socket = null;
  #lastId = 0;
  #pending = new Map();
  #attempt = 0;
  #retryTimer = 0;
  #pingTimer = 0;
  #pingEveryMs = 0;
  #wantsPong = false;

  /** `on` holds what the page wants to hear: state, subscription, publication, people, frame, latency. */
  constructor(url, on) {
    this.url = url;
    this.on = on;
  }

  connect() {
    clearTimeout(this.#retryTimer);
    if (this.#socket) return;
    this.#setState('connecting');
    const socket = new WebSocket(this.url);
    this.#socket = socket;
    socket.onopen = () => this.#greet();
    socket.onmessage = (event) => this.#frame(event.data);
    socket.onclose = (event) => this.#closed(event.code, event.reason);
  }

  disconnect() {
    this.#attempt = 0;
    this.#abandon();
    clearTimeout(this.#retryTimer);
    this.#setState('closed', { asked: true });
  }

  /** Cuts the connection as a lost network would, and comes back after `ms`. */
  loseNetworkFor(ms) {
    this.#abandon();
    this.#waitThenConnect(ms, { rehearsed: true });
  }

  subscribe(name) {
    if (this.channels.has(name)) return;
    const channel = { name, state: 'subscribing', epoch: '', offset: 0, recover: false, people: null, note: '' };
    this.channels.set(name, channel);
    this.on.subscription(channel);
    if (this.state === 'connected') this.#subscribe(channel);
  }

  unsubscribe(name) {
    if (!this.channels.delete(name)) return;
    this.on.subscription(null);
    // An unanswered unsubscribe means that the connection is gone, and the subscription with it.
    if (this.state === 'connected') this.request('unsubscribe', { channel: name }).catch(() => {});
  }

  /** Sends one command; the promise settles with its result, or fails with {code, message}. */
  request(method, params) {
    if (this.#socket?.readyState !== WebSocket.OPEN) {
      return Promise.reject({ code: 0, message: 'not connected' });
    }
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject, method, sentAt: performance.now() });
      this.#send(JSON.stringify({ id, [method]: params }), method);
    });
  }

  refreshPeople(channel) {
    return this.request('presence', { channel: channel.name }).then(
      (result) => {
        channel.people = new Map(Object.entries(result.presence));
        this.on.people(channel);
      },
      (error) => {
        channel.people = null;
        channel.note = error.code === 108 ? 'Presence is off in this namespace.' : `Presence: ${error.message}.`;
        this.on.people(channel);
      },
    );
  }

  #setState(state, detail = {}) {
    this.state = state;
    this.on.state(state, detail);
  }

  #send(text, kind) {
    this.#socket.send(text);
    this.on.frame('out', text, kind);
  }

  #greet() {
    this.request('connect', { name: 'playground' }).then(
      (result) => {
        this.id = result.client;
        this.#attempt = 0;
        this.#pingEveryMs = (result.ping ?? 0) * 1000;
        this.#wantsPong = result.pong === true;
        this.#expectPing();
        this.#setState('connected');
        for (const [name, sub] of Object.entries(result.subs ?? {})) this.#serverSide(name, sub);
        for (const channel of this.channels.values()) {
          if (!channel.serverSide) this.#subscribe(channel);
        }
      },
      (error) => {
        // An error reply leaves the session unusable: start again, or give up for good.
        if (!this.#socket) return;
        this.#abandon();
        if (error.temporary || error.code < 100) this.#waitThenConnect(this.#backoff(), { code: error.code });
        else this.#setState('closed', { error });
      },
    );
  }

  #subscribe(channel) {
    channel.state = 'subscribing';
    this.on.subscription(channel);
    const params = { channel: channel.name, positioned: true, recoverable: true, join_leave: true };
    if (channel.recover) Object.assign(params, { recover: true, epoch: channel.epoch, offset: channel.offset });
    this.request('subscribe', params).then(
      (result) => {
        // The user may have unsubscribed, or left and come back, while the reply travelled.
        if (this.channels.get(channel.name) === channel) this.#subscribed(channel, result);
      },
      (error) => {
        if (error.code === 0) return; // The connection closed; the next one subscribes again.
        const passing = error.code < 100 || error.temporary;
        if (passing) setTimeout(() => this.state === 'connected' && this.#subscribe(channel), 1000);
        channel.state = passing ? 'subscribing' : 'refused';
        channel.note = `${error.code} ${error.message}`;
        this.on.subscription(channel);
      },
    );
  }

  #subscribed(channel, result) {
    const missed = result.publications ?? [];
    channel.state = 'subscribed';
    channel.note = '';
    channel.recover = result.recoverable === true;
    channel.epoch = result.epoch ?? '';
    channel.offset = result.offset ?? 0;
    const recovery = result.was_recovering ? { recovered: result.recovered === true, count: missed.length } : null;
    this.on.subscription(channel, recovery);
    for (const pub of missed) this.#publication(channel, pub, true);
    this.refreshPeople(channel);
  }

  #serverSide(name, result) {
    const channel = this.channels.get(name)
      ?? { name, state: 'subscribed', epoch: '', offset: 0, recover: false, people: null, note: '' };
    channel.serverSide = true;
    this.channels.set(name, channel);
    this.#subscribed(channel, result);
  }

  #publication(channel, pub, recovered) {
    if (pub.offset) channel.offset = pub.offset;
    if (pub.epoch) channel.epoch = pub.epoch;
    this.on.publication(channel, pub, recovered);
  }

  #frame(text) {
    this.#expectPing();
    // One frame may carry several messages, a line each.
    const messages = text.split('\n').filter(Boolean).map((line) => JSON.parse(line));
    const entry = this.#pending.get(messages[0]?.id);
    this.on.frame('in', text, text === '{}' ? 'ping' : entry?.method);
    for (const message of messages) {
      if (message.id) this.#reply(message);
      else if (message.push) this.#push(message.push);
      else if (this.#wantsPong) this.#send('{}', 'ping');
    }
  }

  #reply(reply) {
    const entry = this.#pending.get(reply.id);
    if (!entry) return;
    this.#pending.delete(reply.id);
    this.on.latency(performance.now() - entry.sentAt);
    if (reply.error) entry.reject(reply.error);
    else entry.resolve(reply[entry.method] ?? {});
  }

  #push(push) {
    if (push.disconnect) return; // The close frame that follows says the same.
    if (push.subscribe) return this.#serverSide(push.channel, push.subscribe);
    const channel = this.channels.get(push.channel);
    if (!channel) return;
    if (push.pub) this.#publication(channel, push.pub, false);
    else if (push.join || push.leave) this.#joinOrLeave(channel, push);
    else if (push.unsubscribe) this.#unsubscribed(channel, push.unsubscribe);
  }

  #joinOrLeave(channel, push) {
    if (!channel.people) return;
    if (push.join) channel.people.set(push.join.info.client, push.join.info);
    else channel.people.delete(push.leave.info.client);
    this.on.people(channel);
  }

  #unsubscribed(channel, { code, reason }) {
    // From 2500 on the server asks to subscribe again, with recovery.
    if (code >= 2500 && !channel.serverSide) return this.#subscribe(channel);
    channel.state = 'refused';
    channel.note = `${code} ${reason}`;
    this.on.subscription(channel);
  }

  #expectPing() {
    clearTimeout(this.#pingTimer);
    if (!this.#pingEveryMs) return;
    this.#pingTimer = setTimeout(() => {
      this.#abandon();
      this.#waitThenConnect(this.#backoff(), { code: 0 });
    }, this.#pingEveryMs + PING_GRACE_MS);
  }

  /** Drops the socket without waiting for its close event, which a dead network never brings. */
  #abandon() {
    const socket = this.#socket;
    this.#forget();
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close(1000);
  }

  #forget() {
    this.#socket = null;
    this.id = '';
    clearTimeout(this.#pingTimer);
    this.#pingEveryMs = 0;
    const waiting = [...this.#pending.values()];
    this.#pending.clear();
    for (const entry of waiting) entry.reject({ code: 0, message: 'connection closed' });
    for (const channel of this.channels.values()) {
      if (channel.state === 'subscribed') channel.state = 'subscribing';
      channel.people = null;
    }
  }

  #closed(code, reason) {
    this.#forget();
    if (isFinal(code)) this.#setState('closed', { code, reason });
    else this.#waitThenConnect(this.#backoff(), { code, reason });
  }

  #waitThenConnect(ms, detail) {
    this.#setState('waiting', { ...detail, ms });
    this.#retryTimer = setTimeout(() => this.connect(), ms);
  }

  // The wait is drawn at random, so that a crowd that lost its server does not return as one.
  #backoff() {
    const ceiling = Math.min(BACKOFF_MS_MAX, BACKOFF_MS_MIN * 2 ** this.#attempt++);
    return Math.min(BACKOFF_MS_MAX, BACKOFF_MS_MIN + Math.random() * ceiling);
  }
}

/** Whether a close code means: do not come back. */
function isFinal(code) {
  return code === 1009 || (code >= 3500 && code < 4000) || (code >= 4500 && code < 5000);
}

// ---------------------------------------------------------------------------------------------
// Words
// ---------------------------------------------------------------------------------------------

const CLOSE_WORDS = {
  0: 'No ping from the server for too long; the network is probably gone.',
  1000: 'The connection was closed in good order.',
  1001: 'The server is going away.',
  1006: 'The server did not answer. Is it running? Does client.allowed_origins include this page?',
  1009: 'A message was longer than websocket.message_size_limit.',
  3000: 'The connection was closed.',
  3001: 'The server is stopping or restarting. Clients come back by themselves.',
  3004: 'Something went wrong inside the server; its log says what.',
  3005: 'The connection’s token expired and was not refreshed.',
  3006: 'A subscription’s token expired and was not refreshed.',
  3008: 'This client read too slowly, and too much was waiting for it.',
  3009: 'Writing to the connection failed.',
  3010: 'The client’s position in a channel no longer fits; it reconnects and recovers.',
  3011: 'The server asked this client to reconnect.',
  3012: 'This client did not answer a ping in time.',
  3013: 'Too many requests; the client tries again later.',
  3014: 'The client’s state was invalidated; it reconnects.',
  3500: 'The token is not valid: wrong key, wrong audience, or made for something else.',
  3501: 'The server could not make sense of what this client sent, or knows no way to let it in.',
  3502: 'The client did not introduce itself in time.',
  3503: 'The server was told to disconnect this client.',
  3504: 'This user has too many connections.',
  3505: 'Too many channels on one connection.',
  3506: 'This protocol does not fit the endpoint.',
  3507: 'The client is not permitted to connect.',
  3508: 'What the client asked for is not available.',
  3509: 'The client made too many errors.',
};

/** What a close code means, for a person. */
function closeWords(code, reason) {
  return CLOSE_WORDS[code] ?? (reason ? `The server said: ${reason}.` : 'The connection ended.');
}

// ---------------------------------------------------------------------------------------------
// Snippets: the same in other words, for the channel, data and host on the page
// ---------------------------------------------------------------------------------------------

/** Quotes for a POSIX shell, only where the shell would otherwise see something else. */
function shell(text) {
  return /^[\w:.@%+=,/-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

const js = (text) => JSON.stringify(text);

// Swift and Dart read `$` or `\(` in a string as the beginning of an expression.
const dart = (text) => JSON.stringify(text).replaceAll('$', '\\$');

const PROTOBUF_ONLY = 'speaks Protobuf only, which this release of throng does not serve yet.';

function terminalSnippets({ channel, data, command, http, port }) {
  const url = port === '8000' ? '' : ` \\\n  --url ${http}`;
  const body = JSON.stringify({ channel, data });
  return [
    { name: 'throng', text: `${command} publish ${shell(channel)} ${shell(JSON.stringify(data))}${url}` },
    { name: 'curl', text: `curl -H 'Content-Type: application/json' \\\n  -d ${shell(body)} \\\n  ${http}/api/publish` },
  ];
}

const LANGUAGES = [
  {
    id: 'plain', name: 'Plain JS', note: 'No library: one WebSocket that only receives.',
    text: ({ channel, ws }) => `const socket = new WebSocket(
  '${ws}/connection/uni_websocket');

socket.onopen = () => socket.send(
  JSON.stringify({ subs: { ${js(channel)}: {} } }));

socket.onmessage = (event) => {
  for (const line of event.data.split('\\n')) {
    const push = JSON.parse(line);
    if (push.pub) console.log(push.pub.data);
  }
};`,
  },
  {
    id: 'js', name: 'JavaScript', note: 'npm install centrifuge',
    text: ({ channel, ws }) => `import { Centrifuge } from 'centrifuge';

const client = new Centrifuge(
  '${ws}/connection/websocket');
const sub = client.newSubscription(${js(channel)});

sub.on('publication', (ctx) => console.log(ctx.data));
sub.subscribe();
client.connect();`,
  },
  {
    id: 'python', name: 'Python', note: 'pip install centrifuge-python',
    text: ({ channel, ws }) => `import asyncio
from centrifuge import Client, SubscriptionEventHandler

class Events(SubscriptionEventHandler):
    async def on_publication(self, ctx):
        print(ctx.pub.data)

async def main():
    client = Client("${ws}/connection/websocket")
    sub = client.new_subscription(
        ${js(channel)}, Events())
    await client.connect()
    await sub.subscribe()
    await asyncio.Event().wait()

asyncio.run(main())`,
  },
  {
    id: 'go', name: 'Go', note: 'go get github.com/centrifugal/centrifuge-go',
    text: ({ channel, ws }) => `client := centrifuge.NewJsonClient(
	"${ws}/connection/websocket", centrifuge.Config{})
sub, err := client.NewSubscription(${js(channel)})
if err != nil {
	log.Fatal(err)
}
sub.OnPublication(func(e centrifuge.PublicationEvent) {
	log.Printf("%s", e.Data)
})
sub.Subscribe()
client.Connect()
select {}`,
  },
  {
    id: 'dart', name: 'Dart', note: `dart pub add centrifuge. For later: it ${PROTOBUF_ONLY}`,
    text: ({ channel, ws }) => `final client = createClient(
  '${ws}/connection/websocket');
final sub = client.newSubscription(${dart(channel)});
sub.publication.listen((e) => print(utf8.decode(e.data)));
await sub.subscribe();
await client.connect();`,
  },
  {
    id: 'swift', name: 'Swift', note: `Package centrifuge-swift. For later: it ${PROTOBUF_ONLY}`,
    text: ({ channel, ws }) => `let client = CentrifugeClient(
  endpoint: "${ws}/connection/websocket",
  config: CentrifugeClientConfig(), delegate: nil)
// Your delegate's onPublication receives event.data.
let sub = try client.newSubscription(
  channel: ${js(channel)}, delegate: delegate)
sub.subscribe()
client.connect()`,
  },
];

// ---------------------------------------------------------------------------------------------
// The page
// ---------------------------------------------------------------------------------------------

// More than a person reads; a channel that never pauses must not fill the browser's memory.
const MESSAGES_MAX = 500;
const FRAMES_MAX = 300;
const FRAME_CHARS_MAX = 4_000;
const PEOPLE_SHOWN_MAX = 40;
const HISTORY_LIMIT = 50;
const PROBE_EVERY_MS = 10_000;
const OUTAGE_MS = 5_000;

const $ = (id) => document.getElementById(id);

const page = {
  channel: 'news', // What the composer, "here now" and the snippets are about.
  language: LANGUAGES[0].id,
  kind: 'text',
  data: { text: 'hi' }, // What the snippets publish: the composer's, when that is valid.
  // Messages on the page by channel, epoch and offset: history must not show one a second time.
  shown: new Set(),
  waiting: [],
  total: 0,
  frames: [],
  frameTotal: 0,
};

const client = new Client(`${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/connection/websocket`, {
  state: showState,
  subscription: showSubscription,
  publication: showPublication,
  people: (channel) => channel.name === page.channel && renderPeople(),
  frame: showFrame,
  latency: (ms) => { $('fact-latency').textContent = ms < 10 ? `${ms.toFixed(1)} ms` : `${Math.round(ms)} ms`; },
});

/** Makes an element; `parts` are strings, which become text, or nodes. */
function make(tag, attributes = {}, ...parts) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) node[name] = value;
    else if (value !== false && value != null) node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...parts);
  return node;
}

/** The same name gets the same colour in every tab. */
function hueOf(text) {
  let hash = 7;
  for (const char of text) hash = (hash * 31 + char.codePointAt(0)) >>> 0;
  return String((hash * 23) % 360);
}

function tinted(node, text) {
  node.style.setProperty('--hue', hueOf(text));
  return node;
}

function timeOf(ms) {
  const date = new Date(ms);
  const two = (n) => String(n).padStart(2, '0');
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

// --- The connection

let countdown = 0;

function showState(state, detail) {
  clearInterval(countdown);
  const text = { connected: 'connected', connecting: 'connecting…', closed: 'disconnected', waiting: '' }[state];
  $('status').dataset.state = state;
  $('status-text').textContent = text;
  $('facts').hidden = state !== 'connected';
  $('fact-client').textContent = client.id.slice(0, 8);
  $('fact-client').title = client.id;
  $('toggle').textContent = state === 'closed' ? 'Connect' : 'Disconnect';
  $('toggle').classList.toggle('primary', state === 'closed');
  $('drop').disabled = $('send').disabled = state !== 'connected';
  if (state === 'waiting') countDown(Date.now() + detail.ms);
  if (state === 'connected') $('notice').hidden = true;
  else if (state !== 'connecting') showNotice(state, detail);
  renderChannels();
  renderPeople();
}

function countDown(until) {
  const tick = () => {
    const left = Math.max(1, Math.ceil((until - Date.now()) / 1000));
    $('status-text').textContent = `reconnecting in ${left} s`;
  };
  tick();
  countdown = setInterval(tick, 250);
}

function showNotice(state, { code, reason, error, asked, rehearsed }) {
  $('notice').hidden = asked === true;
  $('notice').dataset.kind = rehearsed ? 'rehearsed' : state;
  $('notice-again').hidden = false;
  let command = '';
  if (rehearsed) {
    $('notice-title').textContent = 'The network is gone, on purpose.';
    $('notice-text').textContent = 'Publish from a terminal or another tab now: it will be here when this page is back.';
  } else if (error) {
    $('notice-title').textContent = `Refused: ${error.code} ${error.message}.`;
    $('notice-text').textContent = 'The server’s log names the option behind it.';
    command = `throng explain ${error.code}`;
  } else {
    // Codes below 3000 are the transport's; a reader has no use for the number alone.
    $('notice-title').textContent = code >= 3000 ? `Closed: ${code}${reason ? ` ${reason}` : ''}.` : 'Not connected.';
    $('notice-text').textContent = closeWords(code, reason);
    if (code >= 3000) command = `throng explain ${code}`;
  }
  $('notice-do').textContent = command;
  $('notice-do').hidden = !command;
}

// --- Channels

function showSubscription(channel, recovery) {
  renderChannels();
  if (!channel) return;
  if (channel.name === page.channel) renderPeople();
  if (!recovery) return;
  const { recovered, count } = recovery;
  const missed = count === 0 ? 'nothing was missed' : count === 1 ? '1 message recovered' : `${count} messages recovered`;
  enqueue(make('li', { class: `gap ${recovered ? 'kept' : 'lost'}`, 'data-channel': channel.name },
    make('span', {}, recovered
      ? `back on ${channel.name}: ${missed}`
      : `back on ${channel.name}, but the history of the gap is gone: reload what this page shows from your application`)));
}

function renderChannels() {
  const rows = [...client.channels.values()].map((channel) => {
    const current = channel.name === page.channel;
    const words = {
      subscribing: client.state === 'connected' ? 'subscribing…' : 'when connected',
      // What the code means here is worth more than its name: nobody created the namespace.
      refused: channel.note.startsWith('102 ') ? '102: no namespace of that name is configured' : channel.note,
      subscribed: '',
    }[channel.state];
    return tinted(make('li', { class: channel.state, 'data-channel': channel.name },
      make('button', { type: 'button', class: 'channel', 'aria-pressed': String(current), onclick: () => choose(channel.name) },
        make('i', { 'aria-hidden': true }), make('span', { class: 'name' }, channel.name),
        words ? make('span', { class: 'words' }, words) : ''),
      make('button', { type: 'button', class: 'remove', 'aria-label': `Unsubscribe from ${channel.name}`, title: 'Unsubscribe', onclick: () => leave(channel.name) }, '×')),
    channel.name);
  });
  $('channels').replaceChildren(...rows);
  $('no-channels').hidden = rows.length > 0;
}

function join(name) {
  client.subscribe(name);
  rememberChannels();
  choose(name);
}

function leave(name) {
  client.unsubscribe(name);
  rememberChannels();
  const [next] = client.channels.keys();
  choose(page.channel === name && next ? next : page.channel);
}

function choose(name) {
  page.channel = name;
  for (const id of ['publish-channel', 'only-name']) $(id).textContent = name;
  tinted($('publish-channel'), name);
  renderChannels();
  renderPeople();
  renderSnippets();
  filterMessages();
}

// The address carries the channels, so that a second tab and a reload show the same.
function rememberChannels() {
  const names = [...client.channels.keys()].map(encodeURIComponent).join(',');
  history.replaceState(null, '', `#${names}`);
  $('second-tab').href = `/#${names}`;
}

function channelsInAddress() {
  try {
    return location.hash.slice(1).split(',').filter(Boolean).map(decodeURIComponent);
  } catch {
    return []; // A hash that somebody typed; not worth a word.
  }
}

// --- Who is here

function renderPeople() {
  const channel = client.channels.get(page.channel);
  const people = channel?.people;
  $('people-count').textContent = people ? String(people.size) : '';
  const shown = people ? [...people.values()].slice(0, PEOPLE_SHOWN_MAX) : [];
  $('people').replaceChildren(...shown.map((info) => {
    const mine = info.client === client.id;
    return tinted(make('li', { title: info.client },
      make('i', { 'aria-hidden': true }), make('span', {}, info.user || 'anonymous'),
      make('code', {}, info.client.slice(0, 8)), mine ? make('em', {}, 'this tab') : ''), info.client);
  }));
  const more = people ? people.size - shown.length : 0;
  $('people-note').textContent = people
    ? (more > 0 ? `and ${more} more` : '')
    : client.state !== 'connected' ? 'Connect to see who is here.'
      : channel?.note || (channel ? '' : 'Subscribe to see who is here.');
}

/** Asks for a number now and then: it measures the round trip, and shows whether the list is stale. */
function probe() {
  const channel = client.channels.get(page.channel);
  if (document.hidden || client.state !== 'connected' || channel?.state !== 'subscribed') return;
  client.request('presence_stats', { channel: channel.name }).then(
    ({ num_clients: clients }) => {
      if (clients !== channel.people?.size && clients <= PEOPLE_SHOWN_MAX) client.refreshPeople(channel);
    },
    () => {}, // Presence is off; the round trip was measured all the same.
  );
}

// --- Messages

function showPublication(channel, pub, recovered) {
  page.total += 1;
  enqueue(messageRow(channel.name, channel.epoch, pub, recovered ? 'recovered' : ''));
}

function messageRow(channel, epoch, pub, mark) {
  if (pub.offset) page.shown.add(`${channel} ${epoch} ${pub.offset}`);
  const from = pub.info ? (pub.info.client === client.id ? 'this tab' : pub.info.user || pub.info.client.slice(0, 8)) : 'API';
  return tinted(make('li', { class: 'message', 'data-channel': channel, 'data-key': pub.offset ? `${channel} ${epoch} ${pub.offset}` : null },
    make('div', { class: 'meta' },
      make('time', {}, timeOf(pub.time ?? Date.now())),
      make('b', {}, channel),
      pub.offset ? make('span', { class: 'offset', title: 'offset in the channel’s history' }, `#${pub.offset}`) : '',
      mark ? make('mark', {}, mark) : '',
      make('span', { class: 'from', title: pub.info?.client ?? 'published by the server API' }, from)),
    make('pre', {}, prettyJson(pub.data))), channel);
}

/** JSON as nodes: one line when it is short, and colours for what stands out. */
function prettyJson(data) {
  const short = JSON.stringify(data);
  const text = short.length <= 72 ? short : JSON.stringify(data, null, 2);
  const nodes = document.createDocumentFragment();
  const tokens = /("(?:\\.|[^"\\])*")(\s*:)?|\b(true|false|null)\b|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
  let end = 0;
  for (const match of text.matchAll(tokens)) {
    nodes.append(text.slice(end, match.index));
    const kind = match[2] !== undefined ? 'key' : match[1] ? 'string' : match[3] ? 'word' : 'number';
    nodes.append(make('span', { class: kind }, match[1] ?? match[0]), match[2] ?? '');
    end = match.index + match[0].length;
  }
  nodes.append(text.slice(end));
  return nodes;
}

/** Rows are drawn together a few times a second: a flood of messages costs one layout, not one each. */
function enqueue(row) {
  if (page.waiting.length === 0) setTimeout(drawWaiting, 20);
  page.waiting.push(row);
  if (page.waiting.length > MESSAGES_MAX) page.waiting.shift();
}

function drawWaiting() {
  const rows = page.waiting.splice(0).reverse();
  for (const row of rows) row.hidden = isFiltered(row);
  $('messages').prepend(...rows);
  trimMessages();
}

function trimMessages() {
  const list = $('messages');
  while (list.children.length > MESSAGES_MAX) {
    page.shown.delete(list.lastElementChild.dataset.key);
    list.lastElementChild.remove();
  }
  $('message-count').textContent = page.total > 0 ? page.total.toLocaleString('en') : '';
  $('empty').hidden = list.children.length > 0;
}

function isFiltered(row) {
  return $('only-current').checked && row.dataset.channel !== page.channel;
}

function filterMessages() {
  for (const row of $('messages').children) row.hidden = isFiltered(row);
}

function showHistory() {
  const name = page.channel;
  client.request('history', { channel: name, limit: HISTORY_LIMIT, reverse: true }).then(
    ({ publications = [], epoch }) => {
      const unseen = publications.filter((pub) => !page.shown.has(`${name} ${epoch} ${pub.offset}`));
      const label = unseen.length === 0
        ? `nothing in the history of ${name} that is not here`
        : `${unseen.length} from the history of ${name}`;
      // Newest first in the reply, oldest first in the queue.
      for (const pub of unseen.reverse()) enqueue(messageRow(name, epoch, pub, 'history'));
      enqueue(make('li', { class: 'gap kept', 'data-channel': name }, make('span', {}, label)));
    },
    (error) => enqueue(make('li', { class: 'gap lost', 'data-channel': name }, make('span', {}, `history of ${name}: ${error.code} ${error.message}`))),
  );
}

// --- The composer

/** What the composer holds, as data; throws with a sentence when there is none. */
function payload() {
  const text = $('payload').value;
  if (page.kind === 'text') {
    if (text.trim() === '') throw new Error('Write something first.');
    return { text };
  }
  return JSON.parse(text);
}

/** Says below the composer what would go out, or what is wrong; returns the data if it is right. */
function checkPayload() {
  const [area, note] = [$('payload'), $('payload-note')];
  let data, wrong;
  try {
    data = payload();
    note.textContent = page.kind === 'text' ? `goes out as ${JSON.stringify(data)}` : 'valid JSON';
  } catch (error) {
    wrong = page.kind === 'text' ? error.message : `Not JSON: ${error.message.replace(/, ".*/s, '')}.`;
    note.textContent = wrong;
  }
  note.classList.toggle('wrong', wrong !== undefined);
  area.setAttribute('aria-invalid', String(wrong !== undefined));
  area.style.height = 'auto';
  area.style.height = `${Math.min(area.scrollHeight + 2, 280)}px`;
  page.data = data ?? { text: 'hi' };
  renderSnippets();
  return data;
}

function switchKind(kind) {
  const area = $('payload');
  if (kind === 'json') area.value = JSON.stringify({ text: area.value });
  else {
    try {
      const data = JSON.parse(area.value);
      if (typeof data.text === 'string') area.value = data.text;
    } catch { /* Not JSON: the words stay as they are. */ }
  }
  page.kind = kind;
  area.classList.toggle('mono', kind === 'json');
  $('send-key').textContent = kind === 'json' ? 'Ctrl ⏎' : 'Enter';
  checkPayload();
}

function publish() {
  const data = checkPayload();
  if (data === undefined) return $('payload').focus();
  const note = $('payload-note');
  client.request('publish', { channel: page.channel, data }).then(
    () => {
      // Published to a channel that this page does not listen to: say so, or it looks lost.
      if (client.channels.get(page.channel)?.state !== 'subscribed') {
        note.textContent = `Published. This page is not subscribed to ${page.channel}, so it does not see it.`;
      }
      if (page.kind === 'text') $('payload').select();
    },
    (error) => {
      note.textContent = `Not published: ${error.code ? `${error.code} ` : ''}${error.message}.`;
      note.classList.add('wrong');
    },
  );
}

// --- Snippets

function snippetContext() {
  const secure = location.protocol === 'https:';
  return {
    channel: page.channel,
    data: page.data,
    command: document.querySelector('meta[name=throng-command]').content,
    http: location.origin,
    port: location.port || (secure ? '443' : '80'),
    ws: `${secure ? 'wss' : 'ws'}://${location.host}`,
  };
}

function snippet(name, text, note) {
  return make('figure', { class: 'snippet' },
    make('figcaption', {}, make('span', {}, note ?? name),
      make('button', { type: 'button', class: 'quiet', 'aria-label': `Copy ${name}`, onclick: (event) => copy(event.currentTarget, text) }, 'Copy')),
    make('pre', {}, make('code', {}, text)));
}

function renderSnippets() {
  const context = snippetContext();
  $('terminal').replaceChildren(...terminalSnippets(context).map(({ name, text }) => snippet(name, text)));
  const language = LANGUAGES.find(({ id }) => id === page.language);
  $('code').replaceChildren(snippet(language.name, language.text(context), language.note));
  $('code').setAttribute('aria-labelledby', `tab-${language.id}`);
}

function renderTabs() {
  $('tabs').replaceChildren(...LANGUAGES.map(({ id, name }) => make('button', {
    type: 'button', role: 'tab', id: `tab-${id}`, 'aria-controls': 'code',
    'aria-selected': String(id === page.language), tabindex: id === page.language ? '0' : '-1',
    onclick: () => chooseLanguage(id),
  }, name)));
}

function chooseLanguage(id) {
  page.language = id;
  renderTabs();
  renderSnippets();
  $(`tab-${id}`).focus();
}

function moveTab(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const at = LANGUAGES.findIndex(({ id }) => id === page.language);
  chooseLanguage(LANGUAGES[(at + step + LANGUAGES.length) % LANGUAGES.length].id);
}

async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = 'Copied';
  } catch {
    // No clipboard outside a secure context: the text is selected, one key press away.
    getSelection().selectAllChildren(button.closest('figure').querySelector('code'));
    button.textContent = 'Selected';
  }
  setTimeout(() => { button.textContent = 'Copy'; }, 1500);
}

// --- The wire

function showFrame(direction, text, kind) {
  page.frameTotal += 1;
  const frame = { direction, text, at: Date.now(), quiet: kind === 'ping' || kind === 'presence_stats' };
  page.frames.push(frame);
  if (page.frames.length > FRAMES_MAX) page.frames.shift();
  $('wire-count').textContent = page.frameTotal.toLocaleString('en');
  if ($('wire').hidden || (frame.quiet && !$('wire-pings').checked)) return;
  const list = $('wire');
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  list.append(frameRow(frame));
  if (list.children.length > FRAMES_MAX) list.firstElementChild.remove();
  // Follow the newest, but not under the eyes of somebody who scrolled up to read.
  if (atEnd) list.scrollTop = list.scrollHeight;
}

function frameRow({ direction, text, at }) {
  const cut = text.length > FRAME_CHARS_MAX ? `${text.slice(0, FRAME_CHARS_MAX)}… ${text.length} characters` : text;
  return make('li', { class: direction },
    make('time', {}, timeOf(at)),
    make('span', { class: 'arrow', title: direction === 'in' ? 'received' : 'sent' }, direction === 'in' ? '←' : '→'),
    make('code', {}, cut));
}

function renderWire() {
  const open = !$('wire').hidden;
  $('wire-toggle').setAttribute('aria-expanded', String(open));
  $('wire-tools').hidden = !open;
  document.body.classList.toggle('wire-open', open);
  if (!open) return;
  const visible = page.frames.filter((frame) => !frame.quiet || $('wire-pings').checked);
  $('wire').replaceChildren(...visible.map(frameRow));
  $('wire').scrollTop = $('wire').scrollHeight;
}

function toggleWire(open = $('wire').hidden) {
  $('wire').hidden = !open;
  renderWire();
}

// --- Wiring

$('toggle').onclick = () => (client.state === 'closed' ? client.connect() : client.disconnect());
$('drop').onclick = () => client.loseNetworkFor(OUTAGE_MS);
$('notice-again').onclick = () => client.connect();
$('subscribe').onsubmit = (event) => {
  event.preventDefault();
  const name = $('channel').value.trim();
  if (name) join(name);
  $('channel').select();
};
$('publish').onsubmit = (event) => {
  event.preventDefault();
  publish();
};
$('payload').oninput = checkPayload;
$('payload').onkeydown = (event) => {
  if (event.key !== 'Enter' || event.isComposing) return;
  const plain = page.kind === 'text' && !event.shiftKey;
  if (!plain && !event.ctrlKey && !event.metaKey) return;
  event.preventDefault();
  publish();
};
for (const radio of document.querySelectorAll('input[name=kind]')) radio.onchange = () => switchKind(radio.value);
$('only-current').onchange = filterMessages;
$('history').onclick = showHistory;
$('clear').onclick = () => {
  $('messages').replaceChildren();
  page.shown.clear();
  page.total = 0;
  trimMessages();
};
$('tabs').onkeydown = moveTab;
$('wire-toggle').onclick = () => toggleWire();
$('wire-pings').onchange = renderWire;
$('wire-clear').onclick = () => {
  page.frames.length = page.frameTotal = 0;
  $('wire-count').textContent = '';
  renderWire();
};
document.onkeydown = (event) => {
  if (event.key === 'Escape' && !$('wire').hidden) toggleWire(false);
};
setInterval(probe, PROBE_EVERY_MS);

const wanted = channelsInAddress();
for (const name of wanted.length ? wanted : ['news']) join(name);
choose(wanted[0] ?? 'news');
renderTabs();
checkPayload();
client.connect();
