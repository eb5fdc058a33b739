"""The layer pipeline: digests of both sides, every compression, damage, errors in the middle, bounded
memory."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from image_archives import file, tar

from lading.base import errors
from lading.image import digest, validate
from lading.image.config import History
from lading.image.layer import compress
from lading.image.layer.compress import Ahead, Decompressed, write_layer
from lading.image.layer.zstdframes import Frames
from lading.image.mutate import EMPTY, Draft, append
from lading.store.blobs import Blobs


def _all(stream: Decompressed | Ahead) -> bytes:
    out = b""
    while chunk := stream.read(70_000):
        out += chunk
    return out


@pytest.mark.parametrize("media", ["gzip", "zstd", "tar"])
@pytest.mark.parametrize("size", [0, 1, 100_000, 5_000_000])
def test_both_digests_are_right(tmp_path: Path, media: compress.Compression, size: int) -> None:
    blobs = Blobs(f"{tmp_path}/blobs")
    data = os.urandom(size // 2) + bytes(size - size // 2)

    def produce(write: object) -> None:
        for at in range(0, size, 300_000):
            write(data[at : at + 300_000])  # type: ignore[operator]

    layer = write_layer(blobs, produce, media)
    assert layer.diff_id == digest.of(data)
    assert layer.descriptor.media_type == compress.MEDIA_TYPES[media]
    with blobs.open(layer.descriptor.digest) as stream:
        stored = stream.read()
        assert digest.of(stored) == layer.descriptor.digest
        assert len(stored) == layer.descriptor.size
        assert _all(Decompressed(io.BytesIO(stored))) == data


def test_outside_tools_read_what_we_compress(tmp_path: Path) -> None:
    blobs = Blobs(f"{tmp_path}/blobs")
    data = b"layer " * 1_000_000
    gzipped = write_layer(blobs, lambda write: write(data), "gzip").descriptor.digest
    assert gzip.decompress(Path(blobs.path(gzipped)).read_bytes()) == data
    zstd = write_layer(blobs, lambda write: write(data), "zstd").descriptor.digest
    assert (
        zstandard.ZstdDecompressor().decompressobj().decompress(Path(blobs.path(zstd)).read_bytes()) == data
    )


def test_the_same_tar_gives_the_same_blob_however_it_is_cut(tmp_path: Path) -> None:
    """Not demanded by the specification, but a cache that finds the same blob again saves a push."""
    blobs = Blobs(f"{tmp_path}/blobs")
    data = b"abc" * 100_000
    one = write_layer(blobs, lambda write: write(data))
    two = write_layer(blobs, lambda write: write(data))
    assert one == two


def test_a_producer_that_fails_leaves_no_blob_and_no_thread(tmp_path: Path) -> None:
    blobs = Blobs(f"{tmp_path}/blobs")

    def produce(write: object) -> None:
        for _ in range(10):
            write(bytes(1 << 20))  # type: ignore[operator]
        raise KeyError("in the middle")

    before = threading.active_count()
    with pytest.raises(KeyError):
        write_layer(blobs, produce)
    assert threading.active_count() == before
    assert os.listdir(f"{tmp_path}/blobs/sha256") == []


def test_a_store_that_fails_stops_the_producer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = Blobs(f"{tmp_path}/blobs")
    written = 0

    def produce(write: object) -> None:
        nonlocal written
        for _ in range(2000):
            write(os.urandom(1 << 16))  # type: ignore[operator]
            written += 1

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    before = threading.active_count()
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(errors.Unavailable, match="No space left"):
        write_layer(blobs, produce)
    monkeypatch.undo()
    assert written < 2000
    assert threading.active_count() == before
    assert os.listdir(f"{tmp_path}/blobs/sha256") == []


@given(st.lists(st.binary(max_size=2000), max_size=5), st.integers(1, 700))
@settings(max_examples=60)
def test_several_gzip_members_are_one_stream(parts: list[bytes], step: int) -> None:
    data = b"".join(gzip.compress(part) for part in parts) + bytes(600)

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(step, size) if size and size > 0 else step)

    if parts:
        assert _all(Decompressed(Slow(data))) == b"".join(parts)


def test_several_zstd_frames_are_one_stream() -> None:
    frame = zstandard.ZstdCompressor().compress
    assert _all(Decompressed(io.BytesIO(frame(b"one") + frame(b"two")))) == b"onetwo"


@pytest.mark.parametrize("data", [b"", b"a", b"abc", b"\x1f", b"plain text " * 1000])
def test_what_is_not_compressed_passes_through(data: bytes) -> None:
    stream = Decompressed(io.BytesIO(data))
    assert stream.compression == "tar"
    assert _all(stream) == data


GZIPPED = gzip.compress(os.urandom(50_000))
ZSTD = zstandard.ZstdCompressor(write_checksum=True).compress(b"x" * 100_000 + bytes(range(256)))


@pytest.mark.parametrize(
    "data",
    [
        GZIPPED[:-20_000],
        GZIPPED[:-1],
        GZIPPED[:5],
        GZIPPED[:100] + bytes([GZIPPED[100] ^ 0xFF]) + GZIPPED[101:],
        GZIPPED[:-8] + bytes(4) + GZIPPED[-4:],
        GZIPPED + b"trailing junk",
        b"\x1f\x8b\x08\x00garbage of some length",
        ZSTD[:10] + b"\xff" * 10 + ZSTD[20:],
        b"\x28\xb5\x2f\xfd" + b"\xff" * 100,
    ],
)
def test_damaged_streams_are_refused(data: bytes) -> None:
    with pytest.raises(errors.Invalid, match="compressed data is damaged"):
        _all(Decompressed(io.BytesIO(data)))


def test_reading_ahead_gives_the_same_bytes_and_observes_them() -> None:
    data = os.urandom(5_000_000)
    seen = hashlib.sha256()
    with Ahead(io.BytesIO(data), seen.update) as stream:
        assert _all(stream) == data
    assert seen.hexdigest() == hashlib.sha256(data).hexdigest()


def test_an_error_while_reading_ahead_reaches_the_reader() -> None:
    before = threading.active_count()
    with pytest.raises(errors.Invalid), Ahead(Decompressed(io.BytesIO(GZIPPED[:1000]))) as stream:
        _all(stream)
    assert threading.active_count() == before


def test_stopping_early_ends_the_thread() -> None:
    before = threading.active_count()
    with Ahead(io.BytesIO(bytes(100 << 20))) as stream:
        assert len(stream.read(10)) == 10
    assert threading.active_count() == before


_MEMORY = """
import resource, sys
from lading.image.layer.compress import Decompressed, write_layer
from lading.store.blobs import Blobs
blobs = Blobs(sys.argv[1])
chunk = bytes(1 << 20)
def produce(write):
    for _ in range(600):
        write(chunk)
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
layer = write_layer(blobs, produce)
stream = Decompressed(blobs.open(layer.descriptor.digest))
total = 0
while part := stream.read(1 << 20):
    total += len(part)
