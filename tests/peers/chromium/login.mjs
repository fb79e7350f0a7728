// A user with Debian's Chromium: opens a page, logs in at Keycloak, reads the page, logs out and opens it again.
//
//   node login.mjs PAGE LOGOUT ISSUER USER PASSWORD
//
// Prints the observations as JSON:
//
//   sentTo   URL of the login form that the page redirects to
//   read     status and text of the page after the login
//   script   status of a POST that a script of the page's origin sends
//   foreign  type of the answer to a POST that a script of the issuer's origin sends to the page
//   cookies  the gateway's cookies after the login, with their attributes
//   left     number of its session cookies after the logout
//   after    URL of the login form that the page redirects to after the logout
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const [page, logout, issuer, user, password] = process.argv.slice(2);
const profile = await mkdtemp(join(tmpdir(), "metrifold-chromium-"));
const context = await chromium.launchPersistentContext(profile, {
  executablePath: "/usr/bin/chromium",
  headless: true,
  // The gateway's certificate is signed by the test's own authority.
  ignoreHTTPSErrors: true,
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
try {
  const tab = await context.newPage();
  tab.setDefaultTimeout(120_000);
  await tab.goto(page);
  const sentTo = tab.url();
  await tab.fill("#username", user);
  await tab.fill("#password", password);
  const [answer] = await Promise.all([
    tab.waitForResponse((it) => it.url() === page && it.status() !== 303),
    tab.click("#kc-login"),
  ]);
  const read = { status: answer.status(), text: await answer.text() };
  await tab.waitForURL(page);
  const script = await tab.evaluate(() => fetch(location.href, { method: "POST" }).then((it) => it.status));
  const other = await context.newPage();
  await other.goto(issuer);
  const foreign = await other.evaluate(
    (page) => fetch(page, { method: "POST", mode: "no-cors", credentials: "include" }).then((it) => it.type),
    page,
  );
  const cookies = (await context.cookies(page))
    .filter((it) => it.name.startsWith("__Host-metrifold"))
    .map(({ name, secure, httpOnly, sameSite }) => ({ name, secure, httpOnly, sameSite }));
  // The gateway names the session, so that Keycloak ends it without a question.
  await tab.goto(logout);
  await tab.waitForLoadState();
  await tab.goto(page);
  const after = tab.url();
  const sessions = (await context.cookies(page)).filter((it) => it.name.includes("metrifold-session"));
  const seen = { sentTo, read, script, foreign, cookies, left: sessions.length, after };
  console.log(JSON.stringify(seen));
} finally {
  await context.close();
  await rm(profile, { recursive: true, force: true });
}
