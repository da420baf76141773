"""What the plugin home-upgrader needs and does, seen through the API.

    tagged.py declare URL ADMIN_KEY        declare the properties and features that it reads
    tagged.py send URL ADMIN_KEY UNIT      send a customer who looks at larger homes and has the means, and wait for the tag
"""

import json
import sys
import time
import urllib.error
import urllib.request

verb, url, key = sys.argv[1:4]
LIMIT_S = 60
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def call(method, path, body=None, key=key):
    data = None if body is None else json.dumps(body).encode()
    head = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    with opener.open(urllib.request.Request(url + path, data, head, method=method), timeout=20) as answer:
        return json.load(answer)


if verb == "declare":
    for event, name, declared in [
        ("unit_viewed", "dwell_seconds", {"type": "integer", "unit": "s"}),
        ("profile", "annual_income", {"type": "integer", "unit": "yuan"}),
    ]:
        known = call("GET", f"/v1/event-types/{event}")
        call("PUT", f"/v1/event-types/{event}", {"mode": known["mode"], "properties": known["properties"] | {name: declared}})
    dwell = {f"dwell_{size}_30d": f"sum(unit_viewed.dwell_seconds where unit_type = '{size}') over 30d" for size in ("2br", "3br", "4br")}
    for name, expression in (dwell | {"household_size": "profile.household_size", "annual_income": "profile.annual_income"}).items():
        call("PUT", f"/v1/features/{name}", {"expression": expression})
    sys.exit()

unit = sys.argv[4]
app = call("POST", "/v1/keys", {"scopes": ["app"], "unit": unit})["key"]
ingest = call("POST", "/v1/keys", {"scopes": ["ingest"], "unit": unit})["key"]
mark = time.time_ns()
phone = f"199{mark % 100_000_000:08}"
viewed = {"unit_type": "4br", "dwell_seconds": 760}
call("POST", "/v1/batch", {"batch": [
    {"type": "track", "event": "Unit Viewed", "messageId": f"tagged-{mark}-1", "anonymousId": f"device-{mark}", "properties": viewed},
    {"type": "identify", "messageId": f"tagged-{mark}-2", "anonymousId": f"device-{mark}",
     "traits": {"phone": phone, "household_size": 4, "annual_income": 480000}},
]}, ingest)
began = time.time()
while time.time() - began < LIMIT_S:
    time.sleep(0.3)
    try:
        customer = call("POST", "/v1/customers:search", {"type": "phone", "value": phone}, app)["id"]
        profile = call("GET", f"/v1/customers/{customer}/profile", None, app)
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
        continue
    tags = {tag["name"]: tag for tag in profile["tags"]}
    if tags.get("home_upgrader", {}).get("value") == "hot":
        print(f"tagged {(time.time() - began) * 1000:.0f} ms after the events by {tags['home_upgrader']['version']}")
        sys.exit(0)
sys.exit(f"no tag within {LIMIT_S} s: {json.dumps(profile, ensure_ascii=False)[:2000]}")
