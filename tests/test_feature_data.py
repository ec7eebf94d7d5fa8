"""features.npz: round trip, and a ValueError for everything that is not one."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import fields, replace

import numpy as np
import pytest

from raxe_fast import ModelFormatError, load_model
from raxe_fast.feature_data import (
    SURFACE,
    FeatureData,
    core_features,
    decode_features,
    feature_sizes,
)
from raxe_fast.manifest import FEATURES, parse_manifest, row_size
from raxe_fast.parts import TriggerInfo
from raxe_fast.training.feature_parts import save_features

HIDDEN = 6
FAMILIES = ("jailbreak", "prompt_injection")


def trigger(name, family, weight=0.5):
    return TriggerInfo(name, family, "x", "low", weight, "says it", [], ["it"])


def example(seed=0):
    random = np.random.default_rng(seed)

    def floats(*shape):
        return random.normal(size=shape).astype(np.float32)

    return FeatureData(
        linear_weight=floats(3, HIDDEN),
        linear_bias=floats(3),
        linear_names=("attack", "family:jailbreak", "subfamily:jailbreak/\u00e9"),
        passage_weight=floats(HIDDEN),
        passage_bias=0.25,
        lexical_table=random.integers(-127, 128, (16, 1), dtype=np.int8),
        lexical_scale=np.abs(floats(1)),
        lexical_bias=floats(1),
        label_table=random.integers(-127, 128, (8, 4), dtype=np.int8),
        label_scale=np.abs(floats(4)),
        label_bias=floats(4),
    )


@pytest.fixture
def arrays(tmp_path):
    """The arrays of a good file, to be damaged."""
    save_features(tmp_path / "f.npz", example())
    return dict(np.load(tmp_path / "f.npz"))


def packed(arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def test_round_trip(tmp_path):
    data = example()
    save_features(tmp_path / "f.npz", data)
    read = decode_features((tmp_path / "f.npz").read_bytes(), HIDDEN)
    for item in fields(FeatureData):
        one, two = getattr(data, item.name), getattr(read, item.name)
        if isinstance(one, np.ndarray):
            assert one.dtype == two.dtype and two.flags.c_contiguous
        np.testing.assert_array_equal(one, two)
    again = tmp_path / "again.npz"
    save_features(again, read)
    assert again.read_bytes() == (tmp_path / "f.npz").read_bytes()


def test_sizes_are_those_of_the_core():
    data = example()
    sizes = feature_sizes(data, len(FAMILIES))
    assert tuple(sizes) == FEATURES
    assert sizes == {
        "embedding": HIDDEN, "linear": 3, "passage": 1, "lexical": 1, "rules": 3,
        "surface": SURFACE, "labels": 4,
    }  # fmt: skip
    core = core_features(data, [], FAMILIES)
    assert (core.hidden, core.full_size) == (HIDDEN, sum(sizes.values()))
    assert core.size == core.full_size - 4


def test_triggers_of_unknown_families_share_a_place():
    infos = [trigger("a", "prompt_injection"), trigger("b", "unknown", 0.5),
             trigger("c", "other", 0.8)]  # fmt: skip
    core = core_features(example(), infos, FAMILIES)
    at = HIDDEN + 3 + 1 + 1

    def rules(*matched):
        matches = [(number, 0, 2) for number in matched]
        row = core.row(np.zeros(HIDDEN, np.float32), 0.0, "it", 0, 2, matches)
        return row[at : at + 3].tolist()

    assert rules() == [0, 0, 0]
    assert rules(0) == pytest.approx([0, 0.5, 0])
    assert rules(1, 1) == pytest.approx([0, 0, 0.5])
    assert rules(0, 1, 2) == pytest.approx([0, 0.5, 0.9])


# ---- malformed -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [item.name for item in fields(FeatureData)])
def test_missing_array(arrays, name):
    del arrays[name]
    with pytest.raises(KeyError, match=name):
        decode_features(packed(arrays), HIDDEN)


def damaged(change):
    def change_one(arrays):
        for name, value in change.items():
            arrays[name] = value(arrays[name])

    return change_one


NUMBERS = [item.name for item in fields(FeatureData) if item.name != "linear_names"]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(
    "spoil",
    [
        lambda a: a.astype(np.float64),
        lambda a: a[None],
        lambda a: a.astype(np.str_),
        lambda a: a.astype(a.dtype.newbyteorder()) if a.dtype.itemsize > 1 else a.astype(np.uint8),
    ],
    ids=["double", "rank", "text", "order"],
)
def test_another_kind_of_array(arrays, name, spoil):
    arrays[name] = spoil(arrays[name])
    with pytest.raises(ValueError, match=f"array '{name}' is"):
        decode_features(packed(arrays), HIDDEN)


@pytest.mark.parametrize("name", ["lexical_table", "label_table"])
@pytest.mark.parametrize("rows", [0, 1, 3, 12])
def test_tables_have_a_power_of_two_of_rows(arrays, name, rows):
    arrays[name] = np.zeros((rows, arrays[name].shape[1]), np.int8)
    with pytest.raises(ValueError, match=f"array '{name}' has {rows} rows"):
        decode_features(packed(arrays), HIDDEN)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"linear_names": lambda a: np.arange(3)}, "no list of names"),
        ({"linear_names": lambda a: a[None]}, "no list of names"),
        ({"linear_names": lambda a: a[:2]}, r"linear_weight.*\(2, 6\)"),
        ({"linear_weight": lambda a: a[:2]}, r"linear_weight.*\(3, 6\)"),
        ({"linear_weight": lambda a: a[:, :5].copy()}, r"linear_weight.*\(3, 6\)"),
    ],
)
def test_names_and_weights_fit(arrays, changes, message):
    damaged(changes)(arrays)
    with pytest.raises(ValueError, match=message):
        decode_features(packed(arrays), HIDDEN)


def test_another_hidden_size(arrays):
    with pytest.raises(ValueError, match="linear_weight"):
        decode_features(packed(arrays), HIDDEN + 1)


@pytest.mark.parametrize("data", [b"", b"PK", b"no zip at all"])
def test_no_archive(data):
    with pytest.raises(ValueError):
        decode_features(data, HIDDEN)


def test_truncated_and_altered_archives(arrays):
    data = packed(arrays)
    for cut in range(0, len(data), 37):
        with pytest.raises((ValueError, KeyError)):
            decode_features(data[:cut], HIDDEN)
    good = decode_features(data, HIDDEN)
    for at in range(0, len(data), 11):
        altered = bytearray(data)
        altered[at] ^= 0x55
        try:
            found = decode_features(bytes(altered), HIDDEN)
        except (ValueError, KeyError):
            continue
        # What is not noticed did no harm: dates, attributes.
        np.testing.assert_array_equal(found.linear_weight, good.linear_weight)


def test_objects_are_refused(arrays):
    arrays["linear_names"] = np.array(["a", "b", "c"], dtype=object)
    with pytest.raises(ValueError, match="object"):
        decode_features(packed(arrays), HIDDEN)


@pytest.mark.parametrize(
    "name", ["linear_weight", "linear_bias", "passage_weight", "lexical_scale", "lexical_bias",
             "label_scale", "label_bias"],
)  # fmt: skip
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_core_refuses_what_is_not_finite(name, value):
    data = example()
    array = getattr(data, name).copy()
    array.flat[-1] = value
    with pytest.raises(ValueError):
        core_features(replace(data, **{name: array}), [], FAMILIES)
    with pytest.raises(ValueError):
        core_features(replace(data, passage_bias=float(value)), [], FAMILIES)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("linear_bias", np.zeros(2, np.float32)),
        ("passage_weight", np.zeros(HIDDEN + 1, np.float32)),
        ("passage_weight", np.zeros(0, np.float32)),
        ("lexical_scale", np.ones(2, np.float32)),
        ("lexical_bias", np.zeros(0, np.float32)),
        ("label_scale", np.ones(3, np.float32)),
        ("label_bias", np.zeros(5, np.float32)),
    ],
)
def test_the_core_refuses_parts_that_do_not_fit(name, array):
    with pytest.raises(ValueError):
        core_features(replace(example(), **{name: array}), [], FAMILIES)


def test_the_n_grams_of_attacks_have_one_output():
    data = example()
    two = replace(
        data,
        lexical_table=np.zeros((16, 2), np.int8),
        lexical_scale=np.ones(2, np.float32),
        lexical_bias=np.zeros(2, np.float32),
    )
    with pytest.raises(ValueError):
        core_features(two, [], FAMILIES)


@pytest.mark.parametrize("weight", [1.0, -0.1, np.nan])
def test_the_core_refuses_weights_of_triggers(weight):
    with pytest.raises(ValueError):
        core_features(example(), [trigger("a", "jailbreak", weight)], FAMILIES)


# ---- in a model ----------------------------------------------------------------------------------


@pytest.fixture
def model(rich_model, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(rich_model, tmp_path / "model")


def reseal(folder, **changes):
    from raxe_fast.training.package import write_manifest

    manifest = json.loads((folder / "manifest.json").read_text())
    members = list(manifest.pop("files"))
    write_manifest(folder, {**manifest, **changes}, members)


def test_the_manifest_says_how_long_rows_are(rich_model):
    manifest = load_model(rich_model).manifest
    assert tuple(manifest.features) == FEATURES
    sizes = manifest.features
    assert sizes["rules"] == len(manifest.families) + 1
    assert row_size(manifest, "family") == row_size(manifest, "subfamily") == sum(sizes.values())
    assert row_size(manifest, "binary") == sum(sizes.values()) - sizes["labels"]


def test_malformed_features_behind_right_hashes(model, arrays):
    for data in (b"", b"PK", packed(arrays), packed({"a": np.zeros(3)})):
        (model / "features.npz").write_bytes(data)
        reseal(model)
        with pytest.raises(ModelFormatError) as caught:
            load_model(model)
        assert caught.value.member == "features.npz"


@pytest.mark.parametrize("name", ["linear_weight", "lexical_scale", "label_bias"])
def test_values_that_are_not_finite(model, name):
    stored = dict(np.load(model / "features.npz"))
    stored[name].flat[0] = np.nan
    np.savez_compressed(model / "features.npz", **stored)
    reseal(model)
    with pytest.raises(ModelFormatError, match=r"finite|NaN") as caught:
        load_model(model)
    assert caught.value.member == "features.npz"


def test_other_lengths_than_the_manifest_says(model):
    stored = dict(np.load(model / "features.npz"))
    for name in ("linear_weight", "linear_bias", "linear_names"):
        stored[name] = stored[name][:-1]
    np.savez_compressed(model / "features.npz", **stored)
    reseal(model)
    with pytest.raises(ModelFormatError, match="the manifest says") as caught:
        load_model(model)
    assert caught.value.member == "features.npz"


def without(items, name):
    return [item for item in items if item["name"] != name]


def test_bad_blocks_in_the_manifest(model):
    path = model / "manifest.json"
    good = json.loads(path.read_text())
    items = good["features"]
    for changed, message in (
        (without(items, "surface"), "features must hold"),
        ([*items, {"name": "more", "size": 1}], "features must hold"),
        ([items[1], items[0], *items[2:]], "'embedding' expected"),
        ([*items[:-1], {"name": "labels", "size": 0}], "size"),
        ([*items[:-1], {"name": "labels"}], "size"),
        ([{"name": "embedding", "size": 31}, *items[1:]], "size is 31"),
    ):
        with pytest.raises(ModelFormatError, match=message):
            parse_manifest(json.dumps({**good, "features": changed}).encode(), "model")
    files = {name: entry for name, entry in good["files"].items() if name != "features.npz"}
    with pytest.raises(ModelFormatError, match=r"does not list features\.npz"):
        parse_manifest(json.dumps({**good, "files": files}).encode(), "model")


def test_a_block_too_long_for_the_forest(model):
    """The surface block one longer: neither features.npz nor the forests agree."""
    manifest = json.loads((model / "manifest.json").read_text())
    items = [{**item, "size": item["size"] + (item["name"] == "surface")}
             for item in manifest["features"]]  # fmt: skip
    reseal(model, features=items)
    with pytest.raises(ModelFormatError, match="the manifest says"):
        load_model(model)


def test_a_plain_forest_in_a_model_with_features(model, tiny_model):
    """Which of them sees labels is not a matter of taste."""
    shutil.copy(model / "heads/family.treelite", model / "heads/binary.treelite")
    reseal(model)
    with pytest.raises(ModelFormatError, match="manifest says") as caught:
        load_model(model)
    assert caught.value.member == "heads/binary.treelite"
    shutil.copy(tiny_model / "heads/binary.treelite", model / "heads/binary.treelite")
    reseal(model)
    with pytest.raises(ModelFormatError, match="manifest says") as caught:
        load_model(model)
    assert caught.value.member == "heads/binary.treelite"
