#!/usr/bin/env python3
"""Write confusables_ascii.txt: the letters and numbers that look like one ASCII letter or digit.

The data are those of UTS #39 (confusables.txt), read through ICU's spoof checker, because Debian's
unicode-data package leaves the security files out. A character is listed where its skeleton,
without combining marks, is a single ASCII letter or digit; "rn", the skeleton of "m", counts as m.
Run by hand when the Unicode version is raised; generate_unicode_tables.py reads the result.
"""

from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import re
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path


def skeleton_function() -> tuple[Callable[[str], str], str]:
    """ICU's skeleton(str) -> str and the ICU version; raises OSError where ICU is not installed."""
    name = ctypes.util.find_library("icui18n")
    if name is None:
        raise OSError("libicui18n is not installed")
    match = re.search(r"\.so\.(\d+)", name)
    if match is None:
        raise OSError(f"cannot tell the ICU version of {name}")
    version = match.group(1)
    library = ctypes.CDLL(name)
    error = ctypes.c_int(0)
    opener = getattr(library, f"uspoof_open_{version}")
    opener.restype = ctypes.c_void_p
    checker = opener(ctypes.byref(error))
    if error.value > 0:
        raise OSError(f"uspoof_open failed with code {error.value}")
    get = getattr(library, f"uspoof_getSkeletonUTF8_{version}")
    get.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_char_p,
        ctypes.c_int32,
        ctypes.c_char_p,
        ctypes.c_int32,
        ctypes.POINTER(ctypes.c_int),
    ]

    def skeleton(text: str) -> str:
        data = text.encode()
        out = ctypes.create_string_buffer(256)
        status = ctypes.c_int(0)
        size = get(checker, 0, data, len(data), out, len(out), ctypes.byref(status))
        if status.value > 0:
            raise OSError(f"uspoof_getSkeletonUTF8 failed with code {status.value}")
        return out.raw[:size].decode()

    return skeleton, version


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).with_name("confusables_ascii.txt")
    parser.add_argument("--output", type=Path, default=default)
    arguments = parser.parse_args()
    skeleton, version = skeleton_function()
    lines = [
        "# Characters whose UTS #39 skeleton is one ASCII letter or digit (marks removed).",
        f"# Extracted from ICU {version} by extract_confusables.py.",
        "# Unicode data: Copyright (c) 1991-2022 Unicode, Inc., https://www.unicode.org/license.txt",
    ]
    for code in range(0x80, 0x110000):
        if 0xD800 <= code < 0xE000:
            continue
        result = "".join(
            c
            for c in unicodedata.normalize("NFD", skeleton(chr(code)))
            if unicodedata.category(c) not in ("Mn", "Me")
        )
        result = "m" if result == "rn" else result
        if len(result) == 1 and result.isascii() and result.isalnum():
            lines.append(f"{code:04X} {result}")
    arguments.output.write_text("\n".join(lines) + "\n", encoding="ascii")
    print(f"{len(lines) - 3} characters")
    return 0


if __name__ == "__main__":
    sys.exit(main())
