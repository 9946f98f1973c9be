// The blocks of a guide, for tests that run them as a reader would.

import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

/** All of them, as [language, text]. */
export async function blocks(name) {
  const text = await readFile(fileURLToPath(new URL(`../../docs/${name}`, import.meta.url)), 'utf8');
  return [...text.matchAll(/^```(\w+)\n([\s\S]*?)^```$/gm)].map(([, language, block]) => [language, block]);
}

/** Those of one language; `has` chooses the one with that text. */
export async function blocksOf(name, language) {
  const all = (await blocks(name)).filter(([each]) => each === language).map(([, block]) => block);
  const has = (text) => {
    const found = all.filter((block) => block.includes(text));
    if (found.length !== 1) throw new Error(`${name} has ${found.length} blocks of ${language} with ${text}`);
    return found[0];
  };
  return Object.assign(all, { has });
}

/** The commands of a block of sh, without what is remarked behind them. */
export function commands(block) {
  return block.trim().split('\n').map((line) => line.replace(/\s+#.*$/, '')).filter((line) => line !== '');
}
