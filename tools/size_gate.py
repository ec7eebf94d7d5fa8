"""Fails if the wheel or the model inside it is over its limit. Usage: size_gate.py WHEEL"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

# Two models ship: the default one with its screening network, and the small one.
WHEEL_LIMIT_MB = 46.0
MODEL_LIMIT_MB = 50.0


def main(wheel: Path) -> int:
    wheel_mb = wheel.stat().st_size / 1e6
    with zipfile.ZipFile(wheel) as archive:
        infos = archive.infolist()
    model_bytes = sum(i.file_size for i in infos if i.filename.startswith("raxe_fast/models/"))
    unpacked_mb = sum(i.file_size for i in infos) / 1e6
    model_mb = model_bytes / 1e6
    print(f"wheel {wheel_mb:.1f} MB (limit {WHEEL_LIMIT_MB:.0f}), unpacked {unpacked_mb:.1f} MB")
    print(f"models {model_mb:.1f} MB (limit {MODEL_LIMIT_MB:.0f})")
    if model_bytes == 0:
        print("the wheel holds no model", file=sys.stderr)
        return 1
    return int(wheel_mb > WHEEL_LIMIT_MB or model_mb > MODEL_LIMIT_MB)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
