// The alerts of docs/metrics.md, in the hands of Prometheus' own tools: they are rules, they fire when they should, and what
// they ask for is what a server tells.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';

import { blocksOf } from './blocks.js';
import { Throng, configuration, emptyDirectory, freePort } from './throng.js';

const TEST = { timeout: 60_000 };
const inPath = (name) => (process.env.PATH ?? '').split(':').map((each) => path.join(each, name)).find(existsSync);
const [PROMTOOL, PROMETHEUS] = ['promtool', 'prometheus'].map(inPath);

/** A day without trouble: no alert may fire. */
const CALM = [
  ['up{job="throng",instance="a"}', '1x20'],
  ['throng_shard_silent_seconds{instance="a",shard="0"}', '0x20'],
  ['throng_full_in_seconds{instance="a"}', Array.from({ length: 21 }, () => 'Inf').join(' ')],
  ['throng_node_num_clients{instance="a"}', '100x20'],
  ['throng_clients_max{instance="a"}', '1000x20'],
  ['throng_refused_total{instance="a",reason="full"}', '0x20'],
  ['throng_client_num_server_disconnects{instance="a",code="3008"}', '0x20'],
  ['throng_buffer_bytes{instance="a"}', '10x20'],
  ['throng_buffer_max_bytes{instance="a"}', '1000x20'],
];

/** What each alert is for, as what becomes of one of these series. */
const TROUBLE = [
  ['ThrongIsGone', 0, '0x20'],
  ['ThrongIsGone', 1, '11x20'],
  ['ThrongIsFillingUp', 2, '900x20'],
  ['ThrongIsFillingUp', 3, '950x20'],
  ['ThrongIsFillingUp', 5, '0+5x20'],
  ['ThrongClientsDoNotKeepUp', 6, '0+120x20'],
  ['ThrongClientsDoNotKeepUp', 7, '800x20'],
];

describe('the alerts', { skip: PROMTOOL ? false : 'no promtool: scripts/need --install prometheus' }, () => {
  let directory;
  let rules;
  let scrape;

  before(async () => {
    const yaml = await blocksOf('metrics.md', 'yaml');
    directory = await emptyDirectory();
    rules = yaml.has('alert:');
    scrape = yaml.has('scrape_configs:').replace('/etc/prometheus', directory);
    await writeFile(path.join(directory, 'throng.yml'), rules);
  });
  after(() => rm(directory, { recursive: true, force: true }));

  /** What promtool says; it is 0 where it is content. */
  function promtool(...args) {
    return new Promise((resolve) => {
      execFile(PROMTOOL, args, { cwd: directory }, (error, stdout, stderr) => resolve({ code: error?.code ?? 0, said: stdout + stderr }));
    });
  }

  it('are rules that Prometheus takes, and so is the configuration around them', TEST, async () => {
    const checked = await promtool('check', 'rules', 'throng.yml');
    assert.equal(checked.code, 0, checked.said);
    assert.match(checked.said, /SUCCESS: 3 rules found/);
    await writeFile(path.join(directory, 'prometheus.yml'), scrape);
    const whole = await promtool('check', 'config', 'prometheus.yml');
    assert.equal(whole.code, 0, whole.said);
  });

  it('fire when they should, and on a calm day none does', TEST, async () => {
    const names = [...rules.matchAll(/alert: (\w+)/g)].map(([, name]) => name);
    assert.deepEqual([...new Set(TROUBLE.map(([name]) => name))], names);
    const series = (changed, values) => CALM.map(([name, calm], at) => ({ series: name, values: at === changed ? values : calm }));
    const ask = (alertname, fires) => {
      const found = rules.slice(rules.indexOf(`alert: ${alertname}`));
      const [, severity] = found.match(/severity: (\w+)/);
      const [, summary] = found.match(/summary: "(.*)"/);
      return { eval_time: '15m', alertname, exp_alerts: fires.map((labels) => ({
        exp_labels: { instance: 'a', severity, ...labels }, exp_annotations: { summary: summary.replace(/\{\{ *\$labels\.instance *\}\}/, 'a') },
      })) };
    };
    // Labels of the series that fires go with the alert.
    const labels = { 0: { job: 'throng' }, 5: { reason: 'full' }, 6: { code: '3008' } };
    const tests = [
      { interval: '1m', input_series: series(), alert_rule_test: names.map((name) => ask(name, [])) },
      ...TROUBLE.map(([name, changed, values]) => ({
        interval: '1m', input_series: series(changed, values),
        alert_rule_test: names.map((each) => ask(each, each === name ? [labels[changed] ?? {}] : [])),
      })),
    ];
    // JSON is YAML, too.
    await writeFile(path.join(directory, 'tests.yml'), JSON.stringify({ rule_files: ['throng.yml'], evaluation_interval: '1m', tests }));
    const tested = await promtool('test', 'rules', 'tests.yml');
    assert.equal(tested.code, 0, tested.said);
  });

  it('ask for what a server tells, and Prometheus collects it', { ...TEST, skip: PROMETHEUS ? false : 'no prometheus' }, async () => {
    const [port, own] = [await freePort(), await freePort()];
    const throng = await Throng.start({ port, config: { ...configuration(port), prometheus: { enabled: true } } });
    await mkdir(path.join(directory, 'data'));
    await writeFile(path.join(directory, 'prometheus.yml'), scrape.replace('localhost:8000', `127.0.0.1:${port}`).replace('scrape_interval: 15s', 'scrape_interval: 1s'));
    const prometheus = spawn(PROMETHEUS, [
      '--config.file=prometheus.yml', '--storage.tsdb.path=data', `--web.listen-address=127.0.0.1:${own}`, '--log.level=error',
    ], { cwd: directory, stdio: 'ignore' });
    const ended = once(prometheus, 'exit');
    const ask = async (where) => (await (await fetch(`http://127.0.0.1:${own}/api/v1/${where}`)).json()).data;
    const query = async (what) => (await ask(`query?query=${encodeURIComponent(what)}`)).result;
    try {
      for (let up = []; up.length === 0; await wait(100)) {
        up = await query('up{job="throng"} == 1').catch(() => []);
        assert.equal(prometheus.exitCode, null);
      }
      // Those that count something that has not happened yet have no series.
      const silent = ['throng_refused_total', 'throng_client_num_server_disconnects'];
      const page = await (await fetch(`${throng.http}/metrics`)).text();
      for (const [name] of rules.matchAll(/throng_\w+/g)) {
        assert.match(page, new RegExp(`^# TYPE ${name} `, 'm'));
        if (!silent.includes(name)) assert.equal((await query(name)).length > 0, true, name);
      }
      const { groups } = await ask('rules');
      assert.deepEqual(groups[0].rules.map(({ name, lastError = '' }) => [name, lastError]), [...rules.matchAll(/alert: (\w+)/g)].map(([, name]) => [name, '']));
    } finally {
      prometheus.kill();
      await ended;
      await throng.stop();
    }
  });
});
