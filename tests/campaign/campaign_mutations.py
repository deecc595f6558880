"""Changes of sound files: of their bytes, of the numbers in their headers, of the values in their tables."""

import copy
import json
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

LENGTHS = (0, 1, 2, 255, 256, 10**6, 10**9, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)
"""Numbers that a header may claim."""
VALUES = (
    *(None, True, False, 0, -1, 1, 2, 0.5, 10**6, 10**9, 2**63, -(10**9), 1e308, 1e-300, float("nan"), float("inf")),
    *("", "x", "tuned", "digits", "vae", "\0", "../../etc/passwd", "a" * 5000, [], {}, [[]], [0], [-1], [1, 2, 3]),
    *([10**9], ["a"], [0.1, 0.2], {"a": 1}),
)
"""What may stand in a table in place of a value."""
Mutate = Callable[[bytes, random.Random], bytes]


def changed_bytes(sound: bytes, rng: random.Random) -> bytes:
    """Return bytes with one to sixteen changes: of a bit, of a number, of a stretch left out, put in or doubled."""
    data = bytearray(sound)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        if not data:
            break
        at = rng.randrange(len(data)) if rng.random() < 0.4 else rng.randrange(min(len(data), 128))
        match rng.choice(("bit", "byte", "cut", "end", "more", "number", "double")):
            case "bit":
                data[at] ^= 1 << rng.randrange(8)
            case "byte":
                data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            case "cut":
                del data[at : at + rng.choice((1, 4, 100))]
            case "end":
                del data[at:]
            case "more":
                data[at:at] = rng.randbytes(rng.choice((1, 4, 50)))
            case "number":
                kind = rng.choice(("<H", ">H", "<I", ">I", "<Q", ">Q"))
                size = struct.calcsize(kind)
                data[at : at + size] = struct.pack(kind, rng.choice(LENGTHS) % 2 ** (8 * size))
            case "double":
                other = rng.randrange(len(data))
                data[at : at + 8] = data[other : other + 8]
    return bytes(data)


