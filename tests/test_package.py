"""The packed model: deterministic bytes, true hashes, nothing left out."""

from __future__ import annotations

import hashlib
import json
import os
import random
import zipfile

import numpy as np
import pytest

from raxe_fast.errors import ModelFormatError
from raxe_fast.training.package import model_files, pack, save_selftest, write_json, write_manifest

CONTENT = {
    "encoder.onnx": os.urandom(5000),
    "tokenizer.json": b'{"a": 1}' * 100,
    "heads/binary.treelite": b"tree" * 1000,
    "calibration.json": b"{}",
}


def make(folder):
    for name, data in CONTENT.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (folder / "report.json").write_text("not a member")
    write_manifest(folder, {"schema": 1, "id": "t"}, list(CONTENT))
    return folder


def test_manifest_tells_the_truth(tmp_path):
    folder = make(tmp_path / "m")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert list(manifest["files"]) == sorted(CONTENT)
    for name, data in CONTENT.items():
        assert manifest["files"][name] == {
            "sha256": hashlib.sha256(data).hexdigest(),
            "size": len(data),
        }


def test_archive_is_deterministic_and_complete(tmp_path):
    first, second = make(tmp_path / "1"), make(tmp_path / "2")
    for name in CONTENT:  # times and modes of the files must not matter
        os.utime(second / name, (1, 1))
        (second / name).chmod(0o600)
    pack(first, tmp_path / "1.raxe")
    pack(second, tmp_path / "2.raxe")
    assert (tmp_path / "1.raxe").read_bytes() == (tmp_path / "2.raxe").read_bytes()
    with zipfile.ZipFile(tmp_path / "1.raxe") as archive:
        assert archive.testzip() is None
        infos = archive.infolist()
        assert [info.filename for info in infos] == sorted([*CONTENT, "manifest.json"])
        assert {info.date_time for info in infos} == {(1980, 1, 1, 0, 0, 0)}
        for info in infos:
            assert archive.read(info) == (first / info.filename).read_bytes()


def test_members_are_deflated_where_that_saves_a_tenth(tmp_path):
    folder = tmp_path / "m"
    folder.mkdir()
    noise = random.Random(3).randbytes(4000)
    content = {"noise": noise, "less": noise + bytes(400), "more": noise + bytes(600), "empty": b""}
    for name, data in content.items():
        (folder / name).write_bytes(data)
    write_manifest(folder, {"schema": 1, "id": "t"}, list(content))
    pack(folder, tmp_path / "m.raxe")
    with zipfile.ZipFile(tmp_path / "m.raxe") as archive:
        stored = {i.filename for i in archive.infolist() if i.compress_type == zipfile.ZIP_STORED}
        # Of "less" 391 of 4,400 bytes could be saved, of "more" 591 of 4,600.
        assert stored == {"noise", "less", "empty"}
        assert {i.filename: archive.read(i) for i in archive.infolist()}["less"] == content["less"]


def test_a_changed_member_changes_the_manifest(tmp_path):
    folder = make(tmp_path / "m")
    before = (folder / "manifest.json").read_bytes()
    (folder / "calibration.json").write_bytes(b"[]")
    write_manifest(folder, {"schema": 1, "id": "t"}, list(CONTENT))
    assert (folder / "manifest.json").read_bytes() != before


def test_bad_manifests_are_named(tmp_path):
    with pytest.raises(ModelFormatError, match=r"manifest\.json"):
        model_files(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ModelFormatError, match="unreadable"):
        pack(tmp_path, tmp_path / "x.raxe")


def test_json_holds_no_nan(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "x.json", {"a": float("nan")})


def test_selftest_arrays(tmp_path):
    ids = [np.array([101, 5, 102]), np.array([101, 102])]
    save_selftest(tmp_path / "s.npz", ids, np.ones((2, 4), np.float32), *[np.ones((2, 2))] * 3)
    with np.load(tmp_path / "s.npz", allow_pickle=False) as data:
        assert data["token_ids"].tolist() == [101, 5, 102, 101, 102]
        assert data["offsets"].tolist() == [0, 3, 5]
        assert data["embeddings"].dtype == np.float32
        assert data["binary"].dtype == np.float64
        assert "rows" not in data
    rows = np.arange(10.0).reshape(2, 5)
    save_selftest(tmp_path / "r.npz", ids, np.ones((2, 4)), *[np.ones((2, 2))] * 3, rows)
    with np.load(tmp_path / "r.npz", allow_pickle=False) as data:
        assert data["rows"].dtype == np.float32 and data["rows"].tolist() == rows.tolist()
