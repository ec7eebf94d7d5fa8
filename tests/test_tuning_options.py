"""The command line of fine-tuning says what the options say."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import fields, replace

import pytest

from raxe_fast.cli.finetune import add_parser
from raxe_fast.cli.tuning import tuning_options
from raxe_fast.training.finetune_options import FinetuneOptions, LossWeights


def parse(*arguments: str) -> Namespace:
    parser = ArgumentParser()
    add_parser(parser.add_subparsers())
    return parser.parse_args(["finetune", "--corpus", "in", "--output", "out", *arguments])


def test_without_arguments_the_options_are_those_of_the_library():
    assert tuning_options(parse()) == FinetuneOptions()
    assert parse().smoothing == LossWeights().smoothing


@pytest.mark.parametrize(
    ("arguments", "changes"),
    [
        (["--max-tokens", "300", "--long-tokens", "320"], {"max_tokens": 300, "long_tokens": 320}),
        (["--long-every", "3"], {"long_every": 3}),
        (["--mine-pool", "20000"], {"mine_pool": 20000}),
        (["--dropout", "0.1", "--noise", "0.08"], {"dropout": 0.1, "noise": 0.08}),
        (
            ["--source-weight", "own:=2", "--seed", "7"],
            {"source_weights": (("own:", 2.0),), "seed": 7},
        ),
    ],
)
def test_an_argument_changes_its_option_and_no_other(arguments, changes):
    found = tuning_options(parse(*arguments))
    assert found == replace(FinetuneOptions(), **changes)
    assert {f.name for f in fields(FinetuneOptions) if f.name in changes} == set(changes)


@pytest.mark.parametrize(
    "arguments", [["--long-tokens", "100"], ["--max-tokens", "300"], ["--noise", "1"]]
)
def test_values_out_of_range_are_refused(arguments):
    with pytest.raises(ValueError, match="must be"):
        tuning_options(parse(*arguments))


@pytest.mark.parametrize("value", [1.0, -0.1, float("nan")])
def test_smoothing_stays_within_its_range(value):
    with pytest.raises(ValueError, match="smoothing"):
        LossWeights(smoothing=value)
