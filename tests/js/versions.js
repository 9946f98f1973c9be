// Programs of other versions: copies of the real one with another number where it has its own.

import assert from 'node:assert/strict';
import { copyFile, readFile, rename, writeFile } from 'node:fs/promises';

import { BIN, run } from './throng.js';

/** The version of the program that is tested. */
export async function ownVersion() {
  return (await run(['--version'])).stdout.trim().split(' ')[1];
}

/** Puts the program at a path, as install(1) does: a new file in the place of what is there. */
export async function install(path) {
  await copyFile(BIN, `${path}.new`);
  await rename(`${path}.new`, path);
}

/** The same, of another version, which is returned. */
export async function installOther(path) {
  const own = await ownVersion();
  const other = own.slice(0, -1) + (own.endsWith('9') ? '8' : '9');
  const marked = (version) => Buffer.from(`throng version ${version} throng`);
  const program = await readFile(BIN);
  const at = program.indexOf(marked(own));
  assert.ok(at > 0 && program.indexOf(marked(own), at + 1) < 0, 'the version is in one place');
  marked(other).copy(program, at);
  await writeFile(`${path}.new`, program, { mode: 0o755 });
  await rename(`${path}.new`, path);
  return other;
}
