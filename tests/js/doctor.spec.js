// `throng doctor` against real processes in real trouble: what it says, and that what it says helps.

import assert from 'node:assert/strict';
import { mkdir, readFile, rm, rmdir, writeFile } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import net from 'node:net';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';

import {
  Crowd, NO_TORNADO, NOT_ROOT, PATIENCE_MS, PYTHON, Target, lacks, limitOf, screen, script, told, typed, until,
} from './doctor.js';
import { Proxy } from './proxy.js';
import { BIN, Throng, configuration, emptyDirectory, freePort } from './throng.js';

const TEST = { timeout: 2 * PATIENCE_MS };

/** What a test does with a target, which ends with it whatever happens. */
async function during(target, test) {
  try {
    await test(target);
  } finally {
    await target.stop();
  }
}

/** A process that plays a part, once it is ready. */
async function plays(part, number = 0, { shell = '', ...options } = {}) {
  const target = Target.start(`${shell} exec "$1" "$2" "$3" "$4"`, { args: [PYTHON, script('plays.py'), part, number], ...options });
  return target;
}

/** Until it is full by what is meant: a rush fills its queue before its descriptors are used up. */
const full = (pid, by = 'descriptors') => until(`${pid} is full`, async () => {
  const { severity, check } = await told(pid);
  return severity === 'full' && check === by;
});

describe('the doctor and Tornado', { skip: NO_TORNADO }, () => {
  it('finds it full at 1024, says why, and lets the waiting in with nobody dropped', TEST, async () => {
    const port = await freePort();
    await during(await Target.tornado(port), async ({ pid }) => {
      const crowd = new Crowd(port, 1100);
      await full(pid);
      const said = await screen(pid);
      said.holdsTheSevenFacts();
      assert.equal(said.code, 1);
      assert.match(said.verdict, new RegExp(`^FULL python3? push.py \\(${pid}\\) cannot accept one more connection: 1024 of 1024 descriptors$`));
      assert.match(said.part('next'), /^accept queue 128; /);
      // Slots: of the 1024 some are its own.
      const report = await told(pid);
      const [slots] = report.ladder;
      assert.equal(slots.resource, 'descriptors');
      assert.ok(slots.connections > 1000 && slots.connections < 1024, JSON.stringify(slots));
      await until('it serves as many as it said', () => crowd.inside === slots.connections);

      const raised = await screen(pid, '--raise', 4096, '--yes');
      assert.equal(raised.code, 0, raised.text + raised.stderr);
      assert.match(raised.text, /raised .*: 4096 /);
      assert.equal(limitOf(pid)[0], 4096);
      await crowd.allIn();
      assert.equal(crowd.dropped, 0);
      const fine = await screen(pid);
      assert.equal(fine.code, 0);
      fine.holdsTheSevenFacts({ fixable: false });
      crowd.leave();
    });
  });
});

/** A supervisord with one program, and what it says. */
class Supervised {
  static async start({ program, minfds = '', shell = 'ulimit -Sn 1024;' }) {
    const started = new Supervised();
    started.directory = await emptyDirectory();
    started.conf = path.join(started.directory, 'supervisord.conf');
    const at = started.directory;
    await writeFile(started.conf, [
      '[unix_http_server]', `file=${at}/sock`, '[supervisord]', minfds, `logfile=${at}/log`, `pidfile=${at}/pid`,
      '[rpcinterface:supervisor]', 'supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface',
      '[supervisorctl]', `serverurl=unix://${at}/sock`,
      '[program:push]', `command=${program}`, 'startsecs=0', 'stdout_logfile=NONE', 'stderr_logfile=NONE', '',
    ].filter(Boolean).join('\n'));
    started.target = Target.start(`${shell} exec supervisord -n -c "$1"`, { args: [started.conf] });
    return started;
  }

  async supervisord() {
    return Number(await until(`supervisord runs: ${this.target.said}`, () => readFile(path.join(this.directory, 'pid'), 'utf8').catch(() => '')));
  }

  /** The pid of its program. */
  async program() {
    const above = await this.supervisord();
    return Number(await until('its program runs', () => readFile(`/proc/${above}/task/${above}/children`, 'utf8').catch(() => '')));
  }

  ctl(words) { return typed(`supervisorctl -c ${this.conf} ${words}`); }

  async stop() {
    await this.ctl('shutdown');
    const pid = Number(await readFile(path.join(this.directory, 'pid'), 'utf8').catch(() => 0));
    await until('supervisord has ended', () => !pid || !existsSync(`/proc/${pid}`));
    await this.target.stop();
    await rm(this.directory, { recursive: true, force: true });
  }
}

