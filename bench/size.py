#!/usr/bin/env python3
"""The size of the module by part, for docs/benchmarks: what each crate's code takes.

    cargo build --release --target wasm32-wasip1 --config 'target.wasm32-wasip1.rustflags=["-Cstrip=debuginfo"]'
    bench/size.py target/wasm32-wasip1/release/callback_guard.wasm

The names of functions are left out of the sum: a module that is released has none. Code that is generic counts
with the crate that its name begins with.
"""

import collections
import re
import sys


def leb(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def sections(data):
    at = 8
    while at < len(data):
        kind = data[at]
        size, start = leb(data, at + 1)
        yield kind, start, start + size
        at = start + size


def imports(data, at):
    count, at = leb(data, at)
    for _ in range(count):
        for _ in range(2):
            length, at = leb(data, at)
            at += length
        _, at = leb(data, at + 1)  # all are functions
    return count


def sizes(data, at):
    count, at = leb(data, at)
    for _ in range(count):
        length, at = leb(data, at)
        yield length
        at += length


def names(data, at, end):
    while at < end:
        kind = data[at]
        size, start = leb(data, at + 1)
        if kind == 1:
            count, place = leb(data, start)
            for _ in range(count):
                index, place = leb(data, place)
                length, place = leb(data, place)
                yield index, data[place : place + length].decode()
                place += length
        at = start + size


def part(name):
    """The crate in a mangled name: of ours also the module."""
    ours = re.search(r"callback_guard(?:_(config|core|scan))?(?:\.\.|\d+)(\w+?)(?=17h|\.\.|\d|E|$)", name)
    if ours:
        return f"{ours[1] or 'shell'}::{ours[2]}"
    for crate in ("serde", "curve25519", "proxy_wasm", "base64", "sha1", "sha2", "der", "hashbrown"):
        if crate in name:
            return crate
    return "proxy_wasm" if name.startswith("proxy_on_") else "alloc, core, std, the rest"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    data = open(sys.argv[1], "rb").read()
    skipped, code, named, parts = 0, [], {}, collections.Counter()
    for kind, start, end in sections(data):
        if kind == 2:
            skipped = imports(data, start)
        if kind == 10:
            code = list(sizes(data, start))
        elif kind == 11:
            parts["data: texts, presets, tables, the inspector's page"] = end - start
        elif kind == 0:
            length, place = leb(data, start)
            if data[place : place + length] == b"name":
                named = dict(names(data, place + length, end))
        else:
            parts["tables, imports and exports"] += end - start
    for index, size in enumerate(code, skipped):
        parts[part(named.get(index, ""))] += size
    for name, size in parts.most_common():
        if size >= 1000:
            print(f"| {name} | {size / 1000:.1f} |")
    print(f"| all | {sum(parts.values()) / 1000:.1f} |")


main()