def changed_tree(tree: Any, rng: random.Random) -> Any:
    """Return nested values of which one to three are others, are gone or are new."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(_places(tree))
        if not places or rng.random() < 0.02:
            return copy.deepcopy(rng.choice(VALUES))
        node, key = rng.choice(places)
        kind, value = rng.random(), copy.deepcopy(rng.choice(VALUES))
        if kind < 0.75:
            node[key] = value
        elif kind < 0.85:
            del node[key]
        elif isinstance(node, dict):
            node[rng.choice(("a", "", "x.y", "learners", "model", "__class__", f"{key}x"))] = value
        else:
            node.append(value)
    return tree


def _places(tree: Any) -> Any:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in list(items):
        yield tree, key
        yield from _places(value)


def in_text(read: Callable[[str], Any], write: Callable[[Any], str], opening: str) -> Mutate:
    """Return the change of a text file that holds a table: of its bytes, of its values, or a nesting without end.

    opening: text that opens one level of nesting.
    """

    def changed(data: bytes, rng: random.Random) -> bytes:
        kind = rng.random()
        if kind < 0.25:
            return changed_bytes(data, rng)
        if kind < 0.28:
            return opening.encode() + b"[" * 100_000
        for _ in range(20):  # the format may have no word for a value: TOML none for null
            try:
                return write(changed_tree(read(data.decode()), rng)).encode()
            except (TypeError, ValueError, AttributeError):
                continue
        return data[: rng.randrange(len(data))]

    return changed


def in_npy(data: bytes, rng: random.Random) -> bytes:
    """Return an .npy file with another shape or type in its header, or with other bytes."""
    if rng.random() < 0.4:
        return changed_bytes(data, rng)
    length = struct.unpack("<H", data[8:10])[0]
    head = data[10 : 10 + length].decode("latin1")
    shapes = ("10**9,", "-1, ", "99999999999, ", "1000000000, ", "'a', ", "(", "True, ", "0, ", f"{10**30}, ")
    types = (
        "'|O'",
        "'<f8'",
        "'<f2'",
        "'<c16'",
        "'<M8[s]'",
        "'<U9'",
        "'|V9'",
        "[('a','<i4')]",
        "'|b1'",
        "__import__('os')",
    )
    swaps = (
        ("'shape': (", "'shape': (" + rng.choice(shapes)),
        ("'|u1'", rng.choice((*types, "'<f16'", "'|S5'", "'|u1,|u1'"))),
        ("{", "{" * rng.choice((2, 50, 3000))),
        ("}", rng.choice(("", "}}", "]", "# ", "'''", "\\"))),
        ("False", rng.choice(("True", "0", "None", "1L"))),
    )
    for old, new in rng.sample(swaps, rng.choice((1, 1, 2))):
        head = head.replace(old, new, 1)
    words = head.encode("latin1")
    return data[:8] + struct.pack("<H", len(words)) + words + data[10 + length :]


def in_png(data: bytes, rng: random.Random) -> bytes:
    """Return a PNG file with a changed or an added chunk, and mostly with right checksums, so that it is read."""
    if rng.random() < 0.3:
        return changed_bytes(data, rng)
    chunks, at = [], 8
    while at < len(data):
        length = struct.unpack(">I", data[at : at + 4])[0]
        chunks.append([data[at + 4 : at + 8], data[at + 8 : at + 8 + length]])
        at += 12 + length
    chosen = rng.choice(chunks)
    if chosen[0] == b"IDAT" and rng.random() < 0.7:
        chosen[1] = zlib.compress(changed_bytes(zlib.decompress(chosen[1]), rng))
    else:
        chosen[1] = changed_bytes(chosen[1], rng)
    if rng.random() < 0.3:
        names = (
            b"tRNS",
            b"PLTE",
            b"iCCP",
            b"zTXt",
            b"iTXt",
            b"gAMA",
            b"pHYs",
            b"eXIf",
            b"acTL",
            b"fdAT",
            b"IHDR",
            b"IDAT",
        )
        chunks.insert(rng.randrange(1, len(chunks)), [rng.choice(names), rng.randbytes(rng.choice((0, 1, 4, 30)))])
    parts = (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    return data[:8] + b"".join(parts)


def in_packed_mat(data: bytes, rng: random.Random) -> bytes:
    """Return a packed .mat file of which the unpacked bytes are changed, or the packed ones."""
    if rng.random() < 0.4:
        return changed_bytes(data, rng)
    length = struct.unpack("<II", data[128:136])[1]
    packed = zlib.compress(changed_bytes(zlib.decompress(data[136 : 136 + length]), rng))
    return data[:128] + struct.pack("<II", 15, len(packed)) + packed + data[136 + length :]


def in_safetensors(data: bytes, rng: random.Random) -> bytes:
    """Return a safetensors file with another header, other words in it, numbers that are not finite, or other bytes."""
    if rng.random() < 0.3:
        return changed_bytes(data, rng)
    length = struct.unpack("<Q", data[:8])[0]
    head, body = json.loads(data[8 : 8 + length]), bytearray(data[8 + length :])
    names = [name for name in head if name != "__metadata__"]
    kind = rng.choice(("words", "words", "renamed", "gone", "turned", "numbers", "tree"))
    if kind == "words" and "__metadata__" in head:
        key = rng.choice(list(head["__metadata__"]))
        try:
            head["__metadata__"][key] = json.dumps(changed_tree(json.loads(head["__metadata__"][key]), rng))
        except ValueError:  # not JSON: text
            head["__metadata__"][key] = rng.choice(("", "x", "a" * 5000))
    elif kind == "renamed":
        head[rng.choice((*names, "x", "optimizer/a/b", "optimizer/9/step"))] = head.pop(rng.choice(names))
    elif kind == "gone":
        head.pop(rng.choice(names))
    elif kind == "turned":
        name = rng.choice(names)
        head[name]["shape"] = head[name]["shape"][::-1] or [1]
    elif kind == "numbers":
        at = rng.randrange(0, max(len(body) - 64, 1), 4)
        body[at : at + 64] = rng.choice((b"\xff\xff\xff\x7f", b"\0\0\x80\x7f", b"\0\0\0\xff", b"\0\0\0\0")) * 16
    else:
        head = changed_tree(head, rng)
    words = json.dumps(head).encode()
    return struct.pack("<Q", len(words)) + words + bytes(body)
