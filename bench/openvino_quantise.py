"""Makes an INT8 OpenVINO network of an encoder with NNCF, in the rival's own environment.

    python -I openvino_quantise.py ENCODER.onnx IDS.json OUTPUT.xml

IDS.json: token id rows of the texts that NNCF calibrates on.
"""

from __future__ import annotations

import json
import socket
import sys
from typing import NoReturn

import numpy as np


def refuse(*_: object, **__: object) -> NoReturn:
    raise OSError("the network is off in this benchmark")


def main(encoder: str, rows: str, output: str) -> int:
    socket.socket.connect = refuse  # type: ignore[method-assign]
    import nncf  # type: ignore[import-not-found]
    import openvino  # type: ignore[import-not-found]

    with open(rows, encoding="utf-8") as file:
        inputs = [{"input_ids": np.array([row], dtype=np.int64)} for row in json.load(file)]
    network = nncf.quantize(
        openvino.Core().read_model(encoder),
        nncf.Dataset(inputs),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(inputs),
    )
    openvino.save_model(network, output, compress_to_fp16=False)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
