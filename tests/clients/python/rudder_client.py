"""Sends track calls with rudder-sdk-python, unmodified: it compresses by default and takes only 200 for a success.

    rudder_client.py URL WRITE_KEY PREFIX TRACKS
"""

import json
import sys

from rudderstack.analytics.client import Client

url, write_key, prefix, tracks = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
sent, errors = [], []
client = Client(
    write_key,
    host=url,
    on_error=lambda error, batch: errors.append({"error": str(error), "messages": len(batch)}),
    max_retries=5,
)
for number in range(tracks):
    message_id = f"{prefix}-track-{number}"
    client.track(f"{prefix}-user", "unit_viewed", {"dwell_s": number}, message_id=message_id)
    sent.append(message_id)
client.flush()
client.join()
print(json.dumps({"sent": sent, "errors": errors}))
