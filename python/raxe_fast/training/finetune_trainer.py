"""The training loop: schedule, steps, mining, evaluation, checkpoints."""

from __future__ import annotations

import hashlib
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from raxe_fast.training.encoder_source import EncoderSource
from raxe_fast.training.finetune_checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from raxe_fast.training.finetune_data import payload_places
from raxe_fast.training.finetune_eval import Evaluator, score_rows
from raxe_fast.training.finetune_inputs import Inputs
from raxe_fast.training.finetune_model import (
    Network,
    choose_device,
    choose_precision,
    evidence_loss,
    multi_task_loss,
    strongest,
    with_noise,
)
from raxe_fast.training.finetune_options import FREE, FinetuneOptions, plain
from raxe_fast.training.finetune_output import write_output
from raxe_fast.training.finetune_sampler import (
    Batch,
    SamplerOptions,
    epoch_batches,
    epoch_size,
    mined_weights,
)
from raxe_fast.training.finetune_whole import (
    highest,
    in_windows,
    outside_loss,
    worst_windows,
)
from raxe_fast.training.folds import own_sources, restored_from
from raxe_fast.training.hardware import hardware
from raxe_fast.training.metrics import Ints
from raxe_fast.training.unlabelled import UnlabelledWindows

if TYPE_CHECKING:
    from raxe_fast.training.distill_loss import Distiller
    from raxe_fast.training.distill_online import Lesson, OnlineDistiller

__all__ = ["Report", "Trainer"]

Report = Callable[[Mapping[str, Any]], None]

_MIN_FACTOR = 0.02
_LOG_STEPS = 50


