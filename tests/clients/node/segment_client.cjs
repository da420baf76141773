// Sends one call of each kind with @segment/analytics-node, unmodified, and prints what was sent and what went wrong.
//
//     segment_client.cjs URL WRITE_KEY PREFIX TRACKS
//
// PREFIX begins every message id, so that a repeated run sends the same ids again. TRACKS is the number of track calls.
const { Analytics } = require("@segment/analytics-node");

const [url, writeKey, prefix, tracks] = process.argv.slice(2);
const analytics = new Analytics({ writeKey, host: url, maxEventsInBatch: 50, flushInterval: 100, maxRetries: 5 });
const [sent, errors] = [[], []];
analytics.on("error", (error) => errors.push({ error: String(error.reason ?? error.code ?? error) }));

let asked = 0;
function send(kind, call) {
  const messageId = `${prefix}-${kind}-${asked++}`;
  return new Promise((resolve) => {
    analytics[kind]({ ...call, messageId }, (error, context) => {
      if (error) errors.push({ error: String(error) });
      else sent.push(context.event.messageId);
      resolve();
    });
  });
}

async function main() {
  const userId = `${prefix}-user`;
  const calls = [
    send("identify", { userId, traits: { age: 34, city: "杭州" } }),
    send("page", { userId, category: "homes", name: "unit page", properties: { url: "https://homes.example/units/1" } }),
    send("screen", { userId, category: "homes", name: "unit screen", properties: { build: 7 } }),
    send("group", { userId, groupId: "family-1", traits: { members: 3 } }),
    send("alias", { userId, previousId: `${prefix}-anonymous` }),
  ];
  for (let number = 0; number < Number(tracks); number++) {
    calls.push(send("track", { userId, event: "unit_viewed", properties: { unit_type: "三居", dwell_s: number } }));
  }
  await analytics.closeAndFlush({ timeout: 60_000 });
  await Promise.all(calls);
  console.log(JSON.stringify({ sent: sent.sort(), errors }));
}

main();
