#!/usr/bin/env python3
"""Prints the bill of materials (CycloneDX 1.6) of what a package links: names, versions, licences, and
the SHA-256 that Cargo.lock holds each to. Nothing in it changes from one day or machine to the next.

    deploy/sbom.py PACKAGE TARGET [MANIFEST]
    deploy/sbom.py callback-guard wasm32-wasip1 > docs/sbom.cdx.json
"""

import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def linked(package, target, manifest):
    """Each (name, version, licence) with those that it asks for itself. No procedural macro and no build
    script: they run while it is built."""
    command = [os.environ.get("CARGO", "cargo"), "tree", "--locked", "--manifest-path", str(manifest)]
    command += ["--package", package, "--target", target, "--edges", "normal,no-proc-macro"]
    command += ["--no-dedupe", "--prefix", "depth", "--format", " {p} |{l}"]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    packages, above = {}, []
    for line in lines:
        text, licence = line.split("|", 1)
        depth, name, version = text.split()[:3]
        found = (name, version.removeprefix("v"), licence)
        packages.setdefault(found, set())
        del above[int(depth) :]
        if above:
            packages[above[-1]].add(found)
        above.append(found)
    return packages


def checksums(manifest):
    """(name, version) to SHA-256. What has none is of this repository, and published nowhere."""
    lock = (manifest.parent / "Cargo.lock").read_text()
    found = re.findall(r'name = "(.+)"\nversion = "(.+)"\nsource = .+\nchecksum = "(.+)"', lock)
    return {(name, version): checksum for name, version, checksum in found}


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    package, target = sys.argv[1:3]
    manifest = ROOT / (sys.argv[3] if len(sys.argv) == 4 else "Cargo.toml")
    rust = re.search(r'channel = "(.+)"', (ROOT / "rust-toolchain.toml").read_text()).group(1)
    packages, known = linked(package, target, manifest), checksums(manifest)

    def reference(name, version):
        kind = "cargo" if (name, version) in known else "generic"
        return f"pkg:{kind}/{name}@{version}"

    standard = reference("rust-std", rust)
    libc = {"wasi": "wasi-libc", "musl": "musl"}
    libc = [f", with the {name} in it" for sign, name in libc.items() if sign in target]
    subject = None
    components = [
        {
            "type": "library",
            "bom-ref": standard,
            "name": "rust-std",
            "version": rust,
            "description": f"Rust's standard library for {target}{''.join(libc)}",
            "licenses": [{"expression": "MIT OR Apache-2.0"}],
            "purl": standard,
        }
    ]
    dependencies = [{"ref": standard}]
    for (name, version, licence), needs in sorted(packages.items()):
        needs = sorted(reference(*need[:2]) for need in needs)
        component = {
            "type": "library",
            "bom-ref": reference(name, version),
            "name": name,
            "version": version,
            "licenses": [{"expression": licence}],
            "purl": reference(name, version),
        }
        if name == package:
            component["type"] = "application"
            needs.append(standard)
            subject = component
        else:
            if (name, version) in known:
                component["hashes"] = [{"alg": "SHA-256", "content": known[name, version]}]
            components.append(component)
        dependencies.append({"ref": reference(name, version), "dependsOn": needs})
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": subject},
        "components": components,
        "dependencies": dependencies,
    }
    print(json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False))


main()