class Trainer:
    """One run: made from its inputs, perhaps resumed, run once."""

    def __init__(
        self, inputs: Inputs, source: EncoderSource, options: FinetuneOptions, output: Path
    ) -> None:
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        self.inputs, self.options, self.output = inputs, options, output
        device = choose_device(options.device)
        precision = choose_precision(options.precision, device)
        self.network = Network(
            source,
            inputs.classes,
            device=device,
            precision=precision,
            seed=options.seed,
            dropout=options.dropout,
        )
        self.optimiser = torch.optim.AdamW(
            self.network.parameter_groups(options.rate, options.head_rate, options.weight_decay),
            fused=True,
        )
        self.rates = [group["lr"] for group in self.optimiser.param_groups]
        self.distiller: Distiller | None = None
        self.beside: OnlineDistiller | None = None
        self.unlabelled: UnlabelledWindows | None = None
        self.share = 0.0
        positions = int(source.number("max_position_embeddings", 512))
        self.sampler = SamplerOptions(
            samples=options.samples or len(inputs.train),
            max_tokens=options.max_tokens,
            long_tokens=max(options.max_tokens, min(options.long_tokens, positions)),
            long_every=options.long_every,
            source_weights=options.source_weights,
            batch_tokens=options.batch_tokens,
            text_tokens=None if options.overlap_tokens is None else options.text_tokens,
            seed=options.seed,
        )
        window = min(source.max_tokens or 256, positions, options.batch_tokens)
        if options.overlap_tokens is not None:
            window = min(window, options.max_tokens)
        self.dev, self.final_dev, self.held = (
            Evaluator(
                records, inputs.tokenizer, window, limit, options.seed, options.overlap_tokens
            )
            for records, limit in (
                (inputs.dev, options.eval_texts),
                (inputs.dev, None),
                (inputs.held, options.eval_texts),
            )
        )
        self.total = options.epochs * epoch_size(inputs.train, self.sampler)
        self.epoch = self.batch = self.step = self.seen = self.tokens = self.evaluated = 0
        self.before = self.training_seconds = 0.0
        self.started = time.monotonic()
        self.saved = self.started
        self.log: list[dict[str, Any]] = []
        self.losses: deque[float] = deque(maxlen=100)
        self.weights = np.ones(len(inputs.train))
        self.scores = np.full(len(inputs.train), np.nan)
        self.report: Report | None = None

    def learn_from(self, distiller: Distiller) -> None:
        """Adds the targets of a teacher; before the run."""
        self.distiller = distiller
        self._train_also(distiller.projection)

    def learn_beside(self, beside: OnlineDistiller, unlabelled: float = 0.0) -> None:
        """Adds teachers that read along; before the run. Where whole texts are learnt from, they
        teach in every window, and the label is asked of the worst. For every token of these they
        also teach in ``unlabelled`` tokens of windows that nobody wrote (see unlabelled)."""
        self.beside, self.share = beside, unlabelled
        self._train_also(beside.projection)
        if unlabelled > 0:
            self.unlabelled = UnlabelledWindows(
                self.inputs.train.tokens,
                self.inputs.specials,
                self.options.max_tokens - 2,
                self.options.seed,
                self.network.device,
            )

    def _train_also(self, module: nn.Module) -> None:
        rate = self.options.head_rate
        self.optimiser.add_param_group(
            {"params": list(module.parameters()), "lr": rate, "weight_decay": 0.0}
        )
        self.rates.append(rate)

    # ---- progress --------------------------------------------------------------------------------

    def seconds(self) -> float:
        return self.before + time.monotonic() - self.started

    def progress(self) -> float:
        """0 to 1; 1 when the samples or the time are used up."""
        done = self.seen / self.total
        if self.options.max_minutes is not None:
            limit = self.options.max_minutes * 60
            if self.tokens:
                # The last evaluations: forward passes only, about a third of a training step.
                # A first step can be a hundred times as slow as the others, on a GPU above all: it
                # must not make a run end that has hardly begun.
                rate = self.tokens / max(self.training_seconds, 1e-9)
                reserved = (self.final_dev.tokens + self.held.tokens) / (2.5 * rate)
                limit -= min(reserved, limit / 2)
            done = max(done, self.seconds() / max(limit, 1e-9))
        return min(1.0, done)

    def factor(self) -> float:
        done = self.progress()
        return min(1.0, done / self.options.warmup) * max(_MIN_FACTOR, 1 - done)

    def note(self, kind: str, **values: Any) -> None:
        entry = {
            "kind": kind,
            "step": self.step,
            "samples": self.seen,
            "epoch": self.epoch,
            "progress": round(self.progress(), 4),
            "minutes": round(self.seconds() / 60, 2),
            **values,
        }
        self.log.append(entry)
        if self.report is not None:
            self.report(entry)

    # ---- the loop --------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        self.output.mkdir(parents=True, exist_ok=True)
        self.network.modules.train()
        # Epochs differ from their expected size by a few draws; that must not start another one.
        epochs = math.ceil(self.options.epochs)
        while self.progress() < 1:
            self.run_epoch()
            if self.progress() >= 1 or self.epoch + 1 >= epochs:
                break
            self.mine()
            self.epoch, self.batch = self.epoch + 1, 0
            self.checkpoint()
        # The last evaluations take minutes: what was learnt must outlive them.
        self.checkpoint()
        return self.finish()

    def run_epoch(self) -> None:
        batches = epoch_batches(self.inputs.train, self.weights, self.sampler, self.epoch)
        for batch in batches[self.batch :]:
            began = time.monotonic()
            self.train_on(batch)
            self.training_seconds += time.monotonic() - began
            self.batch += 1
            if self.step % _LOG_STEPS == 0:
                speed = self.tokens / max(self.training_seconds, 1e-9)
                loss = float(np.mean(self.losses))
                self.note("train", loss=round(loss, 4), tokens_per_second=round(speed))
            if self.seen - self.evaluated >= self.options.eval_every:
                self.evaluated = self.seen
                self.note("dev", **self.dev(self.network, self.options.batch_tokens))
                self.checkpoint()
            elif time.monotonic() - self.saved > self.options.checkpoint_minutes * 60:
                self.checkpoint()
            if self.progress() >= 1:
                return

    def row(self, index: int, start: int, room: int) -> np.ndarray[Any, np.dtype[np.int32]]:
        first, last = self.inputs.specials
        window = self.inputs.train.tokens[index].ids[start : start + room]
        return np.concatenate([[first], window, [last]]).astype(np.int32)

    def windows(self, batch: Batch) -> tuple[Batch, Ints | None]:
        """What is read of a batch, and whose each window is where whole texts are learnt from."""
        overlap = self.options.overlap_tokens
        if overlap is None:
            return batch, None
        return in_windows(batch, self.inputs.train.tokens, self.options.max_tokens - 2, overlap)

    def rows(self, batch: Batch) -> list[np.ndarray[Any, np.dtype[np.int32]]]:
        """Token ids of the windows of a batch, with the special ones."""
        return [
            self.row(i, start, batch.room)
            for i, start in zip(batch.rows, batch.starts, strict=True)
        ]

    def train_on(self, batch: Batch) -> None:
        factor = self.factor()
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        train, device = self.inputs.train, self.network.device
        network, weights = self.network, self.options.loss
        windows, owners = self.windows(batch)
        ids, mask = network.batch(self.rows(windows))
        places = torch.from_numpy(payload_places(train, windows, ids.shape[1])).to(device)
        read = ids.numel()
        lesson: Lesson | None = None
        if self.beside is not None:
            ids, mask, places, lesson = self.beside.prepare(ids, mask, places)
        ids = with_noise(ids, mask, self.options.noise)
        index = list(batch.rows)
        label, family, subfamily = (
            torch.from_numpy(part[index]).to(device)
            for part in (train.label, train.family, train.subfamily)
        )
        states = network.states(ids, mask)
        pooled = embedding = network.pool(states, mask)
        evidence = network.evidence(states)
        peak = strongest(evidence, mask)
        loss = states.new_zeros(())
        if owners is not None:
            owner = torch.from_numpy(owners).to(device)
            logits = network.logits(embedding)[0]
            loss = loss + outside_loss(logits, places, weights)
            embedding = embedding[worst_windows(logits, owner, len(index))]
            peak = highest(peak, owner, len(index))
        loss = loss + multi_task_loss(network, embedding, label, family, subfamily, weights)
        loss = loss + evidence_loss(peak, evidence, label, places, weights)
        if self.distiller is not None:
            loss = loss + self.distiller.loss(network, embedding, index)
        if self.beside is not None and lesson is not None:
            loss = loss + self.beside.loss(network, pooled, evidence, mask, lesson)
            if self.unlabelled is not None:
                made = self.unlabelled.draw(round(self.share * read), self.step)
                loss = loss + self.beside.unlabelled_loss(network, *made)
                read += made[0].numel()
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(network.modules.parameters(), self.options.clip)
        self.optimiser.step()
        with torch.no_grad():
            self.scores[index] = network.logits(embedding)[0].cpu().double().numpy()
        self.losses.append(float(loss.item()))
        self.step, self.seen = self.step + 1, self.seen + len(batch.rows)
        self.tokens += read

    def mine(self) -> None:
        """Raise the weights of the hardest harmless texts for the next epoch.

        Scores from training are stale and made under dropout: they only choose the texts that are
        worth scoring again with the network as it is now.
        """
        train = self.inputs.train
        known = np.flatnonzero((train.label == 0) & np.isfinite(self.scores))
        pool = known[np.argsort(-self.scores[known], kind="stable")][: self.options.mine_pool]
        room = self.sampler.text_tokens or self.sampler.max_tokens - 2
        windows, owners = self.windows(Batch(tuple(pool.tolist()), (0,) * len(pool), room))
        rows = self.rows(windows)
        if self.beside is not None:
            rows = self.beside.narrow(rows)
        scores = score_rows(self.network, rows, self.options.batch_tokens)[0]
        fresh = np.full(len(train), -np.inf)
        np.maximum.at(fresh, pool if owners is None else pool[owners], scores)
        fresh[np.isneginf(fresh)] = np.nan
        self.weights = mined_weights(train, fresh, self.sampler)
        self.scores[:] = np.nan
        self.note("mine", scored=len(pool), raised=int((self.weights > 1).sum()))

    # ---- state -----------------------------------------------------------------------------------

    def identity(self) -> dict[str, Any]:
        """What must be equal for a checkpoint to be continued."""
        values = {k: v for k, v in plain(self.options).items() if k not in FREE}
        values["device"] = self.network.device.type
        values["precision"] = self.network.precision
        values["corpus"] = self.inputs.corpus_sha256
        values["tokenizer"] = hashlib.sha256(self.inputs.tokenizer.encode()).hexdigest()
        values["rows"] = self.inputs.rows_sha256
        values["classes"] = plain(self.inputs.classes)
        if self.distiller is not None:
            values |= self.distiller.identity()
        if self.beside is not None:
            values |= self.beside.identity() | {"unlabelled": self.share}
        words = self.network.source.tensor("embeddings.word_embeddings.weight")
        values["encoder"] = hashlib.sha256(words.tobytes()).hexdigest()
        return values

    def checkpoint(self) -> None:
        self.saved = time.monotonic()
        names = ("epoch", "batch", "step", "seen", "tokens", "evaluated", "training_seconds", "log")
        state = {name: getattr(self, name) for name in names}
        state |= {"seconds": self.seconds(), "losses": list(self.losses), "run": self.identity()}
        arrays = {
            "weights": torch.from_numpy(self.weights),
            "scores": torch.from_numpy(self.scores),
        }
        save_checkpoint(self.output / CHECKPOINT, self.network, self.optimiser, arrays, state)

    def resume(self) -> None:
        arrays, state = load_checkpoint(
            self.output / CHECKPOINT, self.network, self.optimiser, self.identity()
        )
        for name in ("epoch", "batch", "step", "seen", "tokens", "evaluated", "training_seconds"):
            setattr(self, name, state[name])
        self.log = list(state["log"])
        self.losses.extend(state["losses"])
        self.before = float(state["seconds"])
        self.weights, self.scores = arrays["weights"].numpy(), arrays["scores"].numpy()
        self.note("resume")

    def finish(self) -> dict[str, Any]:
        dev = self.final_dev(self.network, self.options.batch_tokens)
        self.note("final", **dev)
        held = self.held(self.network, self.options.batch_tokens)
        train, origin = self.inputs.train, self.network.source.path
        info: dict[str, Any] = {
            "base": self.network.source.name,
            "restored_from": restored_from(origin),
            "arguments": plain(self.options),
            "seed": self.options.seed,
            "holdout": self.options.holdout.to_dict(),
            "corpus_sha256": self.inputs.corpus_sha256,
            # What an earlier run has read stays read.
            "own_sources": sorted({*self.inputs.own_sources, *own_sources(origin)}),
            "texts": {
                "train": len(train) - self.inputs.augmented,
                "augmented": self.inputs.augmented,
                "held_out": len(self.inputs.held),
                "dev": len(self.inputs.dev),
            },
            "steps": self.step,
            "samples": self.seen,
            "tokens": self.tokens,
            "minutes": round(self.seconds() / 60, 2),
            "device": self.network.device.type,
            "precision": self.network.precision,
            "distilled": self.distiller is not None or self.beside is not None,
            "torch": torch.__version__,
            "hardware": hardware(),
            "figures": {"dev": dev, "held_out": held},
            "log": self.log,
        }
        network = self.network
        write_output(
            self.output, network.source, network.encoder_weights(), network.linear_heads(), info
        )
        (self.output / CHECKPOINT).unlink(missing_ok=True)
        return info
