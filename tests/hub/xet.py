"""The formats of xet storage: shards (which chunks make a file) and xorbs (the chunks), read and put together."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

ENTRY = 48
HEADER = 48
BOOKEND = b"\xff" * 32
WITH_VERIFICATION = 1 << 31
WITH_METADATA = 1 << 30


class XetError(ValueError):
    """Bytes that are not what the xet formats allow, or that refer to something that was never uploaded."""


def hash_name(raw: bytes) -> str:
    """How a 32-byte hash is written: four little-endian numbers, each as 16 hexadecimal digits."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", raw))


@dataclass(frozen=True)
class Term:
    """A run of chunks [start, end) of one xorb."""

    xorb: str
    length: int
    start: int
    end: int


@dataclass(frozen=True)
class XetFile:
    """A file as a shard describes it."""

    hash: str
    sha256: str | None
    terms: list[Term]

    @property
    def size(self) -> int:
        """The file's size in bytes."""
        return sum(term.length for term in self.terms)


def shard_files(shard: bytes) -> list[XetFile]:
    """The files that a shard (.mdb) describes; its list of new xorbs is not needed here."""
    files = []
    at = HEADER

    def entry() -> bytes:
        nonlocal at
        raw = shard[at : at + ENTRY]
        if len(raw) < ENTRY:
            raise XetError("the shard ends in the middle of its list of files")
        at += ENTRY
        return raw

    while (head := entry())[:32] != BOOKEND:
        flags, count = struct.unpack("<2I", head[32:40])
        terms = []
        for _ in range(count):
            raw = entry()
            _, length, start, end = struct.unpack("<4I", raw[32:48])
            terms.append(Term(hash_name(raw[:32]), length, start, end))
        if flags & WITH_VERIFICATION:
            for _ in range(count):
                entry()
        sha256 = hash_name(entry()[:32]) if flags & WITH_METADATA else None
        files.append(XetFile(hash_name(head[:32]), sha256, terms))
    return files


@dataclass(frozen=True)
class Chunk:
    """A chunk of a xorb: where it lies, how it is packed, and its size once unpacked."""

    offset: int
    packed: int
    scheme: int
    size: int

    @property
    def end(self) -> int:
        """The offset behind the chunk, whose header takes 8 bytes."""
        return self.offset + 8 + self.packed


@lru_cache(maxsize=256)
def xorb_chunks(path: Path) -> list[Chunk]:
    """The chunks of a xorb, from their headers; a footer, where there is one, starts with another byte."""
    chunks = []
    size = path.stat().st_size
    with path.open("rb") as xorb:
        at = 0
        while at < size:
            xorb.seek(at)
            head = xorb.read(8)
            if head[0] != 0:
                break
            chunk = Chunk(at, int.from_bytes(head[1:4], "little"), head[4], int.from_bytes(head[5:8], "little"))
            if chunk.end > size:
                raise XetError("the xorb ends in the middle of a chunk")
            chunks.append(chunk)
            at = chunk.end
    if not chunks:
        raise XetError("the xorb has no chunks")
    return chunks


def unpack(scheme: int, packed: bytes, size: int) -> bytes:
    """The bytes of a chunk: stored as they are (0), LZ4 frames (1), or LZ4 over bytes grouped by four (2)."""
    if scheme == 0:
        return packed
    import pyarrow  # only for compressed chunks: the server starts without it

    plain = bytes(pyarrow.decompress(packed, decompressed_size=size, codec="lz4", asbytes=True))
    if scheme == 1:
        return plain
    if scheme != 2:
        raise XetError(f"unknown compression scheme {scheme}")
    grouped = bytearray(size)
    at = 0
    for first in range(4):
        count = len(range(first, size, 4))
        grouped[first::4] = plain[at : at + count]
        at += count
    return bytes(grouped)


