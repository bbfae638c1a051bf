#!/usr/bin/env python3
"""An offline-first client of the classic device API (docs/classic.md), in plain Python.

    python3 classic_client.py http://127.0.0.1:7171 CODE

CODE is what `syncledger device create --name N --role writer --source app` prints. The program says what it does, and ends with
another code than 0 where the server does not do as is documented.
"""

import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request


class Device:
    def __init__(self, url):
        self.url = url.rstrip("/")
        self.token = None
        self.cursor = ""

    def call(self, method, path, body=None):
        request = urllib.request.Request(self.url + path, method=method)
        request.add_header("Content-Type", "application/json")
        if self.token:
            request.add_header("Authorization", "Bearer " + self.token)
        data = None if body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(request, data, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refused:
            return refused.code, json.loads(refused.read() or b"{}")

    def ok(self, method, path, body=None):
        status, answer = self.call(method, path, body)
        expect(status == 200, f"{method} {path} answered {status}: {answer}")
        return answer

    def enrol(self, code, device_id):
        answer = self.ok("POST", "/v1/devices/enrol", {"code": code, "device_id": device_id, "name": "classic client"})
        self.id, self.token = answer["device_id"], answer["access_token"]

    def initialize(self):
        body = {"device_id": self.id, "app_version": "1.0.0", "last_sync": self.cursor}
        return self.ok("POST", "/api/sync/initialize", body)

    def upload(self, *items):
        stamped = [dict({"timestamp": int(time.time() * 1000), "device_id": self.id}, **item) for item in items]
        return self.ok("POST", "/api/sync/upload", stamped), stamped

    def download(self):
        """All that changed since the cursor, page by page."""
        rows = []
        while True:
            page = self.ok("GET", "/api/sync/download?" + urllib.parse.urlencode({"since": self.cursor}))
            rows += page["rows"]
            self.cursor = page["cursor"]
            if not page["more"]:
                return rows


def expect(holds, otherwise):
    if not holds:
        sys.exit("not as documented: " + otherwise)


def update(object_id, data):
    return {"operation": "update", "model": "tasks", "object_id": object_id, "data": data}


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    device = Device(sys.argv[1])
    device.enrol(sys.argv[2], f"classic-{time.time_ns()}")
    print("enrolled as", device.id)

    begun = device.initialize()
    print("the server's time is", begun["server_time"], "and", begun["pending"], "rows wait")
    expect(set(begun) == {"server_time", "cursor", "pending", "min_app_version"}, f"initialize answered {begun}")

    # Made offline: the second task names the first by the id that it has for the time being.
    answers, sent = device.upload(
        {"operation": "create", "model": "tasks", "object_id": "tmp:1", "data": {"title": "Plan", "done": False}},
        {"operation": "create", "model": "tasks", "object_id": "tmp:2", "data": {"title": "Do", "after": "tmp:1"}},
    )
    expect([answer["status"] for answer in answers] == ["applied", "applied"], f"creates: {answers}")
    first, second = (answer["object_id"] for answer in answers)
    print("tmp:1 is", first, "and tmp:2 is", second)
    expect(answers[0]["provisional_id"] == "tmp:1", f"no provisional id: {answers}")

    # The answer got lost: the same again makes nothing new.
    again = device.ok("POST", "/api/sync/upload", sent)
    expect([answer["status"] for answer in again] == ["duplicate", "duplicate"], f"repeated: {again}")
    expect([answer["object_id"] for answer in again] == [first, second], f"other ids: {again}")

    rows = {row["object_id"]: row for row in device.download()}
    print("downloaded", len(rows), "rows")
    expect(rows[first]["data"] == {"title": "Plan", "done": False}, f"row: {rows[first]}")
    expect(rows[second]["data"]["after"] == first, f"the reference was not mapped: {rows[second]}")

    # Somebody else may have made `conflict` of the model `shared`. Its row has come, but its cursor was not presented yet.
    if "conflict" in rows:
        settle(device)
        device.download()

    # The cursor is presented, and the task is edited on what was seen.
    expect(device.initialize()["pending"] == 0, "rows wait after all were downloaded")
    [answer], _ = device.upload(update("tmp:1", {"done": True, "note": None}))
    expect(answer["status"] == "applied" and answer["object_id"] == first, f"update: {answer}")

    [bad, good], _ = device.upload(update("nothing", {"done": True}), update(first, {"title": "Plan it"}))
    expect(bad["status"] == "rejected" and bad["error"]["code"] == "not_found", f"bad item: {bad}")
    expect(good["status"] == "applied", f"the good item beside it: {good}")

    [row] = device.download()
    expect(row["data"] == {"title": "Plan it", "done": True, "note": None}, f"row: {row}")
    print("updated:", row["data"])

    status, answer = device.call("POST", "/api/sync/upload", [dict(update(first, {}), timestamp=1, device_id="another")])
    expect(status == 403, f"another device's id was answered with {status}: {answer}")
    print("all as documented")


def settle(device):
    """Makes a record that somebody else has made too, which this device has not said to have seen, and settles the conflict."""
    mine = {"operation": "create", "model": "shared", "object_id": "conflict", "data": {"title": "Mine"}}
    [answer], _ = device.upload(mine)
    expect(answer["status"] == "conflict", f"no conflict: {answer}")
    [conflict] = answer["conflict_ids"]
    body = {"conflict_id": conflict, "resolution": "merge", "resolved_data": {"title": "Ours"}}
    settled = device.ok("POST", "/api/sync/resolve-conflict", body)
    expect(settled["status"] == "resolved" and settled["data"]["title"] == "Ours", f"resolution: {settled}")
    print("settled the conflict", conflict, "as", settled["data"])


main()
