"""The registry beyond the specification: hostile requests, slow clients, passwords, sweeps, links to the local store."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lading.base import errors
from lading.http.connection import Patience
from lading.linux import crypt
from lading.registry.server import exchange, sweep
from lading.registry.server.htpasswd import Htpasswd, parse
from lading.registry.server.uploads import Uploads
from lading.store.blobs import Blobs, BlobWriter
from registry_served import OCI_MANIFEST, Served, image, served, sha

HEX = "a" * 64


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path / "registry") as made:
        yield made


def raw(one: Served, data: bytes, *, end: bool = True) -> bytes:
    """Bytes to the server as they are, and everything it answers."""
    with socket.create_connection(one.peer.address, timeout=10) as sock:
        sock.sendall(data)
        if end:
            sock.shutdown(socket.SHUT_WR)
        out = b""
        while piece := sock.recv(65536):
            out += piece
        return out


# --- hostile names ---

HOSTILE = [
    "/v2/../../etc/passwd/blobs/sha256:" + HEX,
    "/v2/a/../b/manifests/latest",
    "/v2/..%2f..%2fetc/manifests/latest",
    "/v2/%2e%2e/manifests/latest",
    "/v2/a%00b/manifests/latest",
    "/v2/A/manifests/latest",
    "/v2/a//b/manifests/latest",
    "/v2//manifests/latest",
    "/v2/-a/manifests/latest",
    "/v2/a_.b/manifests/latest",
    "/v2/" + "a" * 256 + "/manifests/latest",
    "/v2/" + "a/" * 20000 + "a/manifests/latest",
    "/v2/" + "a-" * 15000 + "/manifests/latest",
    "/v2/%ff%fe/manifests/latest",
    "/v2/é/manifests/latest",
    "/v2/a/manifests/..",
    "/v2/a/manifests/%2e%2e%2f%2e%2e",
    "/v2/a/manifests/" + "t" * 129,
    "/v2/a/manifests/-t",
    "/v2/a/manifests/la%0atest",
    "/v2/a/manifests/sha256:" + "A" * 64,
    "/v2/a/blobs/sha256:" + HEX + "0",
    "/v2/a/blobs/sha256:" + HEX[:-1],
    "/v2/a/blobs/sha256:../../../../../../../../../../../../../../../etc/passwd",
    "/v2/a/blobs/sha256:%2e%2e%2f" + HEX[:61],
    "/v2/a/blobs/md5:" + "a" * 32,
    "/v2/a/blobs/sha512:" + "a" * 128,
    "/v2/a/blobs/sha256",
    "/v2/a/blobs/",
    "/v2/a/blobs/uploads/../../x",
    "/v2/a/blobs/uploads/..%2f..%2fregistry.db",
    "/v2/a/blobs/uploads/" + "g" * 32,
    "/v2/a/blobs/uploads/" + "a" * 33,
    "/v2/a/referrers/latest",
    "/v2/a/tags",
    "/v2/a/tags/list/more",
    "/v2",
    "/v3/",
    "/",
    "//",
    "/metrics/",
    "*",
]


@pytest.mark.parametrize("path", HOSTILE, ids=lambda path: path[:40])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "POST"])
def test_a_hostile_path_is_refused_in_the_specifications_words(one: Served, method: str, path: str) -> None:
    # The control characters and bytes of the list are sent as they stand: no client library in between.
    head = f"{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    answer = raw(one, head.encode("utf-8"))
    status = int(answer.split(b" ", 2)[1])
    allowed = {200} if (method, path) == ("GET", "/v2") else {400, 404, 405}
    assert status in allowed, answer[:300]
    if status != 200:
        body = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert body["errors"][0]["code"].isupper()
    assert one.files() == []


@pytest.mark.parametrize(
    "data",
    [
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nX: " + b"x" * (128 << 10) + b"\r\n\r\n",
        b"GET /v2/" + b"a" * (128 << 10) + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /v2/ HTTP/1.1\r\n\r\n",
        b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET /v2/ HTTP/9.9\r\nHost: a\r\n\r\n",
    ],
    ids=["headers", "target", "tls", "no host", "negative", "two lengths", "version"],
)
def test_what_is_no_http_is_refused(one: Served, data: bytes) -> None:
    assert int(raw(one, data).split(b" ", 2)[1]) in (400, 414, 431, 505)


def test_the_query_is_bounded(one: Served) -> None:
    assert one.peer("GET", "/v2/_catalog?" + "&".join(f"a{n}=1" for n in range(65))).status == 400
    assert one.peer("GET", "/v2/_catalog?last=%ff").status == 400
    assert one.peer("GET", "/v2/_catalog?last=" + "%00%27%3b--").status == 200
    assert one.peer("GET", "/v2/_catalog?n=" + "9" * 4000).status == 200


def test_scripts_of_web_pages_are_refused(one: Served) -> None:
    assert one.peer("GET", "/v2/_catalog", Sec_Fetch_Mode="cors").status == 403
    assert one.peer("POST", "/v2/a/blobs/uploads/", b"", Origin="http://evil.example").code == "DENIED"
    assert one.peer("GET", "/v2/_catalog", Sec_Fetch_Mode="navigate").status == 200


# --- hostile manifests ---

GOOD = image(sha(b"{}"), 2)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", OCI_MANIFEST),
        (b"[]", OCI_MANIFEST),
        (b"\xff", OCI_MANIFEST),
        (b"[" * 100_000, OCI_MANIFEST),
        (json.dumps(GOOD).encode(), "text/html"),
        (json.dumps(GOOD).encode(), "application/vnd.oci.image.index.v1+json"),
        (json.dumps(GOOD).encode(), "application/vnd.docker.distribution.manifest.v2+json"),
        (json.dumps({**GOOD, "manifests": []}).encode(), OCI_MANIFEST),
        (json.dumps({**GOOD, "schemaVersion": 1}).encode(), OCI_MANIFEST),
        (json.dumps({**GOOD, "layers": None, "config": None}).encode(), OCI_MANIFEST),
        (json.dumps({**GOOD, "subject": "x"}).encode(), OCI_MANIFEST),
        (json.dumps({**GOOD, "subject": {"digest": "sha256:../x"}}).encode(), OCI_MANIFEST),
        (json.dumps({**GOOD, "artifactType": 7}).encode(), OCI_MANIFEST),
        (json.dumps({**GOOD, "annotations": {"a": 1}}).encode(), OCI_MANIFEST),
        (json.dumps(image("sha256:../../x", 2)).encode(), OCI_MANIFEST),
        (json.dumps(image("sha1:" + "a" * 40, 2)).encode(), OCI_MANIFEST),
    ],
)
def test_a_hostile_manifest_is_invalid(one: Served, data: bytes, kind: str) -> None:
    one.peer.blob("a", b"{}")
    answer = one.peer("PUT", "/v2/a/manifests/v1", data, Content_Type=kind)
    assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")
    assert one.peer("GET", "/v2/a/manifests/v1").status == 404


def test_a_manifest_needs_a_blob_of_sha256(one: Served) -> None:
    """sha512 is a digest, but not one that names content here."""
    answer = one.peer.manifest("a", "v1", image("sha512:" + "a" * 128, 2))
    assert 400 <= answer.status < 500


# --- slow clients, bounds ---

SHORT = Patience(idle=0.4, head=0.4, stall=0.4)


def gone_after(sock: socket.socket, limit: float) -> float:
    started = time.monotonic()
    sock.settimeout(limit)
    while sock.recv(65536):
        pass
    return time.monotonic() - started


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET /v2/",
        b"POST /v2/a/blobs/uploads/?digest=sha256:"
        + HEX.encode()
        + b" HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc",
    ],
    ids=["idle", "head", "body"],
)
def test_a_stalled_client_is_dropped_and_stalls_nobody(tmp_path: Path, data: bytes) -> None:
    with served(tmp_path, patience=SHORT) as one:
        with socket.create_connection(one.peer.address) as sock:
            sock.sendall(data)
            assert one.peer("GET", "/v2/").status == 200
            assert gone_after(sock, 5) < 4
        assert one.files() == []


def test_a_head_that_drips_is_cut_off(tmp_path: Path) -> None:
    """Each byte comes well within any timeout; the head as a whole has a deadline."""
    patience = Patience(idle=5, head=0.5, stall=5)
    with served(tmp_path, patience=patience) as one, socket.create_connection(one.peer.address) as sock:
        started = time.monotonic()
        with pytest.raises(OSError):
            for _ in range(60):
                sock.sendall(b"G")
                time.sleep(0.1)
        assert time.monotonic() - started < 4


def test_a_reader_that_stalls_is_dropped(tmp_path: Path) -> None:
    with served(tmp_path, patience=SHORT) as one:
        digest = one.peer.blob("a", os.urandom(16 << 20))
        with socket.create_connection(one.peer.address) as sock:
            sock.sendall(f"GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            sock.recv(1)
            deadline = time.monotonic() + 5
            while not any('"GET"' in line for line in one.lines) and time.monotonic() < deadline:
                time.sleep(0.02)
        assert any('"GET"' in line for line in one.lines), "the thread still waits for the reader"


def test_a_body_that_drips_is_cut_off(one: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "_WINDOW", 0.3)
    location = one.peer("POST", "/v2/a/blobs/uploads/", b"").location
    with socket.create_connection(one.peer.address, timeout=5) as sock:
        sock.sendall(f"PATCH {location} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n".encode())
        started = time.monotonic()
        with pytest.raises(OSError):
            for _ in range(60):
                sock.sendall(b"x")
                time.sleep(0.1)
        assert time.monotonic() - started < 4


def test_a_full_disk_ends_the_upload(one: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    location = one.peer("POST", "/v2/a/blobs/uploads/", b"").location

    def full(writer: object, data: bytes) -> int:
        raise errors.Unavailable("a blob cannot be written", why="No space left on device.")

    monkeypatch.setattr(BlobWriter, "write", full)
    answer = one.peer("PATCH", location, b"x" * 1000)
    assert (answer.status, answer.code) == (503, "UNAVAILABLE")
    assert "No space left" in answer.body.decode()
    monkeypatch.undo()
    assert one.peer("PATCH", location, b"x" * 1000).status == 404
    assert one.files() == []


def test_the_longest_idle_connection_makes_room(tmp_path: Path) -> None:
    with served(tmp_path, most=3) as one:
        idle = []
        for _ in range(3):
            sock = socket.create_connection(one.peer.address, timeout=5)
            sock.sendall(b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n")
            assert sock.recv(4096)
            idle.append(sock)
            time.sleep(0.2)  # the server notes that it idles a moment after the answer has come
        assert one.peer("GET", "/v2/").status == 200
        assert gone_after(idle[0], 5) < 4
        for sock in idle:
            sock.close()


def test_uploads_are_bounded_and_expire(tmp_path: Path) -> None:
    uploads = Uploads(Blobs(f"{tmp_path}/b").writer, most=2, idle=0.05)
    uploads.start("a")
    uploads.start("a")
    with pytest.raises(errors.LadingError, match="2 uploads are under way"):
        uploads.start("a")
    time.sleep(0.1)
    uploads.start("a")
    assert len(uploads) == 1
    uploads.close()
    assert os.listdir(f"{tmp_path}/b/sha256") == []


def test_a_connection_that_breaks_leaves_the_upload_to_be_continued(one: Served) -> None:
    data = os.urandom(300_000)
    location = one.peer("POST", "/v2/a/blobs/uploads/", b"").location
    with socket.create_connection(one.peer.address) as sock:
        head = f"PATCH {location} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(data)}\r\n\r\n"
        sock.sendall(head.encode() + data[:200_000])
    one.logged(2)
    answer = one.peer("GET", location)
    have = int(answer.headers["range"].partition("-")[2]) + 1
    assert have == 200_000
    rest = f"{have}-{len(data) - 1}"
    answer = one.peer("PUT", f"{location}?digest={sha(data)}", data[have:], Content_Range=rest)
    assert answer.status == 201
    assert one.blobs.read(sha(data)) == data


def test_memory_does_not_follow_the_size_of_a_blob(one: Served) -> None:
    import resource

    piece = os.urandom(1 << 20)

    def pieces() -> Iterator[bytes]:
        for _ in range(192):
            digest.update(piece)
            yield piece

    digest = hashlib.sha256()
    location = one.peer("POST", "/v2/a/blobs/uploads/", b"").location
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert one.peer("PATCH", location, pieces()).status == 202
    assert one.peer("PUT", f"{location}?digest=sha256:{digest.hexdigest()}", b"").status == 201
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


# --- read-only, authentication, TLS ---


def test_read_only(tmp_path: Path) -> None:
    with served(tmp_path / "r") as one:
        digest = one.peer.image("a", "v1")
    with served(tmp_path / "r", read_only=True) as one:
        assert one.peer("GET", "/v2/a/manifests/v1").headers["docker-content-digest"] == digest
        for method, path in (
            ("POST", "/v2/a/blobs/uploads/"),
            ("PUT", "/v2/a/manifests/v2"),
            ("DELETE", f"/v2/a/manifests/{digest}"),
            ("DELETE", f"/v2/a/blobs/{sha(b'layer')}"),
        ):
            answer = one.peer(method, path, b"")
            assert (answer.status, answer.code) == (405, "UNSUPPORTED")
            assert "POST" not in answer.headers["allow"] and "DELETE" not in answer.headers["allow"]


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


SETTINGS = {"bcrypt": b"$2y$05$abcdefghijklmnopqrstuu", "sha512": b"$6$rounds=1000$saltsalt$"}


def users_file(path: Path, **passwords: str) -> Path:
    lines = [
        f"{user}:{crypt.crypt(word.encode(), SETTINGS['bcrypt']).decode()}"
        for user, word in passwords.items()
    ]
    path.write_text("# users\n\n" + "\n".join(lines) + "\n")
    return path


def test_a_password_is_asked_for(tmp_path: Path) -> None:
    users = Htpasswd(str(users_file(tmp_path / "users", ann="s:ecret", bob="two")))
    with served(tmp_path / "r", users=users) as one:
        for header in (
            None,
            basic("ann:wrong"),
            basic("eve:s:ecret"),
            basic("ann"),
            basic("ann:s:ecret\0"),
            "Basic ???",
            "Basic",
            "Bearer x",
            basic(":"),
        ):
            answer = one.peer("GET", "/v2/", **({"Authorization": header} if header else {}))
            assert (answer.status, answer.code) == (401, "UNAUTHORIZED"), header
            assert answer.headers["www-authenticate"].startswith("Basic realm=")
        for path in ("/metrics", "/v2/_catalog", "/v2/a/manifests/v1"):
            assert one.peer("GET", path).status == 401
        for text in ("ann:s:ecret", "bob:two", "ann:s:ecret"):
            assert one.peer("GET", "/v2/", Authorization=basic(text)).status == 200
        assert sorted(entry["user"] for entry in one.logged(15)) == [""] * 12 + ["ann", "ann", "bob"]


def test_the_users_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = users_file(tmp_path / "users", ann="one")
    users = Htpasswd(str(path))
    assert users.check(basic("ann:one")) == "ann"
    users_file(path, ann="two!", bob="x")
    with pytest.raises(errors.Unauthenticated):
        users.check(basic("ann:one"))
    assert users.check(basic("ann:two!")) == "ann"
    path.unlink()
    with pytest.raises(errors.Unavailable):
        users.check(basic("ann:two!"))


@pytest.mark.parametrize("method", SETTINGS)
def test_each_kind_of_hash(tmp_path: Path, method: str) -> None:
    path = tmp_path / "users"
    path.write_text(f"ann:{crypt.crypt(b'word', SETTINGS[method]).decode()}\n")
    users = Htpasswd(str(path))
    assert users.check(basic("ann:word")) == "ann"
    with pytest.raises(errors.Unauthenticated):
        users.check(basic("ann:Word"))


@pytest.mark.parametrize(
    "line", ["ann:word", "ann:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "ann:$apr1$x$y", "ann", ":$2y$05$x", "ann:"]
)
def test_weak_password_lines_are_refused(line: str) -> None:
    with pytest.raises(errors.Invalid, match="line 2"):
        parse(f"# top\n{line}\n".encode(), "users")


def test_a_file_without_users_is_refused(tmp_path: Path) -> None:
    (tmp_path / "users").write_text("# nobody\n")
    with pytest.raises(errors.Invalid, match="names no user"):
        Htpasswd(str(tmp_path / "users"))


def test_tls(tmp_path: Path) -> None:
    cert, key = tmp_path / "c.pem", tmp_path / "k.pem"
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    words += f" -addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {cert}"
    made = subprocess.run(["openssl", *words.split()], capture_output=True, check=False, timeout=30)
    assert made.returncode == 0, made.stderr
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(cert, key)
    theirs = ssl.create_default_context(cafile=str(cert))
    data = os.urandom(3_000_000)
    with served(tmp_path / "r", tls=ours, patience=Patience(5, 1, 5)) as one:
        digest = one.blobs.put(data)
        one.content.catalog.link("a", digest)
        stalled = socket.create_connection(one.peer.address)  # never shakes hands
        plain = socket.create_connection(one.peer.address)
        plain.sendall(b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n")
        with (
            socket.create_connection(one.peer.address, timeout=10) as sock,
            theirs.wrap_socket(sock, server_hostname="127.0.0.1") as spoken,
        ):
            request = f"GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
            spoken.sendall(request.encode())
            out = b""
            while piece := spoken.recv(65536):
                out += piece
        assert out.endswith(data)
        assert gone_after(stalled, 5) < 4
        for other in (stalled, plain):
            other.close()


# --- log and metrics ---


def test_every_request_is_one_line_and_is_counted(one: Served) -> None:
    one.peer.image("a", "v1")
    one.peer("GET", "/v2/%22%0a%7b/manifests/x", User_Agent='"}\\evil')
    one.logged(4)
    answer = one.peer("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    text = answer.body.decode()
    for line in (
        'lading_registry_requests_total{method="PUT",status="201"} 1',
        'lading_registry_requests_total{method="POST",status="201"} 2',
        'lading_registry_requests_total{method="GET",status="400"} 1',
        "lading_registry_uploads_in_progress 0",
        "lading_registry_blobs 2",
        "lading_registry_tags 1",
        'lading_registry_request_duration_seconds_count{method="POST"} 2',
    ):
        assert line in text.splitlines()
    logged = one.logged(5)
    assert all("\n" not in line for line in one.lines)
    assert sorted(entry["method"] for entry in logged) == ["GET", "GET", "POST", "POST", "PUT"]
    (push,) = (entry for entry in logged if entry["method"] == "POST" and entry["in"] == 2)
    assert push["status"] == 201 and push["remote"] == "127.0.0.1"
    assert sum(entry["agent"] == '"}\\evil' for entry in logged) == 1


# --- the sweep ---


def test_the_sweep_takes_only_what_nothing_needs(one: Served) -> None:
    kept = one.peer.image("a", "v1", b"kept")
    dropped = one.peer.image("a", "v2", b"dropped")
    one.peer.blob("b", b"loose")
    assert one.peer("DELETE", f"/v2/a/manifests/{dropped}").status == 202
    assert sweep.sweep(one.content, age=3600) == sweep.Swept(0, 0, 0, 0), "all of it is young"
    done = sweep.sweep(one.content, age=0)
    assert (done.blobs, done.links) == (3, 2)  # two layers and a manifest
    names = {sha(b"kept")[7:], sha(b"{}")[7:], kept[7:]}
    assert set(one.files()) == names
    assert one.peer("GET", f"/v2/a/blobs/{sha(b'kept')}").body == b"kept"


def test_the_sweep_of_untagged_manifests(one: Served) -> None:
    tagged, untagged = one.peer.image("a", "v1", b"one"), one.peer.image("a", "v2", b"two")
    child = one.peer.image("a", "v3", b"three")
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{"mediaType": OCI_MANIFEST, "digest": child, "size": 1}],
    }
    assert one.peer.manifest("a", "multi", index, str(index["mediaType"])).status == 201
    about = image(sha(b"{}"), 2, subject={"mediaType": OCI_MANIFEST, "digest": tagged, "size": 1})
    signature = one.peer.manifest("a", sha(json.dumps(about).encode()), about).headers[
        "docker-content-digest"
    ]
    for tag in ("v2", "v3"):
        assert one.peer("DELETE", f"/v2/a/manifests/{tag}").status == 202
    assert sweep.sweep(one.content, age=0).manifests == 0
    assert sweep.sweep(one.content, age=0, untagged=True).manifests == 1
    assert one.peer("GET", f"/v2/a/manifests/{untagged}").status == 404
    for digest in (tagged, child, signature):
        assert one.peer("GET", f"/v2/a/manifests/{digest}").status == 200
    assert one.peer("DELETE", "/v2/a/manifests/multi").status == 202
    assert sweep.sweep(one.content, age=0, untagged=True).manifests == 2, "the index, and then what it held"


def test_a_blob_that_a_client_has_seen_is_spared(one: Served) -> None:
    digest = one.peer.blob("a", b"seen")
    with one.content.catalog._db.transaction() as cx:
        cx.execute("UPDATE links SET touched_ns = 0")
    os.utime(one.blobs.path(digest), (0, 0))
    assert one.peer("HEAD", f"/v2/a/blobs/{digest}").status == 200
    assert sweep.sweep(one.content, age=60) == sweep.Swept(0, 0, 0, 0)
    assert one.blobs.has(digest)


def test_a_sweep_and_a_push_exclude_each_other(one: Served) -> None:
    """Between the moment that a blob is found in the store and the row that keeps it no sweep may delete it."""
    one.peer.blob("a", b"loose")
    sweeping = threading.Thread(target=sweep.sweep, args=(one.content,), kwargs={"age": 0})
    with one.content.guard():
        sweeping.start()
        sweeping.join(0.3)
        assert sweeping.is_alive(), "it swept while a push made a blob visible"
    sweeping.join(10)
    assert not sweeping.is_alive()
    pushing = threading.Thread(target=one.peer.image, args=("a", "v1"))
    with one.content.guard(sweep=True):
        pushing.start()
        pushing.join(0.3)
        assert one.peer("GET", "/v2/a/manifests/v1").status == 404
    pushing.join(10)
    assert one.peer("GET", "/v2/a/manifests/v1").status == 200


def test_pushes_and_sweeps_at_once_lose_nothing(one: Served) -> None:
    """The sweep runs without any age, which no push of several requests can rely on; so each push tries again until the
    registry takes its manifest, and what was taken must be whole."""
    stop = threading.Event()
    swept = []

    def sweeper() -> None:
        while not stop.is_set():
            swept.append(sweep.sweep(one.content, age=0).blobs)

    def pusher(number: int) -> None:
        config, layer = b"{}", f"layer {number % 3}".encode()
        for turn in range(6):
            for _ in range(200):
                document = image(one.peer.blob("a", config), 2, one.peer.blob("a", layer), len(layer))
                if one.peer.manifest("a", f"t{number}-{turn}", document).status == 201:
                    break
            else:
                failed.append(f"{number} never got through")
            if turn % 2:
                one.peer("DELETE", f"/v2/a/manifests/t{number}-{turn}")

    failed: list[str] = []
    sweeping = threading.Thread(target=sweeper)
    pushing = [threading.Thread(target=pusher, args=(number,)) for number in range(4)]
    sweeping.start()
    for thread in pushing:
        thread.start()
    for thread in pushing:
        thread.join(60)
    stop.set()
    sweeping.join(20)
    assert not failed
    assert len(swept) > 3
    tags = one.peer("GET", "/v2/a/tags/list").json["tags"]
    assert len(tags) == 12
    for tag in tags:
        manifest = one.peer("GET", f"/v2/a/manifests/{tag}").json
        for entry in (manifest["config"], *manifest["layers"]):
            assert sha(one.peer("GET", f"/v2/a/blobs/{entry['digest']}").body) == entry["digest"]


# --- the local store ---


def test_blobs_of_the_local_store_are_linked_not_sent(tmp_path: Path) -> None:
    local = Blobs(f"{tmp_path}/blobs")
    digest = local.put(b"local layer")
    with served(tmp_path / "registry", local=local) as one:
        assert one.peer("HEAD", f"/v2/a/blobs/{digest}").status == 200
        assert os.stat(local.path(digest)).st_ino == os.stat(one.blobs.path(digest)).st_ino
        other = local.put(b"other")
        answer = one.peer("POST", f"/v2/b/blobs/uploads/?mount={other}", b"")
        assert answer.status == 201
        assert one.peer("GET", answer.location).body == b"other"
        assert one.peer("HEAD", f"/v2/a/blobs/{sha(b'nowhere')}").status == 404
        one.peer.image("a", "v1", b"local layer")
        local.delete(digest)
        assert one.peer("GET", f"/v2/a/blobs/{digest}").body == b"local layer", (
            "each store has a name of its own"
        )


def test_what_is_sent_and_is_in_the_local_store_takes_no_second_place(tmp_path: Path) -> None:
    local = Blobs(f"{tmp_path}/blobs")
    digest = local.put(b"local layer")
    with served(tmp_path / "registry", local=local) as one:
        one.peer.blob("a", b"local layer")
        assert os.stat(one.blobs.path(digest)).st_nlink == 2
        assert len(one.files()) == 1
