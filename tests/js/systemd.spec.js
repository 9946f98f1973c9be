// The real systemd, as process 1 of namespaces of its own, with the unit of deploy/: a reload is a
// restart of throng that it follows, an upgrade too, and a stop is a stop.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, readdir, rm, rmdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { it } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { promisify } from 'node:util';

import { Centrifuge } from 'centrifuge';
import WebSocket from 'ws';

import { example, isRoot } from './proxy.js';
import { configuration, emptyDirectory, freePort, nextEvent } from './throng.js';
import { install, installOther, ownVersion } from './versions.js';

const SYSTEMD = '/lib/systemd/systemd';
const CGROUPS = '/sys/fs/cgroup';
const PATIENCE_MS = 60_000;
const ran = promisify(execFile);

/** Where its groups of processes can be: all in one tree, or in a tree by its name. */
const tree = [CGROUPS, `${CGROUPS}/systemd`].find((at) => existsSync(`${at}/cgroup.procs`));
const missing = [
  [!isRoot, 'it needs root'],
  [!existsSync(SYSTEMD), 'there is no systemd'],
  [!tree, 'there is no tree of cgroups for it'],
].find(([is]) => is)?.[1];

// Nothing of this machine can be written but what is its own: all else is read-only or in memory.
const BOOT = `
set -e
mount --make-rprivate /
mkdir /dev/shm/staged.$$
cp -a "$STAGE"/. /dev/shm/staged.$$/
mount -t tmpfs none /run
mkdir -p /run/lock
mv /dev/shm/staged.$$/* /run/
rmdir /dev/shm/staged.$$
mount -t tmpfs none /tmp
mount -t tmpfs none /var
mkdir -p /var/lib /var/log /var/tmp
umount -R /sys/fs/cgroup
if [ "$TREE" = /sys/fs/cgroup ]; then
  mount -t cgroup2 none /sys/fs/cgroup
else
  mount -t tmpfs none /sys/fs/cgroup
  mkdir "$TREE"
  mount -t cgroup -o none,name=systemd none "$TREE"
fi
mount -o remount,bind,ro /
export container=test SYSTEMD_UNIT_PATH=/run/units
exec ${SYSTEMD} --system --unit=test.target --log-target=console
`;

