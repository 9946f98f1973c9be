// `throng probe` through a real nginx that ends TLS: a good certificate, and each fault of one.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import net from 'node:net';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { promisify } from 'node:util';

import { Throng, configuration, emptyDirectory, freePort, run } from './throng.js';

const TEST = { timeout: 60_000 };
const START_MS_MAX = 20_000;
const command = promisify(execFile);

/** `openssl ca` makes certificates of any age; `openssl req` only of the future. */
const AUTHORITY = `
[ca]
default_ca = own
[own]
database = index.txt
rand_serial = yes
new_certs_dir = .
default_md = sha256
policy = any
copy_extensions = copy
unique_subject = no
[any]
commonName = supplied
`;

/** A certificate that signs itself, for these names and this time. */
async function certificate(directory, name, names, [from, until]) {
  const openssl = (...args) => command('openssl', args, { cwd: directory });
  await openssl('req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes',
    '-subj', `/CN=throng-test-${name}`, '-keyout', `${name}.key`, '-out', `${name}.csr`,
    '-addext', `subjectAltName=${names}`, '-addext', 'basicConstraints=critical,CA:FALSE');
  await openssl('ca', '-batch', '-notext', '-selfsign', '-config', 'authority.cnf', '-keyfile', `${name}.key`,
    '-in', `${name}.csr`, '-out', `${name}.pem`, '-startdate', from, '-enddate', until);
}

/** An nginx with a port for each certificate, and one without. */
class Nginx {
  static async start(throngPort) {
    const nginx = new Nginx();
    nginx.directory = await emptyDirectory();
    const place = (name) => path.join(nginx.directory, name);
    await writeFile(place('authority.cnf'), AUTHORITY);
    await writeFile(place('index.txt'), '');
    const now = ['20200101000000Z', '20450101000000Z'];
    await certificate(nginx.directory, 'good', 'DNS:localhost,IP:127.0.0.1', now);
    await certificate(nginx.directory, 'expired', 'DNS:localhost', ['20200101000000Z', '20200201000000Z']);
    await certificate(nginx.directory, 'elsewhere', 'DNS:www.example.com', now);
    nginx.ports = {};
    let servers = '';
    for (const name of ['good', 'expired', 'elsewhere', 'plain']) {
      nginx.ports[name] = await freePort();
      const tls = name === 'plain' ? '' : `ssl_certificate ${name}.pem; ssl_certificate_key ${name}.key;`;
      servers += `
        server {
          listen 127.0.0.1:${nginx.ports[name]}${tls && ' ssl'};
          ${tls}
          location / {
            proxy_pass http://127.0.0.1:${throngPort};
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
          }
        }`;
    }
    const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
      .map((kind) => `${kind}_temp_path ${place(kind)};`).join('\n');
    await writeFile(place('nginx.conf'), `
      ${process.getuid() === 0 ? 'user nobody nogroup;' : ''}
      worker_processes 1;
      pid ${place('nginx.pid')};
      error_log stderr warn;
      events { worker_connections 100; }
      http { access_log off; ${temporary} ${servers} }`);
    const program = (process.env.PATH ?? '').split(':').concat('/usr/sbin', '/usr/local/sbin')
      .map((directory) => path.join(directory, 'nginx')).find(existsSync);
    assert.ok(program, 'there is no nginx: sudo apt-get install nginx');
    nginx.process = spawn(program, ['-e', 'stderr', '-p', nginx.directory, '-c', place('nginx.conf'), '-g', 'daemon off;'],
      { stdio: ['ignore', 'ignore', 'pipe'] });
    nginx.said = '';
    nginx.process.stderr.setEncoding('utf8').on('data', (more) => { nginx.said += more; });
    nginx.exited = once(nginx.process, 'exit');
    await nginx.#listens(nginx.ports.plain);
    return nginx;
  }

  async #listens(port) {
    const deadline = Date.now() + START_MS_MAX;
    for (;;) {
      const socket = net.connect(port, '127.0.0.1');
      const listens = await new Promise((resolve) => {
        socket.on('connect', () => resolve(true)).on('error', () => resolve(false));
      });
      socket.destroy();
      if (listens) return;
      assert.equal(this.process.exitCode, null, `nginx ended at once: ${this.said}`);
      assert.ok(Date.now() < deadline, `nginx does not listen: ${this.said}`);
      await wait(20);
    }
  }

  pem(name) { return path.join(this.directory, `${name}.pem`); }

  async stop() {
    if (this.process.exitCode === null) this.process.kill('SIGTERM');
    await this.exited;
    await rm(this.directory, { recursive: true, force: true });
  }
}

describe('throng probe, through an nginx with TLS', TEST, () => {
  let throng;
  let nginx;

  before(async () => {
    const port = await freePort();
    throng = await Throng.start({ port, config: configuration(port) });
    nginx = await Nginx.start(port);
  });
  after(async () => {
    await nginx?.stop();
    await throng?.stop();
  });

  // What else this machine trusts is not the test's business.
  const probe = (url, ...args) => run(['probe', url, ...args], { env: { SSL_CERT_FILE: nginx.pem('elsewhere') } });
  const words = (printed) => printed.stdout.replace(/\s+/g, ' ');

  it('goes through with a certificate of an authority that is named', async () => {
    const { code, stdout, stderr } = await probe(`https://localhost:${nginx.ports.good}`, '--ca', nginx.pem('good'), '--hold', '1');
    assert.deepEqual([code, stderr], [0, ''], stdout);
    assert.match(stdout, /✓ tls .* TLS 1\.[23], the certificate is good\n/);
    assert.match(stdout, /✓ connect .* accepted as client /);
    assert.match(stdout, /A client can connect, and stays connected\.\n$/);
    // The proxy is not declared: throng takes it for the client, and does not tell its address.
    assert.match(stdout, /✓ address .* your proxy's: .*trusted_proxies/);
  });

  it('names an unknown authority', async () => {
    const printed = await probe(`wss://localhost:${nginx.ports.good}`);
    assert.equal(printed.code, 1);
    assert.match(words(printed), /✗ tls the certificate's authority is unknown .*fullchain\.pem.*--ca FILE/);
  });

  it('names a certificate that has expired', async () => {
    const printed = await probe(`https://localhost:${nginx.ports.expired}`, '--ca', nginx.pem('expired'));
    assert.equal(printed.code, 1);
    assert.match(words(printed), /✗ tls the certificate has expired, [\d,]+ days ago .*certbot renew/);
  });

  it('names a certificate for another name', async () => {
    const printed = await probe(`https://localhost:${nginx.ports.elsewhere}`, '--ca', nginx.pem('elsewhere'), '--json');
    assert.equal(printed.code, 1);
    const { failure } = JSON.parse(printed.stdout);
    assert.equal(failure.step, 'tls');
    assert.equal(failure.said, 'the certificate is for www.example.com, not for localhost');
  });

  it('names plain HTTP where TLS is wanted, and TLS where it is not', async () => {
    const plain = await probe(`https://localhost:${nginx.ports.plain}`);
    assert.equal(plain.code, 1);
    assert.match(words(plain), /✗ tls what came back is not TLS .*throng probe http:\/\/localhost:\d+/);
    const secured = await probe(`http://localhost:${nginx.ports.good}`);
    assert.equal(secured.code, 1);
    assert.match(words(secured), /✗ upgrade .*This port speaks TLS.*throng probe https:\/\/localhost:\d+/);
  });
});
