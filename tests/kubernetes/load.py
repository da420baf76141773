"""Asks a tenant without pause, one thread with a connection for each request and one that keeps its own; counts what was answered otherwise than by 200.

    load.py URL INGEST_KEY ADMIN_KEY OUT [THREADS [PAUSE_MS]]

Nothing is sent twice. OUT always holds a line: requests, failures, events that were acknowledged. Failures are told on standard error with their time.
"""

import base64
import http.client
import itertools
import json
import os
import sys
import threading
import time
from urllib.parse import urlsplit

url, ingest_key, admin_key, out = sys.argv[1:5]
threads = int(sys.argv[5]) if len(sys.argv) > 5 else 2
pause_s = float(sys.argv[6]) / 1000 if len(sys.argv) > 6 else 0.01
host = urlsplit(url).netloc
deliver = {"Authorization": "Basic " + base64.b64encode((ingest_key + ":").encode()).decode(), "Content-Type": "application/json"}
ask = {"Authorization": "Bearer " + admin_key}
TIMEOUT_S = 20
lock = threading.Lock()
requests = failures = acknowledged = 0


def count(events, problem):
    global requests, failures, acknowledged
    with lock:
        requests += 1
        if problem is None:
            acknowledged += events
        else:
            failures += 1
            print(f"{time.time():.3f} {problem}", file=sys.stderr, flush=True)
        with open(out + ".new", "w") as file:
            file.write(f"{requests} {failures} {acknowledged}\n")
        os.replace(out + ".new", out)


def run(name, keeps):
    connection = None
    for turn in itertools.count():
        if turn % 5 == 4:
            method, path, body, head, events = "GET", "/v1/event-types", None, ask, 0
        else:
            event = {"type": "track", "event": "Visit", "userId": f"load-{name}", "messageId": f"load-{name}-{time.time_ns()}"}
            method, path, body, head, events = "POST", "/v1/batch", json.dumps({"batch": [event]}), deliver, 1
        problem = None
        try:
            connection = connection or http.client.HTTPConnection(host, timeout=TIMEOUT_S)
            connection.request(method, path, body, head if keeps else head | {"Connection": "close"})
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200:
                problem = f"{name} {method} {path}: {answer.status} {text[:200]!r}"
            ends = not keeps or answer.will_close
        except Exception as error:
            problem, ends = f"{name} {method} {path}: {error!r}", True
        if ends:
            connection.close()
            connection = None
        count(events, problem)
        time.sleep(pause_s)


for number in range(threads):
    threading.Thread(target=run, args=(str(number), number % 2 == 1), daemon=True).start()
threading.Event().wait()
