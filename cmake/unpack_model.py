"""Unpacks a .raxe (a zip) into a directory, replacing it: unpack_model.py MODEL.raxe DIRECTORY.

Runs at configure time with the standard library alone. Files that already hold the same bytes are
left untouched, so nothing that depends on them is built again; files that the .raxe does not name
are removed. Every member listed in manifest.json is checked against its size and SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import sys
import zipfile
from pathlib import Path, PurePosixPath


def safe_name(name: str) -> bool:
    """Whether `name` stays inside the directory it is unpacked to."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def unpack(archive: Path, target: Path) -> None:
    """Raises ValueError where the archive does not hold what its manifest says."""
    with zipfile.ZipFile(archive) as bundle:
        members = {i.filename: bundle.read(i) for i in bundle.infolist() if not i.is_dir()}
    if bad := [name for name in members if not safe_name(name) or "\\" in name]:
        raise ValueError(f"{archive}: unsafe member name {bad[0]!r}")
    if "manifest.json" not in members:
        raise ValueError(f"{archive}: no manifest.json")
    listed = json.loads(members["manifest.json"])["files"]
    if missing := sorted(set(listed) - set(members)):
        raise ValueError(f"{archive}: missing member {missing[0]}")
    for name, entry in listed.items():
        data = members[name]
        if len(data) != entry["size"] or hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise ValueError(f"{archive}: {name} differs from the manifest")

    for name, data in members.items():
        path = target / name
        if path.is_file() and path.read_bytes() == data:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    for path in target.rglob("*"):
        if path.is_file() and path.relative_to(target).as_posix() not in members:
            path.unlink()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: unpack_model.py MODEL.raxe DIRECTORY")
    try:
        unpack(Path(sys.argv[1]), Path(sys.argv[2]))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        sys.exit(f"unpack_model.py: {error}")
