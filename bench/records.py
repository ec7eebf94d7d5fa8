"""JSON records: indented to be read, but a row of numbers on one line."""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["dump_record"]

# Only numbers and nulls, so never a string, in which a line break is escaped anyway.
_ROW = re.compile(r"\[\n[-+.\deEnul,\s]*\]")


def dump_record(record: Any) -> str:
    """The record as JSON with a line break at its end. Raises ValueError for NaN and infinities,
    which are no JSON."""
    text = json.dumps(record, indent=1, allow_nan=False)
    return _ROW.sub(lambda found: re.sub(r"\s+", "", found[0]), text) + "\n"
