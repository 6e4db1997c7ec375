"""Commands of operators: keys, sessions, webhook endpoints, events, the doctor, the key ring and the audit."""

import json
import re
import signal
import sqlite3
from contextlib import closing
from dataclasses import replace

from app.console.visits import COOKIE
from tests.support.command import BOUND_SECONDS
from tests.support.doctor import DOCTOR_CHECKS
from tests.support.installation import Installation


def test_keys_are_created_listed_and_revoked(here: Installation) -> None:
    key = here.json("keys", "create", "shop", "--scope", "results:read", "--scope", "media:read")
    here.run("keys", "revoke", key["id"])
    (listed,) = json.loads(here.run("keys", "list", "--json").out)

    assert re.fullmatch(f"frk_{key['id']}_[0-9a-f]{{56}}", key.pop("key"))
    assert key == listed | {"revoked_at": None}
    assert (key["name"], key["client"], key["scopes"]) == ("shop", "default", ["media:read", "results:read"])
    assert listed["revoked_at"] is not None
    assert "revoked" in here.run("keys", "list").out


def test_sessions_are_listed_and_ended(here: Installation) -> None:
    nobody = here.run("sessions", "list")
    with here.serving("results:read") as (_, api):
        key = api.headers["Authorization"].removeprefix("Bearer ")
        signed_in = api.post("/admin/login", headers={"Sec-Fetch-Site": "same-origin"}, data={"key": key})
        cookies = {"Cookie": f"{COOKIE}={signed_in.cookies[COOKIE]}"}
        before = api.get("/admin", headers=cookies).status_code
        (listed,) = json.loads(here.run("sessions", "list", "--json").out)
        table = here.run("sessions", "list").out
        ended = here.run("sessions", "end", listed["holder"])
        after = api.get("/admin", headers=cookies).status_code
    again = here.run("sessions", "end", listed["holder"])

    assert (nobody.code, nobody.err) == (0, "faceid-results: No session is open.\n")
    assert (listed["name"], listed["client"], listed["holder"] in table) == ("shop", "default", True)
    assert (ended.code, ended.out) == (0, "1 sessions ended.\n")
    assert (before, after) == (200, 303)
    assert (again.code, again.err) == (2, "faceid-results: There are no sessions of this API key or person.\n")


def test_webhook_endpoints_are_created_tested_rotated_and_deleted(here: Installation) -> None:
    allowed = {"WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8"}
    refused = here.run("webhooks", "create", "http://127.0.0.1:1/hook")
    created = json.loads(here.run("webhooks", "create", "http://127.0.0.1:1/hook", "--json", **allowed).out)
    listed = json.loads(here.run("webhooks", "list", "--json").out)
    tested = here.run("webhooks", "test", created["id"], "--json", **allowed)
    rotated = here.run("webhooks", "rotate", created["id"], "--keep-for", "8d")
    shown = here.run("webhooks", "show", created["id"])
    replayed = here.run("webhooks", "replay", created["id"], "--which", "all", "--from", "2026-01-01", "--json")
    deleted = here.run("webhooks", "delete", created["id"])

    assert (refused.code, refused.err.count("WEBHOOK_ALLOWED_NETWORKS")) == (2, 1)
    assert listed == [{name: value for name, value in created.items() if name != "secret"} | {"url": None}]
    assert (tested.code, json.loads(tested.out)["error"]) == (1, "connect")
    assert (rotated.code, rotated.err) == (2, "faceid-results: --keep-for must be a span like 24h, at most 7d.\n")
    assert "http://127.0.0.1:1/hook" in shown.out
    assert (replayed.code, json.loads(replayed.out)["count"]) == (0, 0)
    assert (deleted.code, here.run("webhooks", "show", created["id"]).code) == (0, 2)


def test_key_with_networks_is_valid_there_and_only_proxies_are_trusted(here: Installation) -> None:
    networks = ["203.0.113.0/24", "2001:db8::/32"]
    key = here.json(
        "keys", "create", "far", "--scope", "results:read", *(part for each in networks for part in ("--network", each))
    )
    proxied = {"X-Forwarded-For": "203.0.113.7", "Authorization": f"Bearer {key['key']}"}
    statuses = {}
    for trusted in ("127.0.0.1", "192.0.2.1"):
        with replace(here, settings={**here.settings, "FORWARDED_ALLOW_IPS": trusted}).serving("admin") as (_, api):
            statuses[trusted] = [
                api.get("/v1/verifications", headers=headers).status_code
                for headers in (
                    proxied,
                    proxied | {"X-Forwarded-For": "198.51.100.7"},
                    proxied | {"X-Forwarded-For": ""},
                )
            ]

    assert statuses == {"127.0.0.1": [200, 401, 401], "192.0.2.1": [401, 401, 401]}
    assert key["networks"] == networks
    listing = here.run("keys", "list").out
    assert all(f"from {network}" in listing for network in networks)


