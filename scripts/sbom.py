"""Checks that an SBOM (CycloneDX) names every crate of a binary that cargo-auditable has built."""

import json
import pathlib
import subprocess
import sys
import tempfile
import zlib


def crates_of(binary: str) -> set[tuple[str, str]]:
    """Names and versions in the section that cargo-auditable adds, without build dependencies."""
    with tempfile.TemporaryDirectory() as directory:
        section = pathlib.Path(directory, "section")
        copy = pathlib.Path(directory, "copy")
        subprocess.run(["objcopy", "--dump-section", f".dep-v0={section}", binary, copy], check=True)
        packages = json.loads(zlib.decompress(section.read_bytes()))["packages"]
    return {(crate["name"], crate["version"]) for crate in packages if crate.get("kind", "runtime") == "runtime"}


def main() -> None:
    binary, sbom = sys.argv[1:]
    with open(sbom, encoding="utf-8") as file:
        document = json.load(file)
    listed = {(part["name"], part["version"]) for part in document["components"]}
    listed.add((document["metadata"]["component"]["name"], document["metadata"]["component"]["version"]))
    crates = crates_of(binary)
    missing = sorted(crates - listed)
    if not crates or missing:
        sys.exit(f"sbom.py: {sbom} lacks {missing or 'every crate'}")
    print(f"{sbom} names all {len(crates)} crates of {binary}")


main()
