"""Distils a fine-tuned encoder into a smaller one. Needs the [finetune] extra (torch)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from raxe_fast.training.distill_loss import Distiller, DistillWeights
from raxe_fast.training.distill_online import OnlineDistiller, read_teacher
from raxe_fast.training.encoder_export import prepare_tokenizer
from raxe_fast.training.encoder_restore import encoder_folder
from raxe_fast.training.encoder_source import load_source
from raxe_fast.training.finetune_inputs import Inputs
from raxe_fast.training.finetune_options import FinetuneOptions
from raxe_fast.training.finetune_trainer import Report, Trainer
from raxe_fast.training.folds import check_holdout
from raxe_fast.training.leave_out import left_out_ids
from raxe_fast.training.pairs import with_pairs
from raxe_fast.training.student import Shape, make_student
from raxe_fast.training.teacher import teach

__all__ = ["DistillWeights", "FinetuneOptions", "Shape", "distill"]


def distill(
    corpus: Path | str,
    teacher: Path | str | Sequence[Path | str],
    output: Path | str,
    shape: Shape,
    options: FinetuneOptions | None = None,
    *,
    weights: DistillWeights | None = None,
    work: Path | str | None = None,
    jobs: int = 2,
    resume: bool = False,
    report: Report | None = None,
    leave_out: Sequence[str] | None = None,
    beside: bool = False,
    unlabelled: float = 0.0,
) -> dict[str, Any]:
    """Trains a student of ``shape`` for the labels of ``corpus`` and for what ``teacher`` makes of
    its texts, and writes it to ``output`` as :func:`~raxe_fast.training.finetune.finetune` does.

    ``teacher`` is a directory that fine-tuning wrote, or a trained model. The hold-out fold must be
    the teacher's: neither has seen it then. ``work`` keeps the teacher's embeddings (default:
    beside ``output``). ``leave_out``: words that the student does not read, and the teacher does
    (default: the student reads what the teacher does).

    With ``beside`` the teacher reads every window along with the student instead (see
    distill_online); that is worth it on a GPU, and ``teacher`` may then be several, asked as one.
    A student of their own shape begins as the first of them. ``unlabelled`` is how many tokens of
    windows without labels are read for every token with one (see
    :class:`~raxe_fast.training.unlabelled.UnlabelledWindows`).

    Raises what :func:`~raxe_fast.training.finetune.finetune` raises, ValueError for a shape that
    does not fit the teacher, for several teachers or ``unlabelled`` windows without ``beside`` and
    for a teacher that kept another fold from its tuning, ModelFormatError for a teacher of other
    classes, and WordListError for what is no list of words.
    """
    options = options or FinetuneOptions()
    target = Path(output)
    teachers = [teacher] if isinstance(teacher, (str, Path)) else list(teacher)
    if not teachers or (len(teachers) > 1 and not beside):
        raise ValueError("there must be one teacher, or more that read beside their student")
    if unlabelled < 0 or (unlabelled > 0 and not beside):
        raise ValueError("unlabelled must not be negative, and needs a teacher that reads beside")
    with ExitStack() as stack:
        folders = [stack.enter_context(encoder_folder(t, options.holdout)) for t in teachers]
        for folder in folders:
            check_holdout(folder, options.holdout)
        source = load_source(folders[0])
        student = make_student(source, shape, options.seed, left_out=leave_out)
        student = with_pairs(student, options.pair_rows)
        if not beside:
            inputs = Inputs.read(Path(corpus), student, options)
            targets = teach(
                folders[0],
                inputs.train,
                inputs.classes,
                work if work is not None else target.with_name(f".{target.name}.teacher"),
                max_tokens=options.max_tokens - 2,
                jobs=jobs,
            )
            trainer = Trainer(inputs, student, options, target)
            trainer.learn_from(Distiller(trainer.network, targets, weights or DistillWeights()))
        else:
            skipped = left_out_ids(source, student)
            # Windows are cut from the tokens that the teachers read; figures are the student's own.
            inputs = Inputs.read(Path(corpus), source, options)
            inputs = replace(inputs, tokenizer=prepare_tokenizer(student)[0].decode())
            trainer = Trainer(inputs, student, options, target)
            network = trainer.network
            readers = [read_teacher(folder, network) for folder in folders]
            trainer.learn_beside(
                OnlineDistiller(network, readers, weights or DistillWeights(), skipped), unlabelled
            )
        trainer.report = report
        if resume:
            trainer.resume()
        return trainer.run()
