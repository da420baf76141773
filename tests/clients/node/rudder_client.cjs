// Sends track calls with @rudderstack/rudder-sdk-node, unmodified: it compresses by default and retries what is not a success.
//
//     rudder_client.cjs URL WRITE_KEY PREFIX TRACKS
const RudderAnalytics = require("@rudderstack/rudder-sdk-node");

const [url, writeKey, prefix, tracks] = process.argv.slice(2);
const [sent, errors] = [[], []];
const client = new RudderAnalytics(writeKey, {
  dataPlaneUrl: url,
  flushAt: 50,
  flushInterval: 100,
  retryCount: 5,
  errorHandler: (error) => errors.push({ error: String(error) }),
});

let asked = 0;
function send(kind, call) {
  const messageId = `${prefix}-${kind}-${asked++}`;
  return new Promise((resolve) => {
    client[kind]({ ...call, messageId }, (error) => {
      if (error) errors.push({ error: String(error) });
      else sent.push(messageId);
      resolve();
    });
  });
}

async function main() {
  const userId = `${prefix}-user`;
  const calls = [send("identify", { userId, traits: { age: 34, city: "杭州" } })];
  for (let number = 0; number < Number(tracks); number++) {
    calls.push(send("track", { userId, event: "unit_viewed", properties: { unit_type: "三居", dwell_s: number } }));
  }
  await Promise.all(calls);
  console.log(JSON.stringify({ sent: sent.sort(), errors }));
}

main();
