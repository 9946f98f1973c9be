// Debian's supervisord: the start line tells the truth about the limit, and what it advises helps.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';

import { Centrifuge } from 'centrifuge';
import WebSocket from 'ws';

import { changed, example, program } from './proxy.js';
import { install, installOther, ownVersion } from './versions.js';
import { BIN, configuration, emptyDirectory, freePort, run } from './throng.js';

const TEST = { timeout: 120_000 };
const PATIENCE_MS = 60_000;

/** A supervisord started by a shell with a limit, which runs throng; until `stop()`. */
class Supervised {
  static async start(shell, { minfds, limits, becomes = false, more = '', prepare } = {}) {
    const started = new Supervised();
    started.directory = await emptyDirectory();
    const place = (name) => path.join(started.directory, name);
    started.log = place('throng.log');
    const config = configuration(await freePort(), limits && { limits });
    started.program = prepare ? await prepare(place('throng-here')) : BIN;
    await writeFile(place('throng.json'), JSON.stringify(config));
    let text = await example('supervisord.conf', [
      ['[supervisord]\n', `[supervisord]\nlogfile = ${place('supervisord.log')}\npidfile = ${place('pid')}\nchildlogdir = ${started.directory}\n`],
      ['/usr/local/bin/throng serve -c /etc/throng/throng.toml', `${started.program} serve -c ${place('throng.json')}`],
      ['/var/log/throng.log', started.log],
    ]);
    text = changed('supervisord.conf', text, [['minfds = 65536', minfds === undefined ? '' : `minfds = ${minfds}`]]);
    await writeFile(place('supervisord.conf'), text + more.replaceAll('DIR', started.directory));
    // The shell stays above supervisord, as the script of an init system would, or becomes it.
    started.becomes = becomes;
    const command = `${program('supervisord')} -n -c ${place('supervisord.conf')}`;
    const script = becomes ? `${shell}\nexec ${command}` : `${shell}\n${command} & wait $!\nexit $?`;
    started.port = config.http_server.port;
    const env = { ...process.env, XDG_RUNTIME_DIR: started.directory };
    started.shell = spawn('bash', ['-c', script], { cwd: started.directory, env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
    started.said = '';
    for (const stream of [started.shell.stdout, started.shell.stderr]) {
      stream.setEncoding('utf8').on('data', (more) => { started.said += more; });
    }
    started.ended = once(started.shell, 'exit');
    return started;
  }

  /** The first message of throng's log with these words. */
  async line(words) {
    const deadline = Date.now() + PATIENCE_MS;
    for (;;) {
      const log = await readFile(this.log, 'utf8').catch(() => '');
      const line = log.split('\n').find((each) => each.includes(words));
      if (line !== undefined && line.endsWith('}')) return JSON.parse(line).message;
      if (line !== undefined && !line.startsWith('{')) return line;
      assert.ok(Date.now() < deadline, `no ${JSON.stringify(words)} in ${log}\n${this.said}`);
      await wait(50);
    }
  }

  /** The pids of what this shell started, and of what those did. */
  async children(pid) {
    return (await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8')).trim().split(' ').filter(Boolean);
  }

  async supervisord() { return this.becomes ? this.shell.pid : (await this.children(this.shell.pid))[0]; }

  /** The process that supervisord started and knows: the keeper. */
  async keeper() { return (await this.children(await this.supervisord()))[0]; }

  /** The process that serves, below the keeper. */
  async serving() { return (await this.children(await this.keeper())).at(-1); }

  /** The limit on open files that the kernel shows for throng: soft and hard. */
  async limit() {
    const throng = await this.serving();
    const limits = await readFile(`/proc/${throng}/limits`, 'utf8');
    return limits.match(/^Max open files +(\S+) +(\S+)/m).slice(1).map(Number);
  }

  /** What supervisorctl says. */
  async ctl(...args) {
    const child = spawn(program('supervisorctl'), ['-c', path.join(this.directory, 'supervisord.conf'), ...args]);
    let said = '';
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (more) => { said += more; });
    await once(child, 'close');
    return said.trim();
  }

  async stop() {
    // supervisord stops throng before it ends, and the shell ends after it.
    const supervisord = this.shell.exitCode === null && await this.supervisord();
    if (supervisord) process.kill(Number(supervisord), 'SIGTERM');
    await this.ended;
    await rm(this.directory, { recursive: true, force: true });
  }
}

/** What lets supervisorctl in. */
const CONTROL = `
[unix_http_server]
file = DIR/ctl.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl = unix://DIR/ctl.sock
`;

/** Runs it, and stops it whatever happens. */
async function supervised(shell, options, test) {
  const setup = await Supervised.start(shell, options);
  try {
    await test(setup);
  } finally {
    await setup.stop();
  }
}

/** The hard limit of this process, as the kernel has it. */
async function hardLimit() {
  return Number((await readFile('/proc/self/limits', 'utf8')).match(/^Max open files +\S+ +(\S+)/m)[1]);
}

const english = (number) => number.toLocaleString('en-US');

describe('under supervisord', () => {
  it('tells that minfds made the soft limit and throng raised it to the hard one', TEST, async () => {
    const hard = await hardLimit();
    await supervised('ulimit -Sn 512', {}, async (setup) => {
      const said = await setup.line('listening on');
      const story = `limit of ${english(hard)} descriptors (soft was 1,024, which supervisord's minfds had made of 512; raised to the hard limit; `;
      assert.ok(said.includes(story), said);
      assert.match(said, /, pid \d+, (had it first|gives it to all)/);
      assert.match(said, new RegExp(`supervisord, pid ${await setup.supervisord()}, passed it on and did not set it`));
      assert.doesNotMatch(said, /for more/);
      assert.deepEqual(await setup.limit(), [hard, hard]);
    });
  });

  it('names the shell whose hard limit it is, clears supervisord, and what it advises helps', TEST, async () => {
    let advised;
    await supervised('ulimit -n 1024', {}, async (setup) => {
      const said = await setup.line('listening on');
      const [shell, supervisord] = [setup.shell.pid, await setup.supervisord()];
      assert.match(said, new RegExp(
        `limit of 1,024 descriptors \\(bash, pid ${shell}, had it first; supervisord, pid ${supervisord}, passed it on and did not set it\\)`,
      ));
      // The shell can be started with more; minfds would need a right that supervisord may lack.
      const fix = said.match(new RegExp(`; for more, start bash, pid ${shell}, again with: (ulimit -n \\d+), then stop supervisord itself`))
        ?? said.match(/; for more, set (minfds=\d+) under \[supervisord\] in \S+supervisord\.conf, then restart supervisord itself/);
      assert.ok(fix, said);
      advised = fix[1];
      assert.deepEqual(await setup.limit(), [1024, 1024]);
    });
    const wanted = Number(advised.match(/\d+$/)[0]);
    const minfds = advised.startsWith('minfds') ? wanted : undefined;
    await supervised(minfds ? 'ulimit -n 1024' : advised, { minfds }, async (setup) => {
      const said = await setup.line('listening on');
      assert.ok(said.includes(`limit of ${english(wanted)} descriptors`), said);
      assert.deepEqual(await setup.limit(), [wanted, wanted]);
    });
  });

  it('does not blame a supervisord that a shell has become', TEST, async () => {
    await supervised('ulimit -n 1024', { becomes: true }, async (setup) => {
      const said = await setup.line('listening on');
      const story = `(set before supervisord, pid ${setup.shell.pid}, began, which passed it on and did not set it)`;
      assert.ok(said.includes(story), said);
      assert.match(said, /; for more, (run: ulimit -n \d+ before supervisord starts|set minfds=)/);
      assert.deepEqual(await setup.limit(), [1024, 1024]);
    });
    await supervised('ulimit -Sn 512', { becomes: true }, async (setup) => {
      const said = await setup.line('listening on');
      assert.ok(said.includes("soft was 1,024, the least that supervisord's minfds leaves; raised"), said);
    });
  });

  it('warns where limits.clients do not fit, with the fix that applies, and strict does not start', TEST, async () => {
    await supervised('ulimit -n 1024', { limits: { clients: 3000 } }, async (setup) => {
      const said = await setup.line('limits.clients = 3000 do not fit');
      assert.match(said, /the limit of 1,024 descriptors \(bash, pid \d+, had it first; supervisord, .*\) leaves room for \d+ clients; to have them, /);
      assert.match(said, /(start bash, pid \d+, again with: ulimit -n \d{4}|set minfds=\d{4}|\(as root: )/);
      await setup.line('listening on');
    });
    await supervised('ulimit -n 1024', { limits: { clients: 3000, strict: true } }, async (setup) => {
      const said = await setup.line('limits.clients = 3000 do not fit');
      assert.match(said, /to have them, .* - or unset limits\.strict to start with fewer/);
    });
  });

  it('sees one process that runs through ten restarts and an upgrade, and stops it without a SIGKILL', TEST, async () => {
    const prepare = async (file) => {
      await Promise.all([install(file), install(`${file}-kept`)]);
      return file;
    };
    await supervised('true', { more: CONTROL, prepare }, async (setup) => {
      await setup.line('listening on');
      const before = await setup.keeper();
      const events = [];
      const clients = Array.from({ length: 8 }, () => new Centrifuge(`ws://127.0.0.1:${setup.port}/connection/websocket`, { websocket: WebSocket }));
      for (const client of clients) {
        const connected = once(client, 'connected');
        client.connect();
        await connected;
        for (const name of ['connecting', 'disconnected']) client.on(name, ({ code }) => events.push(`${name} ${code}`));
      }
      const own = await ownVersion();
      let version = own;
      const deadline = Date.now() + PATIENCE_MS;
      for (;;) {
        const said = await setup.ctl('status', 'throng');
        if (said.includes('RUNNING')) break;
        assert.ok(Date.now() < deadline, said);
        await wait(100);
      }
      let serving = await setup.serving();
      for (let restarts = 0; restarts < 10; restarts += 1) {
        const args = ['restart', '--json', '--pid', serving];
        let wanted = version;
        if (restarts === 4) wanted = await installOther(setup.program);
        if (restarts === 8) {
          wanted = own;
          args.push('--binary', `${setup.program}-kept`);
        }
        const ran = await run(args, { env: { XDG_RUNTIME_DIR: setup.directory } });
        assert.equal(ran.code, 0, ran.stdout + ran.stderr);
        const { outcome } = JSON.parse(ran.stdout);
        assert.deepEqual([outcome.from.version, outcome.to.version, outcome.connections], [version, wanted, clients.length]);
        version = wanted;
        serving = String(outcome.to.pid);
        assert.equal(await setup.keeper(), before);
      }
      // The first of those processes have ended by now, and nothing of that reaches supervisord.
      const status = await setup.ctl('status', 'throng');
      assert.match(status, new RegExp(`^throng +RUNNING +pid ${before}, `), status);
      assert.deepEqual(events, []);
      // The last but one is still there, and must not come back.
      const closed = clients.map((client) => once(client, 'connecting').then(([{ code }]) => {
        client.disconnect();
        return code;
      }));
      const said = await setup.ctl('stop', 'throng');
      assert.equal(said, 'throng: stopped');
      assert.deepEqual(await Promise.all(closed), clients.map(() => 3001));
      await setup.line('stopping: 8 clients are closed with 3001 over ');
      const log = await readFile(path.join(setup.directory, 'supervisord.log'), 'utf8');
      assert.match(log, /stopped: throng \((exit status 0|terminated by SIGTERM)\)/);
      assert.doesNotMatch(log, /SIGKILL|exited: throng/);
    });
  });
});
