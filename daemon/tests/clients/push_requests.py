"""Pushes with requests. Arguments: the daemon's address, a queue. Prints the payload of each push on a line."""

import json
import sys

import requests

base, queue = sys.argv[1:3]
url = f"{base}/push/{queue}"
session = requests.Session()


def pushed(response, payload):
    assert response.status_code == 201, (response.status_code, response.text)
    assert response.json()["pushed"] is True, response.text
    print(json.dumps(payload))


assert session.get(f"{base}/health", timeout=60).json()["status"] == "healthy"
assert session.head(f"{base}/health", timeout=60).text == ""

payload = {"by": "json=", "text": "é😀\n"}
pushed(session.post(url, json=payload, timeout=60), payload)
payload = {"by": "data="}
pushed(session.post(url, data=json.dumps(payload), timeout=60), payload)
# requests sends a generator in chunks. An empty piece must not end the body.
payload = {"by": "a generator"}
text = json.dumps(payload).encode()
pushed(session.post(url, data=(text[n : n + 3] for n in range(0, len(text), 3)), timeout=60), payload)
# Without a session, requests opens a new connection.
payload = {"by": "no session"}
pushed(requests.post(url, json=payload, headers={"Connection": "close"}, timeout=60), payload)
payload = {"by": "items"}
answer = session.post(f"{base}/api/v1/push", json={"items": [{"queue": queue, "payload": payload}]}, timeout=60)
assert answer.status_code == 201 and answer.json()[0]["status"] == "queued", answer.text
print(json.dumps(payload))
lines = [{"by": "lines", "n": n} for n in range(3)]
body = "".join(json.dumps(line) + "\n" for line in lines)
answer = session.post(url, data=body, headers={"Content-Type": "application/x-ndjson"}, timeout=60)
assert answer.status_code == 201 and len(answer.json()["messages"]) == 3, answer.text
print("\n".join(json.dumps(line) for line in lines))

refused = session.post(url, data="not JSON", timeout=60)
assert refused.status_code == 400 and refused.json()["code"] == "malformed_json", refused.text
