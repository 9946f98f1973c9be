// A real Chromium, headless, that goes nowhere but where the test sends it.

import { chromium } from 'playwright-core';

export function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: [
      // Chromium's sandbox refuses to run as root, which test machines do.
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });
}

/** A page, with what went wrong in it: console errors and uncaught exceptions. */
export async function openPage(browser, url) {
  const page = await browser.newPage();
  page.setDefaultTimeout(15_000);
  const complaints = [];
  page.on('console', (message) => message.type() === 'error' && complaints.push(message.text()));
  page.on('pageerror', (error) => complaints.push(String(error)));
  await page.goto(url);
  return Object.assign(page, { complaints });
}
