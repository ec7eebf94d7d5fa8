"""Fails if the wheel or a model inside it is over its limit. Usage: size_gate.py WHEEL"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

# Two models ship: the default one with its screening network, and the small one.
WHEEL_LIMIT_MB = 54.0
MODEL_LIMIT_MB = 50.0  # of each, unpacked
FOLDER = "raxe_fast/models/"


def main(wheel: Path) -> int:
    wheel_mb = wheel.stat().st_size / 1e6
    with zipfile.ZipFile(wheel) as archive:
        infos = archive.infolist()
    models: dict[str, int] = {}
    for info in infos:
        if info.filename.startswith(FOLDER):
            name = info.filename.removeprefix(FOLDER).partition("/")[0]
            models[name] = models.get(name, 0) + info.file_size
    unpacked_mb = sum(i.file_size for i in infos) / 1e6
    print(f"wheel {wheel_mb:.1f} MB (limit {WHEEL_LIMIT_MB:.0f}), unpacked {unpacked_mb:.1f} MB")
    for name, size in models.items():
        print(f"model {name}: {size / 1e6:.1f} MB (limit {MODEL_LIMIT_MB:.0f})")
    if not models:
        print("the wheel holds no model", file=sys.stderr)
        return 1
    return int(wheel_mb > WHEEL_LIMIT_MB or max(models.values()) / 1e6 > MODEL_LIMIT_MB)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
