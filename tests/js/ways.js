// Every way in which a client reaches the server: the official SDK over each of its transports in each encoding, and
// clients that only listen. One table of scenarios runs over all of them.

import { EventEmitter, once } from 'node:events';
import http from 'node:http';

import { EventSource } from 'eventsource';
import WebSocket from 'ws';

import { ENCODINGS } from './encodings.js';

/** What a server needs in its configuration for them. */
export const TRANSPORTS = {
  sse: { enabled: true },
  http_stream: { enabled: true },
  uni_websocket: { enabled: true },
  uni_sse: { enabled: true },
  uni_http_stream: { enabled: true },
};

/** The address of a transport of the server whose WebSocket is at this one. */
const beside = (url, transport, scheme = 'http:') => {
  const { host } = new URL(url);
  return `${scheme}//${host}/connection/${transport}`;
};

/** The SDK; `url` is that of the server's WebSocket. */
function sdk(transport, { encoding, Centrifuge }) {
  const client = (url, options = {}) => {
    const common = { minReconnectDelay: 20, maxReconnectDelay: 100, ...options };
    if (transport === 'websocket') return new Centrifuge(url, { websocket: WebSocket, ...common });
    return new Centrifuge([{ transport, endpoint: beside(url, transport) }], {
      eventsource: EventSource,
      fetch,
      readableStream: ReadableStream,
      emulationEndpoint: beside(url, '').replace('/connection/', '/emulation'),
      ...common,
    });
  };
  return { name: `${transport} in ${encoding}`, transport, encoding, client };
}

/** Who only listens; it tells of what it hears by the names that the SDK has for it. */
class Listener extends EventEmitter {
  constructor(transport, url, { token, subs } = {}) {
    super();
    this.transport = transport;
    this.url = url;
    this.request = JSON.stringify({ token, subs });
  }

  connect() {
    const query = `?cf_connect=${encodeURIComponent(this.request)}`;
    if (this.transport === 'uni_websocket') {
      this.socket = new WebSocket(beside(this.url, this.transport, 'ws:'));
      this.socket.on('open', () => this.socket.send(this.request));
      this.socket.on('message', (data) => this.#lines(data.toString()));
      this.socket.on('error', () => {});
    } else if (this.transport === 'uni_sse') {
      this.source = new EventSource(beside(this.url, this.transport) + query);
      this.source.onmessage = ({ data }) => this.#lines(data);
    } else {
      this.#read(http.request(beside(this.url, this.transport), { method: 'POST', agent: false }));
    }
  }

  async #read(request) {
    this.sent = request;
    request.on('error', () => {}).end(this.request);
    const [response] = await once(request, 'response');
    let rest = '';
    response.on('error', () => {}).setEncoding('utf8').on('data', (more) => {
      const lines = (rest + more).split('\n');
      rest = lines.pop();
      for (const line of lines) this.#lines(line);
    });
  }

  #lines(text) {
    for (const line of text.split('\n')) if (line !== '' && line !== '{}') this.#heard(JSON.parse(line));
  }

  #heard({ channel, connect, pub, subscribe, unsubscribe, disconnect }) {
    if (connect) {
      for (const [name, sub] of Object.entries(connect.subs ?? {})) {
        this.emit('subscribed', { channel: name, ...sub });
        for (const publication of sub.publications ?? []) this.emit('publication', { channel: name, ...publication });
      }
      this.emit('connected', connect);
    } else if (pub) this.emit('publication', { channel, ...pub });
    else if (subscribe) this.emit('subscribed', { channel, ...subscribe });
    else if (unsubscribe) this.emit('unsubscribed', { channel, ...unsubscribe });
    else if (disconnect) {
      // A page's EventSource would come back by itself; these are done.
      this.emit(disconnect.reconnect ? 'connecting' : 'disconnected', disconnect);
      this.disconnect();
    }
  }

  disconnect() {
    this.socket?.terminate();
    this.source?.close();
    this.sent?.destroy();
  }
}

const [JSON_ONLY] = ENCODINGS;

/** Who speaks and listens. */
export const WAYS = [
  ...ENCODINGS.map((encoding) => sdk('websocket', encoding)),
  sdk('sse', JSON_ONLY),
  ...ENCODINGS.map((encoding) => sdk('http_stream', encoding)),
];

/** Who only listens. */
export const LISTENERS = ['uni_websocket', 'uni_sse', 'uni_http_stream'].map((transport) => ({
  name: transport, transport, encoding: 'JSON', client: (url, options) => new Listener(transport, url, options),
}));