class XetStore:
    """The content-addressed store behind xet: xorbs as uploaded, and one JSON file per registered file."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("xorbs", "files", "sha256"):
            (root / folder).mkdir(parents=True, exist_ok=True)

    def xorb(self, name: str) -> Path:
        """Where a xorb is, or would be."""
        return self.root / "xorbs" / name

    def add_xorb(self, path: Path, name: str) -> bool:
        """Keep an uploaded xorb after a look at its structure; whether it is new."""
        xorb_chunks.__wrapped__(path)
        new = not self.xorb(name).exists()
        path.replace(self.xorb(name))
        return new

    def add_shard(self, shard: bytes) -> list[XetFile]:
        """Register the files of a shard, whose xorbs must all be here."""
        files = shard_files(shard)
        for file in files:
            for term in file.terms:
                if not self.xorb(term.xorb).exists():
                    raise XetError(f"the shard refers to a xorb that was not uploaded: {term.xorb}")
                chunks = xorb_chunks(self.xorb(term.xorb))[term.start : term.end]
                if sum(chunk.size for chunk in chunks) != term.length:
                    raise XetError("a term's length does not match its chunks")
            saved = {**asdict(file), "terms": [asdict(term) for term in file.terms]}
            (self.root / "files" / file.hash).write_text(json.dumps(saved), encoding="utf-8")
            if file.sha256:
                (self.root / "sha256" / file.sha256).write_text(file.hash, encoding="utf-8")
        return files

    def file(self, name: str) -> XetFile | None:
        """A registered file by its xet hash."""
        path = self.root / "files" / name
        if not path.exists():
            return None
        saved = json.loads(path.read_text(encoding="utf-8"))
        return XetFile(saved["hash"], saved["sha256"], [Term(**term) for term in saved["terms"]])

    def name_of(self, sha256: str) -> str | None:
        """The xet hash of the file with this SHA-256, if a shard told it."""
        path = self.root / "sha256" / sha256
        return path.read_text(encoding="utf-8") if path.exists() else None

    def rebuild(self, sha256: str, target: Path) -> None:
        """Put a file together from its chunks and check that it is the one that the client promised."""
        name = self.name_of(sha256)
        file = self.file(name) if name else None
        if file is None:
            raise XetError("no shard describes this file")
        digest = hashlib.sha256()
        with target.open("wb") as out:
            for term in file.terms:
                for piece in self._pieces(term):
                    digest.update(piece)
                    out.write(piece)
        if digest.hexdigest() != sha256:
            target.unlink()
            raise XetError("the chunks do not make up the file that the shard promised")

    def _pieces(self, term: Term) -> Iterator[bytes]:
        path = self.xorb(term.xorb)
        with path.open("rb") as xorb:
            for chunk in xorb_chunks(path)[term.start : term.end]:
                xorb.seek(chunk.offset + 8)
                yield unpack(chunk.scheme, xorb.read(chunk.packed), chunk.size)

    def reconstruction(self, file: XetFile, first: int, last: int, fetch_url: str) -> dict[str, Any]:
        """How a client gets the bytes [first, last) of a file: runs of chunks, and where to fetch each."""
        terms: list[dict[str, Any]] = []
        spans: dict[str, list[tuple[int, int]]] = {}
        offset = at = 0
        for term in file.terms:
            if at >= last or at + term.length <= first:
                at += term.length
                continue
            chunks = xorb_chunks(self.xorb(term.xorb))
            start, end = term.start, term.end
            begin, stop = at, at + term.length
            at = stop
            while begin + chunks[start].size <= first:
                begin += chunks[start].size
                start += 1
            while stop - chunks[end - 1].size >= last:
                end -= 1
                stop -= chunks[end].size
            offset = offset if terms else first - begin
            spans.setdefault(term.xorb, []).append((start, end))
            chunk_range = {"start": start, "end": end}
            terms.append({"hash": term.xorb, "unpacked_length": stop - begin, "range": chunk_range})
        fetch = {name: self._places(name, pairs, f"{fetch_url}/{name}") for name, pairs in spans.items()}
        return {"offset_into_first_range": offset, "terms": terms, "fetch_info": fetch}

    def _places(self, name: str, spans: list[tuple[int, int]], url: str) -> list[dict[str, Any]]:
        """Where the chunks of these spans lie; spans that touch become one, as the client takes each chunk once."""
        merged: list[tuple[int, int]] = []
        for start, end in sorted(spans):
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        chunks = xorb_chunks(self.xorb(name))
        return [
            {
                "range": {"start": start, "end": end},
                "url": url,
                "url_range": {"start": chunks[start].offset, "end": chunks[end - 1].end - 1},
            }
            for start, end in merged
        ]