/** A systemd that runs one service, until `stop()`. */
class Systemd {
  /** Starts it; says why not, where this machine does not let it. */
  static async boot(files) {
    const systemd = new Systemd();
    systemd.stage = await emptyDirectory();
    for (const [name, text] of Object.entries(files)) {
      await mkdir(path.dirname(path.join(systemd.stage, name)), { recursive: true });
      await writeFile(path.join(systemd.stage, name), text);
    }
    await install(path.join(systemd.stage, 'bin/throng'));
    systemd.group = await mkdtemp(path.join(tree, 'throng-test-'));
    const script = 'echo $$ >"$0/cgroup.procs"; exec unshare --pid --fork --kill-child --mount --mount-proc --cgroup --uts --ipc sh -c "$1"';
    systemd.outer = spawn('sh', ['-c', script, systemd.group, BOOT], {
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', STAGE: systemd.stage, TREE: tree },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    systemd.said = '';
    for (const stream of [systemd.outer.stdout, systemd.outer.stderr]) {
      stream.setEncoding('utf8').on('data', (more) => { systemd.said += more; });
    }
    systemd.ended = once(systemd.outer, 'exit');
    const deadline = Date.now() + PATIENCE_MS;
    while (!(await systemd.isUp())) {
      if (systemd.outer.exitCode !== null || Date.now() > deadline) return systemd;
      await wait(100);
    }
    systemd.up = true;
    return systemd;
  }

  async isUp() {
    const { pid } = this.outer;
    const children = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8').catch(() => '');
    this.first = children.trim();
    return this.first !== '' && (await this.run('systemctl', 'show', '-p', 'Version').catch(() => '')).includes('Version=');
  }

  /** What a command says that is run in there. */
  async run(...command) {
    const { stdout } = await ran('nsenter', ['-t', this.first, '--mount', '--pid', '--uts', '--ipc', '--cgroup', '--root', '--wd', ...command]);
    return stdout.trim();
  }

  async property(name) {
    return this.run('systemctl', 'show', 'throng', '-p', name, '--value');
  }

  /** The server, as it says it itself. */
  async status() {
    return JSON.parse(await this.run('/run/bin/throng', 'status', '--json'));
  }

  async stop() {
    this.outer.kill('SIGKILL');
    await this.ended;
    await rm(this.stage, { recursive: true, force: true });
    // The kernel lets go of a group when the last of its processes is gone.
    const deadline = Date.now() + PATIENCE_MS;
    while (!(await removed(this.group)) && Date.now() < deadline) await wait(50);
  }
}

/** Removes a group of processes and those within; false where one is not empty yet. */
async function removed(group) {
  const within = (await readdir(group, { withFileTypes: true })).filter((entry) => entry.isDirectory());
  for (const { name } of within) if (!(await removed(path.join(group, name)))) return false;
  return rmdir(group).then(() => true, () => false);
}

it('systemd follows ten reloads and an upgrade, and stops the last of the processes', { skip: missing, timeout: 180_000 }, async (t) => {
  const port = await freePort();
  const unit = await example('throng.service', [
    ['/usr/local/bin/throng', '/run/bin/throng'],
    ['/etc/throng/throng.toml', '/run/bin/throng.json'],
    ['User=throng\nGroup=throng\n', 'User=nobody\nGroup=nogroup\n'],
    ['LimitNOFILE=1048576', 'LimitNOFILE=4096'],
    ['After=network-online.target\nWants=network-online.target\n', ''],
  ]);
  const systemd = await Systemd.boot({
    'units/throng.service': unit,
    'units/test.target': '[Unit]\nWants=throng.service\n',
    'bin/throng.json': JSON.stringify(configuration(port)),
  });
  try {
    if (!systemd.up) return t.skip(`systemd does not run in namespaces of its own here: ${systemd.said.trim().split('\n').at(-1)}`);
    const deadline = Date.now() + PATIENCE_MS;
    while (await systemd.property('ActiveState') !== 'active') {
      assert.ok(Date.now() < deadline, await systemd.run('systemctl', 'status', 'throng').catch((error) => error.stdout));
      await wait(100);
    }
    const client = new Centrifuge(`ws://127.0.0.1:${port}/connection/websocket`, { websocket: WebSocket });
    const connected = nextEvent(client, 'connected');
    client.connect();
    await connected;
    const events = [];
    for (const name of ['connecting', 'disconnected', 'error']) client.on(name, (context) => events.push(`${name} ${context.code}`));
    const pids = new Set([(await systemd.status()).pid]);
    let version = await ownVersion();
    for (let reloads = 0; reloads < 10; reloads += 1) {
      if (reloads === 4) version = await installOther(`/proc/${systemd.first}/root/run/bin/throng`);
      await systemd.run('systemctl', 'reload', 'throng');
      const status = await systemd.status();
      assert.equal(status.version, version);
      assert.equal(status.clients.open, 1);
      pids.add(status.pid);
    }
    assert.equal(pids.size, 11);
    // It is told of each process when the one before has nothing more to do with it.
    const serving = String([...pids].at(-1));
    while (await systemd.property('MainPID') !== serving) {
      assert.ok(Date.now() < deadline, `${await systemd.property('MainPID')} is not ${serving}`);
      await wait(100);
    }
    assert.equal(await systemd.property('ActiveState'), 'active');
    assert.equal(await systemd.property('NRestarts'), '0');
    assert.deepEqual(events, []);
    const closed = nextEvent(client, 'connecting');
    await systemd.run('systemctl', 'stop', 'throng');
    assert.equal((await closed).code, 3001);
    client.disconnect();
    assert.equal(await systemd.property('ActiveState'), 'inactive');
    assert.equal(await systemd.property('Result'), 'success');
  } finally {
    await systemd.stop();
  }
});
