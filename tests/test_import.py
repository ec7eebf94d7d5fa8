"""Importing the package is cheap and leaves no trace."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = ["numpy", "onnxruntime", "tokenizers", "rich", "sklearn", "onnx", "treelite", "torch"]


def run(code: str) -> dict:
    out = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    return json.loads(out.stdout)


def test_import_loads_nothing_heavy_and_sets_no_variable():
    found = run(
        "import json, os, sys\n"
        "before = dict(os.environ)\n"
        "import raxe_fast\n"
        f"heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "print(json.dumps({'heavy': heavy, 'same': before == dict(os.environ)}))"
    )
    assert found == {"heavy": [], "same": True}


def test_scanner_class_loads_no_onnxruntime_before_a_model():
    found = run(
        "import json, os, sys\n"
        "before = dict(os.environ)\n"
        "from raxe_fast import Scanner, load_model\n"
        "heavy = [n for n in ('onnxruntime', 'tokenizers', 'rich') if n in sys.modules]\n"
        "print(json.dumps({'heavy': heavy, 'same': before == dict(os.environ)}))"
    )
    assert found == {"heavy": [], "same": True}


def test_scanning_sets_no_variable_and_needs_no_training_package(tiny_model):
    found = run(
        "import json, os, sys\n"
        "before = dict(os.environ)\n"
        "import raxe_fast\n"
        f"raxe_fast.scan('What is the capital of France?', model={str(tiny_model)!r})\n"
        "heavy = [n for n in ('rich', 'sklearn', 'onnx', 'treelite', 'torch') "
        "if n in sys.modules]\n"
        "print(json.dumps({'heavy': heavy, 'same': before == dict(os.environ)}))"
    )
    assert found == {"heavy": [], "same": True}


def test_everything_promised_is_there():
    import raxe_fast

    for name in raxe_fast.__all__:
        assert getattr(raxe_fast, name) is not None
        assert name in dir(raxe_fast)
    assert raxe_fast.__version__.count(".") == 2