assert total == 600 << 20, total
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start)
"""


def test_memory_does_not_grow_with_the_layer(tmp_path: Path) -> None:
    """600 MiB of zeros shrink to under one: a bomb for whoever inflates it at once."""
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY, f"{tmp_path}/blobs"], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 64 * 1024, f"{done.stdout} KiB"


def _stored(tmp_path: Path) -> tuple[Blobs, Draft]:
    blobs = Blobs(f"{tmp_path}/blobs")
    data = tar(file("etc/x")).getvalue()
    layer = write_layer(blobs, lambda write: write(data))
    draft = append(Draft(EMPTY), layer, History(created_by="test"))
    blobs.put(draft.config.encode())
    return blobs, draft


def test_the_oracle_finds_a_sound_image_sound(tmp_path: Path) -> None:
    blobs, draft = _stored(tmp_path)
    assert validate.image(blobs.open, blobs.put(draft.manifest().encode())) == []


def test_the_oracle_finds_what_is_wrong(tmp_path: Path) -> None:
    from dataclasses import replace

    blobs, draft = _stored(tmp_path)
    wrong_diff = Draft(replace(draft.config, diff_ids=(digest.of(b"x"),)), draft.layers)
    blobs.put(wrong_diff.config.encode())
    assert validate.image(blobs.open, blobs.put(wrong_diff.manifest().encode())) == [
        "layer 0 does not match its diffID"
    ]
    wrong_size = Draft(draft.config, (replace(draft.layers[0], size=1),))
    assert "its descriptor says 1" in validate.image(blobs.open, blobs.put(wrong_size.manifest().encode()))[0]
    two = Draft(draft.config, draft.layers * 2)
    assert (
        validate.image(blobs.open, blobs.put(two.manifest().encode()))[0]
        == "2 layers in the manifest, 1 in the config"
    )
    path = Path(blobs.path(draft.layers[0].digest))
    path.write_bytes(path.read_bytes()[:-9])
    assert "damaged" in validate.image(blobs.open, blobs.put(draft.manifest().encode()))[0]
    assert "not in the store" in validate.image(blobs.open, digest.of(b"nothing"))[0]


def _zstd(data: bytes, **options: bool) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(data)


_STREAMS = {
    "one": _zstd(b"abc" * 99),
    "checksum": _zstd(b"abc" * 99, write_checksum=True),
    "no size": _zstd(b"abc" * 99, write_content_size=False),
    "zeros": _zstd(bytes(300_000), write_checksum=True),
    "empty": _zstd(b""),
    "two": _zstd(b"x") + _zstd(b"y", write_checksum=True),
    "skippable": _zstd(b"x") + b"\x53\x2a\x4d\x18\x05\0\0\0aside" + _zstd(b"y"),
}


@pytest.mark.parametrize("name", _STREAMS)
def test_a_zstd_stream_that_is_cut_short_is_refused(name: str) -> None:
    data = _STREAMS[name]
    whole = {0}  # where a frame ends
    for end in range(len(data) + 1):
        frames = Frames()
        for byte in data[:end]:
            frames.feed(bytes([byte]))
        if frames.whole:
            whole.add(end)
    assert len(data) in whole and len(whole) == {"two": 3, "skippable": 4}.get(name, 2)
    for end in range(5, len(data)):
        stream = compress.Decompressed(io.BytesIO(data[:end]))
        if end in whole:
            while stream.read(1000):
                pass
            continue
        with pytest.raises(errors.Invalid, match="damaged"):
            while stream.read(1000):
                pass


def test_a_large_zstd_stream_is_walked_whole() -> None:
    data = random.Random(5).randbytes(700_000) + bytes(700_000)
    for level in (1, 3, 12):
        packed = zstandard.ZstdCompressor(level).compress(data)
        frames = Frames()
        for at in range(0, len(packed), 65536):
            assert not frames.whole or at == 0
            frames.feed(packed[at : at + 65536])
        assert frames.whole
