"""Sends one call of each kind with segment-analytics-python, unmodified, and prints what was sent and what went wrong.

    segment_client.py URL WRITE_KEY PREFIX TRACKS [gzip]

PREFIX begins every message id, so that a repeated run sends the same ids again. TRACKS is the number of track calls.
"""

import json
import sys

from segment.analytics.client import Client

url, write_key, prefix, tracks = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
sent, errors = [], []


def on_error(error, batch):
    errors.append({"error": str(error), "messages": len(batch)})


client = Client(
    write_key,
    host=url,
    on_error=on_error,
    gzip="gzip" in sys.argv[5:],
    max_queue_size=100_000,
    upload_size=100,
    max_retries=5,
)


def send(kind, *arguments, **fields):
    message_id = f"{prefix}-{kind}-{len(sent)}"
    accepted, _ = getattr(client, kind)(*arguments, message_id=message_id, **fields)
    if accepted:
        sent.append(message_id)
    else:
        errors.append({"error": "the SDK's queue is full", "messages": 1})


user = f"{prefix}-user"
send("identify", user, traits={"age": 34, "city": "杭州"})
send("page", user, "homes", "unit page", {"url": "https://homes.example/units/1"})
send("screen", user, "homes", "unit screen", {"build": 7})
send("group", user, "family-1", {"members": 3})
send("alias", f"{prefix}-anonymous", user)
for number in range(tracks):
    send("track", user, "unit_viewed", {"unit_type": "三居", "dwell_s": number})
client.flush()
client.join()
print(json.dumps({"sent": sent, "errors": errors}))