const NO_SUPERVISORD = NO_TORNADO || lacks('supervisord');

describe('the doctor and supervisord', { skip: NO_SUPERVISORD }, () => {
  async function tornado(options, test) {
    const port = await freePort();
    const setup = await Supervised.start({ program: `${PYTHON} ${script('push.py')} ${port}`, ...options });
    await during(setup, async () => {
      await setup.target.listens(port);
      await test(setup, port);
    });
  }

  it('names a minfds that nobody set, and what it prints outlives a restart of the program', TEST, async () => {
    await tornado({}, async (setup, port) => {
      const [pid, above] = [await setup.program(), await setup.supervisord()];
      const crowd = new Crowd(port, 1030);
      await full(pid);
      const said = await screen(pid);
      said.holdsTheSevenFacts();
      assert.match(said.part('why'), new RegExp(`^your shell's \\d+ is not this process's: supervisord \\(${above}, since .*\\) gave it 1024, minfds unset$`));
      assert.match(said.part('for good'), new RegExp(`minfds=\\d+ in \\[supervisord\\] of ${setup.conf}; counts from its next full start`));
      // As the screen says it, with its supervisor: the next start of the program has it too.
      assert.match(said.now, / --with-parent$/);
      const raised = await typed(`${said.now} --yes`);
      assert.equal(raised.code, 0, raised.stdout + raised.stderr);
      await crowd.allIn();
      assert.equal(crowd.dropped, 0);
      crowd.leave();
      const wanted = said.now.match(/--raise (\d+)/)[1];
      await setup.ctl('restart push');
      const next = await until('another program', async () => { const now = await setup.program(); return now !== pid && now; });
      assert.equal(limitOf(next)[0], Number(wanted));
    });
  });

  it('names an edit of minfds that is not applied, and that only a full start applies it', TEST, async () => {
    await tornado({}, async (setup) => {
      await wait(1100); // files and processes are dated to the second
      const text = await readFile(setup.conf, 'utf8');
      await writeFile(setup.conf, text.replace('[supervisord]\n', '[supervisord]\nminfds=8192\n'));
      await setup.ctl('reread');
      await setup.ctl('restart push');
      const said = await screen(await setup.program(), '--need', 1500);
      assert.equal(said.code, 1);
      said.holdsTheSevenFacts();
      assert.match(said.part('why'), /gave it 1024, and \S+supervisord\.conf:\d+ was written .*, after its start$/);
      assert.match(said.part('mind'), /minfds=8192 was written .* and is not applied: .* only a full stop and start of supervisord counts/);
      assert.match(said.part('for good'), /full stop and start|full start/);
    });
  });

  it('warns of a minfds with which supervisord will not start again', TEST, async () => {
    await tornado({}, async (setup) => {
      const nr_open = Number(await readFile('/proc/sys/fs/nr_open', 'utf8'));
      const text = await readFile(setup.conf, 'utf8');
      await writeFile(setup.conf, text.replace('[supervisord]\n', `[supervisord]\nminfds=${nr_open + 1}\n`));
      const said = await screen(await setup.program(), '--need', 1500);
      said.holdsTheSevenFacts();
      assert.match(said.part('mind'), /supervisord.* will not start again/);
    });
  });
});

/** A site of nginx that passes WebSockets on. */
const site = (to) => (port) => `server { listen 127.0.0.1:${port}; location / { proxy_pass http://127.0.0.1:${to};
  proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade"; } }`;

