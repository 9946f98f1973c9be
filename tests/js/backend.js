// An application that throng asks who a client is; it lets everybody in and keeps what it was told.

import { once } from 'node:events';
import http from 'node:http';

export class Backend {
  asked = []; // What it was asked: the headers, and the body.

  static async start() {
    const backend = new Backend();
    backend.server = http.createServer((request, response) => backend.#answer(request, response)).listen(0, '127.0.0.1');
    await once(backend.server, 'listening');
    return backend;
  }

  async #answer(request, response) {
    let body = '';
    for await (const more of request.setEncoding('utf8')) body += more;
    this.asked.push({ headers: request.headers, body: JSON.parse(body) });
    response.setHeader('Content-Type', 'application/json');
    response.end(JSON.stringify({ result: { user: String(this.asked.length) } }));
  }

  /** The configuration with which throng asks it. */
  get options() {
    return { connect: { enabled: true, endpoint: `http://127.0.0.1:${this.server.address().port}/connect`, timeout: '20s' } };
  }

  /** Where the clients were that it was asked about, by both headers, which must agree. */
  addresses() {
    return this.asked.map(({ headers }) => {
      const [real, forwarded] = [headers['x-real-ip'], headers['x-forwarded-for']];
      return real === forwarded ? real : `X-Real-IP ${real}, X-Forwarded-For ${forwarded}`;
    });
  }

  async stop() {
    this.server.closeAllConnections();
    this.server.close();
    await once(this.server, 'close');
  }
}
