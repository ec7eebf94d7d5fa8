"""Fine-tunes a sentence encoder on a labelled corpus. Needs the [finetune] extra (torch)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raxe_fast.training.encoder_restore import encoder_folder
from raxe_fast.training.encoder_source import load_source
from raxe_fast.training.finetune_inputs import Inputs
from raxe_fast.training.finetune_options import FinetuneOptions
from raxe_fast.training.finetune_trainer import Report, Trainer
from raxe_fast.training.folds import check_holdout
from raxe_fast.training.pairs import with_pairs

__all__ = ["FinetuneOptions", "finetune"]


def finetune(
    corpus: Path | str,
    encoder: Path | str,
    output: Path | str,
    options: FinetuneOptions | None = None,
    *,
    resume: bool = False,
    report: Report | None = None,
) -> dict[str, Any]:
    """Fine-tunes ``encoder`` on the train split of ``corpus`` less the hold-out fold, and writes
    the result to ``output`` (see finetune_output). Returns what finetune.json holds.

    ``encoder`` is what load_source accepts, or a trained model (a .raxe file or its directory): the
    run then goes on from that model's encoder and linear heads. Such a run must keep the hold-out
    fold of the model, or its heads would learn from texts that the encoder has seen.

    ``report`` gets every log entry as it is made. While it runs, ``output`` holds a checkpoint
    that ``resume`` continues from with the same result as a run that was never interrupted (on the
    same machine with the same number of threads, and without a time limit).

    Raises CorpusError, ModelNotFoundError, ModelFormatError (encoder or checkpoint), ValueError
    (options, device, an encoder with another hold-out fold).
    """
    options = options or FinetuneOptions()
    with encoder_folder(encoder, options.holdout) as folder:
        check_holdout(folder, options.holdout)
        source = with_pairs(load_source(folder), options.pair_rows)
        trainer = Trainer(Inputs.read(Path(corpus), source, options), source, options, Path(output))
        trainer.report = report
        if resume:
            trainer.resume()
        return trainer.run()