/** The workers that an nginx has now, once it has any. */
async function workersOf({ process: { pid } }) {
  const children = await until('nginx has workers', async () => (await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8')).trim());
  return children.split(' ').map(Number);
}

describe('the doctor and nginx', { skip: NO_TORNADO || lacks('nginx') }, () => {
  it('says who binds first on the way through it, at 384 users of each worker', TEST, async () => {
    const port = await freePort();
    await during(await Target.tornado(port), async (tornado) => {
      await during(await Proxy.stockNginx(site(port)), async (nginx) => {
        const workers = await workersOf(nginx);
        const said = await screen('--port', nginx.port, '--need', 1500);
        assert.equal(said.code, 1);
        const times = workers.length > 1 ? `${workers.length} x ` : '';
        const users = (384 * workers.length).toLocaleString('en-US');
        assert.match(said.part('chain'), new RegExp(`nginx: ${times}768 worker_connections = ${users} users; then push.py: 1,01\\d`));
        const binds = 384 * workers.length < 1010 ? 'nginx' : 'push.py';
        assert.match(said.part('need'), new RegExp(`1,500 connections do not fit: ${binds} binds first`));

        // Behind it, Tornado is told of it; before it, each worker has a screen of its own.
        const worker = await screen(workers[0], '--need', 1500);
        worker.holdsTheSevenFacts();
        assert.match(worker.text, /worker_connections/);
        const behind = await screen(tornado.pid, '--need', 1500);
        behind.holdsTheSevenFacts();
        assert.match(behind.part('why'), /nginx \(\d+\) lets \d+ users through: worker_connections 768 \(.*nginx\.conf:\d+\)/);
        assert.match(behind.part('for good'), /throng doctor --name nginx --need 1500/);

        // One worker takes 384, and no more.
        // In a rush it turns some away before it is full: they come a few at a time, until it is.
        const crowds = [];
        await until('a worker is full', async () => {
          if (crowds.length < 300) crowds.push(new Crowd(nginx.port, 20));
          return (await Promise.all(workers.map((pid) => told(pid)))).some(({ severity }) => severity === 'full');
        });
        const worst = await screen('--port', nginx.port);
        assert.match(worst.text.replaceAll(/\n +/g, ' '), /^FULL +nginx: worker process \(\d+\) uses 76\d of the 768 that worker_connections allows/m);
        for (const crowd of crowds) crowd.leave();
      });
    });
  });
});

describe('the doctor and HAProxy', { skip: NO_TORNADO || lacks('haproxy') || (NOT_ROOT && lacks('sudo')) }, () => {
  it('edits its maxconn as it is printed, and lets the crowd through', TEST, async () => {
    const [port, behind] = [await freePort(), await freePort()];
    const directory = await emptyDirectory();
    const file = path.join(directory, 'haproxy.cfg');
    await writeFile(file, [
      'global', '    maxconn 100', 'defaults', '    mode tcp',
      ...['connect', 'client', 'server'].map((which) => `    timeout ${which} 1h`),
      'frontend front', `    bind 127.0.0.1:${port}`, '    maxconn 50 # for now', '    default_backend push',
      'backend push', `    server one 127.0.0.1:${behind}`, '',
    ].join('\n'));
    const workers = async (pid) => (await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8')).trim().split(' ').map(Number);
    await during(await Target.tornado(behind), async () => {
      const haproxy = Target.start('ulimit -Sn 1024; PATH=$PATH:/usr/sbin; exec haproxy -W -db -f "$1"', { args: [file] });
      await during(haproxy, async () => {
        await haproxy.listens(port);
        const said = await screen('--port', port, '--need', 150);
        assert.match(said.part('chain'), /haproxy: 50 maxconn = 50 users; then push\.py/);
        assert.match(said.text, /^TIGHT +haproxy \(\d+\) does not hold 150 connections: maxconn 50 = 50 users$/m);
        const old = await workers(haproxy.pid);
        const lines = said.forGood.filter((line) => /^(sudo )?(sed|kill) /.test(line));
        assert.equal(lines.length, 3, said.text);
        for (const line of lines) {
          const done = await typed(line);
          assert.equal(done.code, 0, `${line}\n${done.stderr}`);
        }
        await until('HAProxy has another worker', async () => (await workers(haproxy.pid)).some((pid) => !old.includes(pid)));
        assert.match(await readFile(file, 'utf8'), /maxconn \d{4,}\n[^]*maxconn \d{4,} # for now/);
        await until('it fits', async () => (await told('--port', port, '--need', 150)).fits);
        const crowd = new Crowd(port, 150);
        await crowd.allIn();
        crowd.leave();
      });
    });
    await rm(directory, { recursive: true, force: true });
  });
});

describe('the doctor and Redis', { skip: lacks('redis-server', 'redis-cli') }, () => {
  it('raises its maxclients as it is printed, for now and for good', TEST, async () => {
    const port = await freePort();
    const directory = await emptyDirectory();
    const file = path.join(directory, 'redis.conf');
    await writeFile(file, `port ${port}\nbind 127.0.0.1\nmaxclients 20\nsave ""\ndir ${directory}\n`);
    const redis = async (test) => {
      await during(Target.start('ulimit -Sn 1024; exec redis-server "$1"', { args: [file] }), async (target) => {
        await target.listens(port);
        await test(target.pid);
      });
    };
    const allowed = async () => Number((await typed(`redis-cli -p ${port} config get maxclients`)).stdout.split('\n')[1]);
    await redis(async (pid) => {
      assert.equal(await allowed(), 20);
      const said = await screen(pid, '--need', 5000);
      // Which file it was started with it has hidden, so nobody says what stands there.
      assert.match(said.part('why'), /it may have been told less: redis-cli -p \d+ config get maxclients/);
      for (const line of said.forGood.filter((each) => each.startsWith('redis-cli '))) {
        const done = await typed(line);
        assert.match(done.stdout, /^OK/, `${line}\n${done.stdout}${done.stderr}`);
      }
      assert.ok(await allowed() >= 5000);
    });
    await redis(async (pid) => {
      assert.ok(await allowed() >= 5000);
      assert.ok(limitOf(pid)[0] > 5000);
    });
    await rm(directory, { recursive: true, force: true });
  });
});

describe('the doctor and Node', () => {
  it('finds one at its hard limit, which it raised itself to', TEST, async () => {
    const port = await freePort();
    const server = "require('net').createServer(() => {}).listen(Number(process.argv[1]), '127.0.0.1')";
    const target = Target.start('ulimit -n 256; exec "$1" -e "$2" "$3"', { args: [process.execPath, server, port] });
    await during(target, async () => {
      await target.listens(port);
      const crowd = new Crowd(port, 300);
      await full(target.pid);
      const said = await screen(target.pid);
      said.holdsTheSevenFacts();
      assert.match(said.verdict, /25\d of 256 descriptors/);
      assert.deepEqual((await told(target.pid)).limit, { soft: 256, hard: 256 });
      // Above a hard limit goes only who has the right to; who has not hears so.
      assert.ok(said.now?.includes('throng doctor') || /CAP_SYS_RESOURCE/.test(said.part('now')), said.text);
      crowd.leave();
    });
  });
});

describe('the doctor and throng', () => {
  it('counts the room that a throng leaves itself among the ceilings', TEST, async () => {
    const port = await freePort();
    const directory = await emptyDirectory();
    await writeFile(path.join(directory, 'throng.json'), JSON.stringify(configuration(port, { limits: { clients: 100 } })));
    const target = Target.start('ulimit -n 300; exec "$1" serve -c throng.json', { args: [BIN], cwd: directory });
    await during(target, async () => {
      await target.listens(port);
      // It says so itself, a moment after it listens.
      await until('its own ceiling is known', async () => (await told(target.pid)).ladder[0].of === 'its budget of clients');
      const said = await screen(target.pid, '--need', 1500);
      said.holdsTheSevenFacts();
      assert.equal(said.code, 1);
      assert.match(said.verdict, /^TIGHT throng \(\d+\) does not hold 1,500 connections: its budget of clients 100/);
    });
    await rm(directory, { recursive: true, force: true });
  });
});

describe('the doctor and queues', () => {
  it('finds one that overflows, and makes it longer in the running process', TEST, async () => {
    await during(await plays('never-accepts', 4), async (target) => {
      const [, port] = await target.says(/port (\d+)/);
      const crowd = new Crowd(Number(port), 12);
      await full(target.pid, 'accept_queue');
      const said = await screen(target.pid);
      said.holdsTheSevenFacts();
      assert.match(said.verdict, /turns connections away: 5 wait at 127\.0\.0\.1:\d+, and no more than 4 may/);
      assert.match(said.now, /--raise-backlog 4096$/);
      const raised = await screen(target.pid, '--raise-backlog', 64, '--yes');
      assert.equal(raised.code, 0, raised.text + raised.stderr);
      assert.match(raised.text, /64 places/);
      // Who was turned away knocks again, and finds a place.
      await until('all wait', async () => (await told(target.pid)).open.listeners[0].waiting === 12);
      assert.equal(crowd.dropped, 0);
      crowd.leave();
    });
  });

  it('counts the ports that a namespace of its own has used up', { ...TEST, skip: NOT_ROOT || lacks('ip', 'unshare') }, async () => {
    const within = 'exec unshare -n bash -c \'ip link set lo up; echo 40000 40099 > /proc/sys/net/ipv4/ip_local_port_range;\
 exec "$@"\' bash "$@"';
    const target = Target.start(within, { args: [PYTHON, script('plays.py'), 'connects'] });
    await during(target, async () => {
      await target.says(/error .*/);
      await target.says(/ready/);
      const said = await screen(target.pid);
      said.holdsTheSevenFacts();
      // Read in its network, not in ours.
      assert.match(said.verdict, /^FULL .* has 100 of 100 ports in use from 127\.0\.0\.1 to 127\.0\.0\.1:8000$/);
      assert.match(said.now, /ip_local_port_range/);
      // A command that is typed here must reach there.
      assert.match(said.now, new RegExp(`^nsenter -t ${target.pid} -n sysctl -w `));
      const lifted = await typed(said.now);
      assert.equal(lifted.code, 0, lifted.stderr);
      assert.notEqual((await screen(target.pid)).code, 1);
    });
  });
});

describe('the doctor and leaks', () => {
  it('tells connections that the other side has closed', TEST, async () => {
    await during(await plays('keeps', 60), async (target) => {
      const [, port] = await target.says(/port (\d+)/);
      const crowd = new Crowd(Number(port), 60);
      await target.says(/ready/);
      crowd.leave();
      await until('they are closed', async () => (await told(target.pid)).open.close_wait === 60);
      const said = await screen(target.pid);
      said.holdsTheSevenFacts();
      assert.match(said.verdict, /^TIGHT .* leaks connections: 60 of 6\d descriptors are CLOSE_WAIT/);
      // A cure is not what a higher limit is, and here there is no hurry either.
      assert.match(said.part('now'), /a restart frees what has leaked/);
    });
  });

  it('tells sockets that are connected to nothing', TEST, async () => {
    await during(await plays('fresh', 60), async (target) => {
      await target.says(/ready/);
      const said = await screen(target.pid);
      said.holdsTheSevenFacts();
      assert.match(said.verdict, /leaks sockets: 60 of 6\d descriptors/);
      assert.equal((await told(target.pid)).open.unhashed, 60);
    });
  });

  it('tells files that were deleted', TEST, async () => {
    await during(await plays('deleted', 10), async (target) => {
      await target.says(/ready/);
      const said = await screen(target.pid);
      assert.match(said.text, /holds 10 files that were deleted/);
      const { findings } = await told(target.pid);
      assert.match(JSON.stringify(findings), /push-\d+\.log\.\d/);
    });
  });

  it('shows the slope of what grows, and ends when it is told to', TEST, async () => {
    await during(await plays('grows', 0, { shell: 'ulimit -Sn 4000;' }), async (target) => {
      await target.says(/ready/);
      const watched = await screen(target.pid, '--watch=1', '--looks', 6);
      assert.equal(watched.lines.length, 6, watched.text);
      assert.match(watched.lines.at(-1), /leaks: .*\+\d+\/min|grows by \d+ descriptors a minute and is full in \d+/);
      // Without a bound it ends by the signal, as everything on a terminal does.
      const watching = spawn(BIN, ['doctor', String(target.pid), '--watch=1']);
      await once(watching.stdout, 'data');
      watching.kill('SIGINT');
      const [code, signal] = await once(watching, 'exit');
      assert.ok(signal === 'SIGINT' || code === 0 || code === 130, `${code} ${signal}`);
    });
  });
});

describe('the doctor and logs', { skip: NOT_ROOT || lacks('unshare') }, () => {
  it('says when a log has filled its disk, and what it prints gives the room back', TEST, async (test) => {
    const dir = await emptyDirectory();
    // A disk of 16 MiB that nobody else sees, full after some 25 seconds.
    const mount = `mount -t tmpfs -o size=16m none ${dir}`;
    const writes = `${mount} && exec 3>>${dir}/push.log && echo ready && `
      + 'while head -c 65536 /dev/zero >&3; do sleep .1; done; exec sleep 300';
    const may = await typed(`unshare --mount sh -c '${mount}'`);
    if (may.code !== 0) return test.skip(`no disk can be mounted here: ${may.stderr}`);
    await during(Target.start(`exec unshare --mount sh -c '${writes}'`), async (target) => {
      await target.says(/ready/);
      const watched = await screen(target.pid, '--watch=1', '--looks', 4);
      assert.match(watched.text, /TIGHT .* its log \/\S+\/push\.log has \d+ [KM]iB, grows by \d+ KiB a second, and \d+ [KM]iB are left: full in \d+/);
      const isFull = async () => /cannot write to \/\S+\/push\.log: its disk is full/.test((await told(target.pid)).verdict);
      await until('the disk is full', isFull);
      const said = await screen(target.pid);
      said.holdsTheSevenFacts();
      assert.equal(said.code, 1, said.text);
      const done = await typed(said.now);
      assert.equal(done.code, 0, `${said.now}: ${done.stderr}`);
      assert.equal((await screen(target.pid)).code, 0);
    });
  });
});

describe('the doctor and idle connections', () => {
  let target;
  let crowd;
  let since;

  before(async () => {
    target = await plays('keeps', 300, { shell: 'ulimit -Sn 256;' });
    const [, port] = await target.says(/port (\d+)/);
    crowd = new Crowd(Number(port), 240);
    since = Date.now();
  });
  after(async () => {
    crowd?.leave();
    await target?.stop();
  });

  it('says that what eats the room does nothing', TEST, async () => {
    await until('they are silent for a minute', () => Date.now() - since > 60_000);
    const silent = /keeps 240 of 240 connections in which nothing moved for a minute/;
    const said = await until('it is seen', async () => { const now = await screen(target.pid); return silent.test(now.text.replaceAll(/\n +/g, ' ')) && now; });
    said.holdsTheSevenFacts();
    assert.match(JSON.stringify((await told(target.pid)).findings), /idle_connection_timeout/);
  });
});

describe('the doctor and memory', () => {
  it('sees that a control group leaves none', { ...TEST, skip: NOT_ROOT }, async (test) => {
    const name = `throng-test-${process.pid}`;
    // Of the first version, or of the second.
    const [group, limit] = existsSync('/sys/fs/cgroup/memory/memory.limit_in_bytes')
      ? [`/sys/fs/cgroup/memory/${name}`, 'memory.limit_in_bytes'] : [`/sys/fs/cgroup/${name}`, 'memory.max'];
    try {
      await mkdir(group);
      await writeFile(path.join(group, limit), String(64 << 20));
    } catch (error) {
      await rmdir(group).catch(() => {});
      return test.skip(`no control group can be made here: ${error.message}`);
    }
    try {
      const target = await plays('remembers', 56, { shell: `echo $$ > ${group}/cgroup.procs;` });
      await during(target, async () => {
        await target.says(/ready/);
        const said = await screen(target.pid);
        said.holdsTheSevenFacts();
        assert.match(said.verdict, /^TIGHT .* will be killed for memory: its group uses \d+ MiB of 64 MiB$/);
        const done = await typed(said.now);
        assert.equal(done.code, 0, `${said.now}: ${done.stderr}`);
        assert.equal((await readFile(path.join(group, limit), 'utf8')).trim(), String(128 << 20));
        assert.equal((await screen(target.pid)).code, 0);
      });
    } finally {
      await until('the group is empty', () => rmdir(group).then(() => true, () => false));
    }
  });
});

describe('the doctor and select()', () => {
  async function neverAbove1024(target, name) {
    const said = await screen(target.pid, '--need', 1500);
    said.holdsTheSevenFacts();
    assert.match(said.text, /select\(\)/);
    assert.equal(said.now?.includes('--raise'), false, said.text);
    const { findings, ladder } = await told(target.pid);
    assert.ok(findings.some(({ check }) => check === 'select'));
    assert.equal(ladder.find(({ resource }) => resource === 'select').limit, 1024);
    const before_it = limitOf(target.pid);
    const refused = await screen(target.pid, '--raise', 4096, '--yes');
    assert.equal(refused.code, 2);
    assert.match(refused.stderr, new RegExp(`${name}.* waits with select\\(\\)`));
    assert.deepEqual(limitOf(target.pid), before_it);
    const raised = await screen(target.pid, '--raise', 1024, '--yes');
    assert.equal(raised.code, 0, raised.stderr);
    assert.equal(limitOf(target.pid)[0], 1024);
  }

  it('never raises a program of C above 1024', { ...TEST, skip: lacks('cc') }, async () => {
    const directory = await emptyDirectory();
    const built = await typed(`cc -O1 -o ${directory}/oldchat ${script('selects.c')}`);
    assert.equal(built.code, 0, built.stderr);
    const port = await freePort();
    const target = Target.start('ulimit -Sn 512; exec "$1" "$2"', { args: [path.join(directory, 'oldchat'), port] });
    await during(target, async () => {
      await target.listens(port);
      await neverAbove1024(target, 'oldchat');
    });
    await rm(directory, { recursive: true, force: true });
  });

  it('never raises a program of Python that is seen in it', TEST, async () => {
    await during(await plays('selects', 0, { shell: 'ulimit -Sn 512;' }), async (target) => {
      const [, port] = await target.says(/port (\d+)/);
      const crowd = new Crowd(Number(port), 20);
      await until('they are taken', async () => (await told(target.pid)).connections >= 20);
      await neverAbove1024(target, 'plays.py');
      crowd.leave();
    });
  });
});

describe('the doctor elsewhere', () => {
  it('looks into the network of the process', { ...TEST, skip: NOT_ROOT || lacks('ip', 'unshare') }, async () => {
    const within = 'exec unshare -n bash -c \'ip link set lo up; exec "$@"\' bash "$@"';
    await during(Target.start(within, { args: [PYTHON, script('plays.py'), 'never-accepts', 7] }), async (target) => {
      const [, port] = await target.says(/port (\d+)/);
      const { open } = await told(target.pid);
      assert.deepEqual(open.listeners, [{ address: `127.0.0.1:${port}`, waiting: 0, backlog: 7 }]);
      const raised = await screen(target.pid, '--raise-backlog', 70, '--yes');
      assert.equal(raised.code, 0, raised.stderr);
      assert.equal((await told(target.pid)).open.listeners[0].backlog, 70);
    });
  });

  it('tells nobody a part of it, and what root would add', { ...TEST, skip: NOT_ROOT || lacks('setpriv') }, async () => {
    await during(await plays('never-accepts', 7, { shell: 'ulimit -Sn 256;' }), async (target) => {
      await target.says(/ready/);
      const line = `setpriv --reuid 65534 --regid 65534 --clear-groups throng doctor ${target.pid}`;
      const { code, stdout, stderr } = await typed(line);
      assert.ok(code === 0 || code === 1, stderr);
      assert.match(stdout, new RegExp(`\\(${target.pid}\\)`));
      assert.match(stdout, /256/);
      assert.match(stdout, /^unseen  [^]*root sees more: sudo throng doctor/m);
      assert.ok(stdout.split('\n').length <= 24, stdout);
      const raise = await typed(`${line} --raise 512 --yes`);
      assert.equal(raise.code, 2);
      assert.match(raise.stderr, /sudo throng doctor \d+ --raise 512/);
    });
  });

  it('gives the same verdict from a copy, and names the edit between two', { ...TEST, skip: NO_TORNADO }, async () => {
    const port = await freePort();
    const directory = await emptyDirectory();
    await during(await Target.tornado(port, 'ulimit -Sn 128'), async ({ pid }) => {
      const crowd = new Crowd(port, 150);
      await full(pid);
      const live = await screen(pid, '--capture', `${directory}/before`);
      await screen(pid, '--raise', 512, '--yes');
      await crowd.allIn();
      await screen(pid, '--capture', `${directory}/after`);
      const copied = await screen(pid, '--proc', `${directory}/before/proc`, '--root', `${directory}/before/root`);
      assert.equal(copied.code, 1);
      assert.equal(copied.verdict, live.verdict);
      assert.equal(copied.part('for good'), live.part('for good'));
      const changed = await screen('--diff', `${directory}/before`, `${directory}/after`);
      assert.equal(changed.code, 0, changed.stderr);
      assert.match(changed.text, /^changed +limit on open files: 128 \(hard \w+\) -> 512 /m);
      crowd.leave();
    });
    await rm(directory, { recursive: true, force: true });
  });
});

// The week of the story: a shell that says one number, a process that has another. Nothing is typed
// but what the screen shows.
describe('the week, in minutes', { skip: NO_TORNADO }, () => {
  const CLIENTS = 1500;

  /** Fills it, does what the screen says, and sees who is in. */
  async function lifted(port, pid, why, ask = [pid]) {
    const crowd = new Crowd(port, CLIENTS);
    await full(pid);
    const said = await screen(...ask);
    said.holdsTheSevenFacts();
    assert.match(said.verdict, /^FULL python3? push\.py .* cannot accept one more connection: 1024 of 1024 descriptors$/);
    assert.match(said.part('why'), /^your shell's \d+ is not this process's: /);
    assert.match(said.part('why'), why);
    const typing = await typed(`${said.now} --yes`);
    assert.equal(typing.code, 0, `${said.now}\n${typing.stdout}${typing.stderr}`);
    await crowd.allIn();
    assert.equal(crowd.dropped, 0);
    crowd.leave();
    return said;
  }

  it('from a shell that is older than what its user has now', TEST, async () => {
    const port = await freePort();
    // It stays above its child, and has long forgotten who told it.
    const shell = Target.start('ulimit -Sn 1024; "$1" "$2" "$3" & echo child $!; wait', { args: [PYTHON, script('push.py'), port] });
    await during(shell, async () => {
      await shell.listens(port);
      const [, pid] = await shell.says(/child (\d+)/);
      const said = await lifted(port, Number(pid), new RegExp(`bash \\(${shell.pid}, since .*\\) set 1024 with ulimit`));
      // And for good, in a shell such as that one.
      process.kill(Number(pid));
      await until('it has ended', () => !existsSync(`/proc/${pid}`));
      const lines = said.forGood.filter((line) => line.startsWith('ulimit -n'));
      assert.equal(lines.length, 1, said.text);
      const wanted = Number(lines[0].match(/ulimit -n (\d+)/)[1]);
      const again = Target.start(`ulimit -Sn 1024; ${lines[0].includes('exec ') ? lines[0] : `${lines[0]}; exec "$1" "$2" "$3"`}`, { args: [PYTHON, script('push.py'), port] });
      await during(again, async () => {
        await again.listens(port);
        assert.equal(limitOf(again.pid)[0], wanted);
      });
    });
  });

  it('from supervisord, which is raised with it; and for good by a full start', { ...TEST, skip: lacks('supervisord') }, async () => {
    const port = await freePort();
    const setup = await Supervised.start({ program: `${PYTHON} ${script('push.py')} ${port}` });
    await during(setup, async () => {
      await setup.target.listens(port);
      const said = await lifted(port, await setup.program(), /supervisord \(\d+, since .*\) gave it 1024, minfds unset/);
      const wanted = Number(said.part('for good').match(/minfds=(\d+)/)[1]);
      // The last line starts another supervisord, which is ours to end: `stop()` asks it to.
      for (const line of said.forGood.filter((each) => /^(sed|supervisorctl|while|ulimit) /.test(each))) {
        const done = await typed(line);
        assert.equal(done.code, 0, `${line}\n${done.stdout}${done.stderr}`);
      }
      await setup.target.listens(port, { started: true });
      assert.equal(limitOf(await setup.program())[0], wanted);
    });
  });

  it('from a session that was opened before /etc/pam.d was edited', { ...TEST, skip: NOT_ROOT || lacks('unshare', 'su') }, async () => {
    const port = await freePort();
    const directory = await emptyDirectory();
    // Files of its own for the sessions of one mount namespace: nobody else sees them.
    const within = [
      `cp -a /etc/pam.d ${directory}/pam.d`, `mkdir ${directory}/limits.d`,
      `mount --bind ${directory}/pam.d /etc/pam.d`, `mount --bind ${directory}/limits.d /etc/security/limits.d`,
      'ulimit -Sn 1500', `exec su root -s /bin/sh -c 'echo child $$; exec ${PYTHON} ${script('push.py')} ${port}'`,
    ].join(' && ');
    await during(Target.start('exec unshare --mount sh -c "$1"', { args: [within] }), async (target) => {
      await target.listens(port);
      const [, pid] = await target.says(/child (\d+)/);
      await wait(1100); // files and processes are dated to the second
      for (const service of ['login', 'su']) {
        const file = `${directory}/pam.d/${service}`;
        const text = await readFile(file, 'utf8').catch(() => '');
        await writeFile(file, `${text}\nsession required pam_limits.so\n`);
      }
      await writeFile(`${directory}/limits.d/90-nofile.conf`, 'root - nofile 4096\n');
      await lifted(port, Number(pid), /su |pam_limits/, [pid, '--root', `/proc/${pid}/root`]);
    });
    await rm(directory, { recursive: true, force: true });
  });
});

describe('nginx in front, by what its screen shows', { skip: NO_TORNADO || NOT_ROOT || lacks('nginx') }, () => {
  it('lets 1,500 through to a Tornado that was raised', TEST, async () => {
    const port = await freePort();
    await during(await Target.tornado(port), async (tornado) => {
      await during(await Proxy.stockNginx(site(port)), async (nginx) => {
        const old = await workersOf(nginx);
        const said = await screen('--port', nginx.port, '--need', 1500);
        for (const line of said.forGood.filter((each) => /^(sudo |sed |nginx )/.test(each))) {
          const done = await typed(line);
          assert.equal(done.code, 0, `${line}\n${done.stderr}`);
        }
        await until('nginx has other workers', async () => (await workersOf(nginx)).every((pid) => !old.includes(pid)));
        // Then Tornado binds, and has a screen of its own.
        const next = await screen('--port', nginx.port, '--need', 1500);
        assert.match(next.part('need'), /push\.py binds first at 1,01\d$/);
        const raised = await typed(`${next.now} --yes`);
        assert.equal(raised.code, 0, `${next.text}${raised.stderr}`);
        assert.ok(limitOf(tornado.pid)[0] > 1500);
        assert.equal((await told('--port', nginx.port, '--need', 1500)).fits, true);
        const crowd = new Crowd(nginx.port, 1500);
        await crowd.allIn();
        assert.equal(crowd.dropped, 0);
        crowd.leave();
      });
    });
  });
});