def test_events_are_printed_once_and_followed(here: Installation) -> None:
    with here.serving("callbacks:write", "results:read", "results:erase") as (_, api):
        api.put("/v1/verifications/followed", json={"subject_ref": "loan-4711"})
        api.delete("/v1/verifications/followed")
        (event,) = api.get("/v1/events", params={"wait": BOUND_SECONDS}).json()["items"]
        printed, typed, behind = (
            here.run("events", *options).out
            for options in (["--json"], ["--types", "verification.failed, test"], ["--after", "1"])
        )
        with here.started("events", "--follow") as following:
            following.until("verification.erased")
            api.put("/v1/verifications/next")
            api.delete("/v1/verifications/next")
            lines = following.until(" next ").splitlines()
            ended = following.end(signal.SIGINT)
    unknown = here.run("events", "--types", "nonsense")

    assert [json.loads(line) for line in printed.splitlines()] == [{"position": 1} | event]
    assert (typed, behind) == ("", "")
    assert lines[0].split() == [
        *("1", event["timestamp"], "verification.erased", "default", "followed", "erased"),
    ]
    assert (len(lines), ended.code, ended.err) == (2, 130, "")
    assert (unknown.code, unknown.err.partition(",")[0]) == (
        2,
        "faceid-results: --types must be among verification.retrieved",
    )


def test_doctor_passes_a_working_installation(here: Installation) -> None:
    done = here.run("doctor", "--json")
    report = json.loads(done.out)

    assert (done.code, done.err, report["ok"]) == (0, "", True)
    checks = {check["check"]: check["status"] for check in report["checks"]}
    assert list(checks) == DOCTOR_CHECKS
    assert {checks[name] for name in list(checks)[:-1]} == {"ok"}


def test_doctor_names_the_failure_and_what_to_do(here: Installation) -> None:
    done = here.run("doctor", TENCENTCLOUD_SECRET_KEY="s3cret", COLUMNS="200")

    assert (done.code, done.err) == (1, "")
    assert "Check TENCENTCLOUD_SECRET_KEY: it does not belong to TENCENTCLOUD_SECRET_ID." in done.out
    assert "s3cret" not in done.out


def test_doctor_fails_with_exit_code_2_on_invalid_settings(here: Installation) -> None:
    (here.folder / "faceid-results.toml").write_text("junk = [")
    done = here.run("doctor")

    assert (done.code, done.out) == (2, "")
    assert done.err.count("\n") == 1


def test_key_ring_is_created_once_and_readable_by_its_owner_only(here: Installation) -> None:
    path = here.folder / "ring.json"

    created = here.run("keyring", "new", KEYRING_FILE=str(path))
    again = here.run("keyring", "new", KEYRING_FILE=str(path))

    assert (created.code, path.stat().st_mode & 0o777) == (0, 0o600)
    assert str(path) in created.out
    assert (again.code, again.err) == (
        2,
        "faceid-results: KEYRING_FILE exists already and was not changed.\n",
    )


def test_rotated_ring_keeps_its_older_version_for_five_minutes(here: Installation) -> None:
    here.json("keys", "create", "shop", "--scope", "admin")

    before = json.loads(here.run("keyring", "status", "--json").out)
    rotated = here.run("keyring", "rotate", "identity")
    too_early = here.run("keyring", "rotate", "identity", "--destroy")
    nothing = here.run("keyring", "rotate", "index", "--destroy")
    after = json.loads(here.run("keyring", "status", "--json").out)

    assert [(row["ring"], row["version"], row["in_use"]) for row in before] == [
        ("identity", 1, 1),
        ("biometric", 1, 0),
        ("index", 1, 0),
        ("audit", 1, 0),
    ]
    assert (rotated.code, rotated.out.splitlines()) == (
        0,
        [
            "identity: version 2, 1 values encrypted again.",
            f"Copy {here.folder}/data/keyring.json again: earlier copies cannot decrypt new data.",
            "Keep each earlier copy as long as a backup of its time exists.",
        ],
    )
    assert (too_early.code, "within the last five minutes" in too_early.err) == (2, True)
    assert (nothing.code, nothing.out) == (0, "index: nothing to destroy.\n")
    assert [(row["ring"], row["version"], row["in_use"]) for row in after] == [
        ("identity", 1, 0),
        ("identity", 2, 1),
        ("biometric", 1, 0),
        ("index", 1, 0),
        ("audit", 1, 0),
    ]
    assert here.run("keyring", "status").out.count("identity") == 2


def test_audit_verify_exits_with_0_if_intact_and_1_if_changed(here: Installation) -> None:
    for name in ("one", "two"):
        here.json("keys", "create", name, "--scope", "admin")
    log = here.folder / "service.log"
    with here.started("serve", "--port", "0") as serving:
        log.write_text("not a seal\n" + serving.until("audit_sealed", "err"))

    intact = here.run("audit", "verify", "--seals", str(log))
    with closing(sqlite3.connect(here.folder / "data/faceid-results.db")) as database, database:
        database.execute("UPDATE audit SET who = 'somebody else' WHERE id = 1")
    changed = here.run("audit", "verify", "--json")

    assert (intact.code, intact.err) == (0, "")
    assert "2 rows are unchanged up to seal " in intact.out
    assert "0 rows are not sealed yet; 1 logged seals were compared." in intact.out
    finding = json.loads(changed.out)
    assert (changed.code, finding["ok"], finding["links"]) == (1, False, 0)
    assert finding["trouble"].startswith("Row 1, at position 1, was changed")
