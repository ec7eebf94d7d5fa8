"""The scanner: a large model and a small one before it, ready to scan texts from any thread."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import ceil, nan
from os import PathLike
from time import perf_counter_ns
from types import TracebackType
from typing import TYPE_CHECKING, Any, overload
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from raxe_fast import _core
from raxe_fast.ahead import Ahead
from raxe_fast.batch import Batcher, counts_of, owners_of, spans_of
from raxe_fast.explain import TOO_LATE, OutOfTime, carrying_sentence
from raxe_fast.first import (
    ASK_BELOW,
    ASK_FROM,
    FirstScanner,
    check_scores,
    first_model,
    take_off,
)
from raxe_fast.model import ForestKind, Model, load_model
from raxe_fast.policy import Policy, Thresholds
from raxe_fast.reader import Reader
from raxe_fast.result import ScanResult
from raxe_fast.screening import open_screen, screening_score
from raxe_fast.selftest import check_encoder, open_encoder, open_windower
from raxe_fast.stream import CLOSED, Progress, watched
from raxe_fast.tokeniser import TokeniserKind
from raxe_fast.verdict import Plan, Reading, VerdictMaker
from raxe_fast.workers import Team, available_cpus, default_lookahead

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from raxe_fast.encoder import Backend

__all__ = ["Scanner"]

_STARTUP_CHECKS = 4
_NO_OWNERS = np.zeros(0, dtype=np.uint32)


class Scanner:
    """Scans texts with a model, and with a small one before it where there is one. Loads once,
    then immutable and safe to use from many threads.

    The small model reads every text, and where it is sure its verdict stands:
    ``ScanResult.model_id`` says whose it is. The large one is asked about the rest; of such a text
    ``timings["first"]`` holds the microseconds of the small model, and ``timings["total"]`` both.
    :attr:`model` and :meth:`threshold_for` are those of the large model.

    Args:
        model: a model directory, ``.raxe`` archive or installed id; ``None`` for the shipped
            model; or a :class:`~raxe_fast.Model` loaded before, to share it.
        first: the small model, likewise; ``None``: none, ``model`` reads everything. ``"auto"`` is
            the shipped small model before the shipped large one, and none before a ``model`` that
            is named. A scan whose policy has ``screening=False`` goes past it.
        ask_from: score of the small model, in [0, 1], from which ``model`` is asked; lower where
            the policy blocks from a lower one, in proportion lower for texts of many windows, and
            much lower for what looks like a planted errand (:func:`raxe_fast.first.asks_from`). The
            lower, the closer to the recall and the time of ``model`` alone (docs/latency.md has the
            curve). It reads what scores as much with the small model and a little around it, the
            worst first, up to what decides.
        ask_below: the score below which it is asked, in [0, 1], the small model's block threshold
            at least. The higher, the fewer false alarms.
        threads: threads of one encoder call. One gives the steadiest latency.
        cpus: one CPU per thread to pin them to; the calling thread is pinned to the first while
            it scans, and only then. Nothing is pinned unless asked for.
        policy: default policy, balanced unless given.
        deadline_ms: time for one text. Looked at between windows: a window that was begun is
            finished (some 30 ms at 256 tokens). Too late before the first window gives a result
            of status ``"degraded"``, too late after it ``"partial"``. ``explain`` looks for the
            sentence that carries the score in what is left of the time.
        max_chars: characters of a text that the encoder reads: of a longer one the first and the
            last half of that many. It has status ``"partial"`` then; trigger phrases are searched
            in all of it.
        max_windows: windows of a text that the encoder reads, those of its encoded parts
            included; likewise. The text's own come first, or with screening or a small model the
            most suspicious ones. The small model, whose windows may be shorter, reads as far.
        decode: look at what encoded parts of a text say (base64, rot13, homoglyphs and others, see
            :mod:`raxe_fast.decode`), as texts of their own. A text that is encoded as a whole is
            then judged by what it says alone (see :mod:`raxe_fast.decode_whole`).
        batch_size: windows of equal token count encoded in one call, across the texts of one
            ``scan`` or ``scan_iter``. ONNX Runtime takes the range of INT8 activations over the
            whole batch, so a text's score then depends (in the third decimal, as a rule) on its
            neighbours; 1, the default, makes every score reproducible text by text, and on one
            thread batches gain little. Ignored where there is a deadline or a small model.
        backend: what runs the encoder: ``"onnxruntime"``, or ``"native"``, this package's own INT8
            kernels, on one thread per call. Native takes half to two thirds of the time, and
            its token embeddings are the same to the bit on every instruction set and in every
            batch; they differ a little from those of ONNX Runtime. ``"auto"`` is the one on
            whose embeddings the model's heads and thresholds were made (the manifest's
            ``encoder.backend``), and ONNX Runtime for ``threads`` above 1.
        forest: see :func:`~raxe_fast.load_model`.
        screening: run the model's screening network, where it has one, no small model before it,
            and the policy lets it (:class:`~raxe_fast.Policy`): windows that it is certain about
            are not encoded, the others are, the most suspicious first, up to the first that
            decides: one whose score blocks the text (without ``explain``, and where all families
            count). All windows are screened, whatever the deadline (about a millisecond per 256
            tokens), and those the encoder has read get the same scores as without screening.
        async_workers: texts that :meth:`scan_async` works on at a time.

    Raises :class:`~raxe_fast.ModelError`, :class:`~raxe_fast.EncoderError`, and ``ValueError`` for
    arguments out of range or policies with unknown families.
    """

    def __init__(
        self,
        model: str | PathLike[str] | Model | None = None,
        *,
        first: str | PathLike[str] | Model | None = "auto",
        ask_from: float = ASK_FROM,
        ask_below: float = ASK_BELOW,
        threads: int = 1,
        cpus: Sequence[int] | None = None,
        policy: Policy | None = None,
        deadline_ms: float | None = None,
        max_chars: int = 65_536,
        max_windows: int = 64,
        decode: bool = True,
        batch_size: int = 1,
        backend: Backend = "auto",
        forest: ForestKind = "auto",
        screening: bool = True,
        async_workers: int = 1,
    ) -> None:
        for name, value in (
            ("threads", threads),
            ("max_chars", max_chars),
            ("max_windows", max_windows),
            ("batch_size", batch_size),
            ("async_workers", async_workers),
        ):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value!r}")
        deadline_ns = _in_nanoseconds(deadline_ms)
        check_scores(ask_from, ask_below)
        named = first_model(first, model, screening)
        # What ships has compiled code for the large model alone.
        small_forest: ForestKind = "auto" if first == "auto" else forest
        # Most of loading is to inflate, verify and pack, which need no Python: side by side.
        with Ahead(lambda: _model_of(named, small_forest)) as ahead:
            loaded = load_model(model, forest=forest) if model is None else _model_of(model, forest)
        small = ahead.result()
        spec = loaded.manifest.encoder
        settings = {
            "threads": threads,
            "cpus": cpus,
            "policy": policy,
            "deadline_ms": deadline_ms,
            "max_chars": max_chars,
            "decode": decode,
            "backend": backend,
            "screening": screening,
        }
        tokens = max_windows * spec.max_tokens
        with Ahead(partial(_scanner_of, small, small is first, tokens, settings)) as opening:
            self._encoder = open_encoder(loaded, threads=threads, cpus=cpus, backend=backend)
            self._windower = open_windower(loaded)
        before = opening.result()
        self._first = None if before is None else FirstScanner(before, ask_from, ask_below)
        # A small model stands in its place.
        self._screen = open_screen(loaded) if screening and self._first is None else None
        self._model = loaded
        if model is not loaded:
            self._release()
        self._scorer: _core.Scorer = loaded.scorer
        self._verdicts = VerdictMaker(loaded)
        self._deadline_ns = deadline_ns
        self._reader = Reader(
            self._encoder,
            self._windower,
            self._scorer,
            max_chars=max_chars,
            max_windows=max_windows,
            deadline_ns=deadline_ns,
            decode=decode,
            screen=self._screen,
        )
        self._max_chars = max_chars
        self._batches = batch_size > 1 and deadline_ns is None and self._first is None
        self._batcher = Batcher(self._encoder, self._reader, self._scorer, batch_size, max_windows)
        self._async_workers = async_workers
        self._plans: dict[Policy, Plan] = {}
        self._plan = self._plan_for(policy or Policy())
        # Re-entrant: a signal handler may close the scanner.
        self._lock = threading.RLock()
        self._executor: ThreadPoolExecutor | None = None
        self._teams: WeakSet[Team[str, ScanResult]] = WeakSet()  # of streams not yet at their end
        self._closed = False
        check_encoder(loaded.selftest, self._encoder, spec.file, loaded.path, limit=_STARTUP_CHECKS)
        self._warm_up()  # the small model has done so
        # What was read of the models, before what is free goes back.
        del loaded, small, ahead, opening
        _core.release_freed_memory()

    # ---- properties --------------------------------------------------------------------------

    @property
    def model(self) -> Model:
        """The loaded model (its encoder bytes are released unless it was passed in)."""
        return self._model

    @property
    def first(self) -> Model | None:
        """The small model, if there is one."""
        return None if self._first is None else self._first.scanner.model

    @property
    def policy(self) -> Policy:
        """The default policy."""
        return self._plan.policy

    def threshold_for(self, *, fpr: float) -> float:
        """Lowest block threshold with a false-positive rate of at most ``fpr`` on development
        data; see :meth:`raxe_fast.Model.threshold_for`."""
        return self._model.threshold_for(fpr=fpr)

    def screens(self, policy: Policy | None = None) -> bool:
        """Whether screening, or the small model in its place, may clear anything under a policy,
        the default one unless given."""
        plan = self._plan if policy is None else self._plan_for(policy)
        if self._first is not None:
            return plan.policy.screening
        return plan.clear_below is not None

    def screening_logits(self, text: str) -> list[float]:
        """What the screening network says of each window of a text, in reading order, then of the
        windows of its decoded parts: logits of an attack, NaN where not finite. Empty for a model
        or scanner without screening, behind a small model, and for a text of white space. No
        verdict: for measuring."""
        return [] if _is_blank(text) else self._reader.logits(text)

    def count_tokens(self, text: str) -> int:
        """The tokens of a text, all of them, for :attr:`model`, without special ones. Raises
        ``TypeError`` for what is no ``str``."""
        if not isinstance(text, str):
            raise TypeError(f"expected a str, not {type(text).__name__}")
        return self._windower.windows(text).tokens

    @property
    def tokeniser(self) -> TokeniserKind:
        """What reads the texts: ``"native"``, the core, where it knows the model's tokenizer.json;
        else ``"tokenizers"``, the library. The tokens are the same."""
        return self._windower.kind

    # ---- scanning ----------------------------------------------------------------------------

    @overload
    def scan(  # type: ignore[overload-overlap]  # a str is an iterable of str
        self, texts: str, *, policy: Policy | None = ..., explain: bool = ...
    ) -> ScanResult: ...

    @overload
    def scan(
        self, texts: Iterable[str], *, policy: Policy | None = ..., explain: bool = ...
    ) -> list[ScanResult]: ...

    def scan(
        self,
        texts: str | Iterable[str],
        *,
        policy: Policy | None = None,
        explain: bool = False,
    ) -> ScanResult | list[ScanResult]:
        """Scan one text (``str`` -> ``ScanResult``) or several (iterable -> list, same order).

        ``explain`` adds family scores to every result, detail to the reasons, and for texts that
        reach the warning threshold the sentence that carries the score, found by scanning the
        worst window again, alone and without each of its sentences (up to 17 more scans, while the
        deadline lasts); none where that window does not reach the threshold alone. No text makes
        this raise: trouble shows as the result's ``status``. Raises
        ``TypeError`` for anything but texts, naming the index, before any is scanned;
        ``RuntimeError`` after ``close()``.
        """
        plan = self._plan if policy is None else self._plan_for(policy)
        if self._closed:
            raise RuntimeError(CLOSED)
        if isinstance(texts, str):
            return self._scan_one(texts, plan, explain)
        checked = list(_checked(texts))
        if self._batches and len(checked) > 1:
            return list(self._scan_batches(iter(checked), plan, explain, len(checked)))
        return [self._scan_one(text, plan, explain) for text in checked]

    def scan_iter(
        self,
        texts: Iterable[str],
        *,
        policy: Policy | None = None,
        explain: bool = False,
        lookahead: int | None = None,
        workers: int | None = 1,
        progress: Progress | None = None,
    ) -> Iterator[ScanResult]:
        """Scan a stream of texts of any length: results in order, in bounded memory.

        With ``workers`` 1 and ``batch_size`` 1 each result comes before the next text is asked
        for; otherwise at most ``lookahead`` texts are read whose results have not been fetched
        (None: 64, and 32 for each worker where that is more). ``workers`` threads work on the texts
        (None: one for each CPU that the process may use), each on texts of its own, long ones
        before their turn, with the same results; ``batch_size`` then counts for nothing.

        ``progress`` is called in the thread that fetches the results, with the number of texts done
        and of their characters: at most four times a second, and once more when all are done. What
        it raises ends the stream.

        Closing the iterator, or an interrupt, drops the texts not begun and waits for the others;
        after :meth:`close` of the scanner it raises ``RuntimeError``. Raises ``TypeError`` naming
        the index when it gets to an item that is not a ``str``, and what ``texts`` raises in its
        place; ``ValueError`` for workers that would all be pinned to the same CPUs.
        """
        if workers is None:
            workers = available_cpus()
        if lookahead is None:
            lookahead = default_lookahead(workers)
        if progress is not None and not callable(progress):
            raise TypeError(f"progress must be callable, not {type(progress).__name__}")
        for name, value in (("lookahead", lookahead), ("workers", workers)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value!r}")
        if workers > 1 and self._encoder.cpus is not None:
            raise ValueError(f"{workers} workers would all be pinned to CPUs {self._encoder.cpus}")
        plan = self._plan if policy is None else self._plan_for(policy)
        if self._closed:
            raise RuntimeError(CLOSED)
        checked = _checked(texts)
        results: Generator[ScanResult, None, None]
        if workers > 1:
            results = self._team(plan, explain, workers).results(checked, lookahead)
        elif self._batches and lookahead > 1:
            results = self._scan_batches(checked, plan, explain, lookahead)
        else:
            results = (self._scan_one(text, plan, explain) for text in checked)
        return watched(results, lambda: self._closed, progress)

    @overload
    async def scan_async(  # type: ignore[overload-overlap]
        self, texts: str, *, policy: Policy | None = ..., explain: bool = ...
    ) -> ScanResult: ...

    @overload
    async def scan_async(
        self, texts: Iterable[str], *, policy: Policy | None = ..., explain: bool = ...
    ) -> list[ScanResult]: ...

    async def scan_async(
        self,
        texts: str | Iterable[str],
        *,
        policy: Policy | None = None,
        explain: bool = False,
    ) -> ScanResult | list[ScanResult]:
        """:meth:`scan` on the scanner's own ``async_workers`` threads; the event loop stays free.

        Cancelling drops a scan that has not begun; one that has runs to its end unheard.
        """
        # Here: whoever awaits has them, and the others need not load them.
        import asyncio
        from concurrent.futures import ThreadPoolExecutor

        with self._lock:
            if self._closed:
                raise RuntimeError(CLOSED)
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self._async_workers, "raxe-fast")
            executor = self._executor
        call: partial[Any] = partial(self.scan, texts, policy=policy, explain=explain)
        result: ScanResult | list[ScanResult] = await asyncio.get_running_loop().run_in_executor(
            executor, call
        )
        return result

    def warm_up(self) -> None:
        """Run texts of several lengths through everything, so that the first real scan is as fast
        as the rest. The constructor has done so already; call it again after a long idle time."""
        if self._first is not None:
            self._first.scanner.warm_up()
        self._warm_up()

    def _warm_up(self) -> None:
        for words in (6, 60):
            self._scan_with_model("warm " * words, self._plan, True, perf_counter_ns())
            if self._plan.clear_below is not None:  # the encoder, too
                self._scan_with_model("warm " * words, self._unscreened, True, perf_counter_ns())

    def close(self) -> None:
        """Refuse new scans, end the streams of :meth:`scan_iter`, and wait for what other threads
        have begun for these and for :meth:`scan_async`. May be called twice."""
        with self._lock:
            self._closed = True
            executor, self._executor = self._executor, None
            teams = list(self._teams)
        for team in teams:
            team.stop()
        if executor is not None:
            executor.shutdown(wait=True)

    def __enter__(self) -> Scanner:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        before = "" if self._first is None else f"{self._first.scanner.model.id!r} before "
        return f"<raxe_fast.Scanner of model {before}{self._model.id!r}>"

    # ---- inside ------------------------------------------------------------------------------

    def _release(self) -> None:
        """Lets go of the networks' files: the encoders have their own copies by now."""
        self._model = replace(self._model, encoder_onnx=b"", screening_onnx=b"")

    def _plan_for(self, policy: Policy) -> Plan:
        plan = self._plans.get(policy)
        if plan is None:
            if self._first is not None:
                self._first.check(policy)
            known = self._model.manifest.families
            unknown = sorted(set(policy.families or ()) - set(known))
            if unknown:
                raise ValueError(
                    f"the model has no family {unknown[0]!r}; it has {', '.join(known)}"
                )
            manifest = self._model.manifest
            thresholds = policy.resolve(manifest.thresholds)
            plan = Plan(
                policy,
                thresholds,
                thresholds.warn < manifest.detail_threshold,
                self._clear_below(policy, thresholds),
            )
            if len(self._plans) < 64:  # a policy made anew for each scan must not pile up
                self._plans[policy] = plan
        return plan

    def _clear_below(self, policy: Policy, thresholds: Thresholds) -> float | None:
        manifest = self._model.manifest
        if self._screen is None or manifest.screening is None or not policy.screening:
            return None
        found = manifest.screening.clear_below(
            thresholds.block, thresholds.warn, manifest.thresholds
        )
        # What is cleared is allowed, and so must its score say.
        if found is not None and screening_score(found) > thresholds.warn:
            return None
        return found

    @property
    def _unscreened(self) -> Plan:
        """The default plan, but the encoder reads everything."""
        return self._plan._replace(clear_below=None)

    def _team(self, plan: Plan, explain: bool, workers: int) -> Team[str, ScanResult]:
        """Threads for one stream, which :meth:`close` stops."""
        work = partial(self._scan_one, plan=plan, explain=explain)
        limit = self._max_chars  # more than that of a text costs next to nothing
        team = Team(work, workers=workers, size=lambda text: min(str.__len__(text), limit))
        with self._lock:
            if self._closed:
                raise RuntimeError(CLOSED)
            self._teams.add(team)
        return team

    def _scan_one(self, text: str, plan: Plan, explain: bool) -> ScanResult:
        start = perf_counter_ns()
        if self._first is None or not plan.policy.screening:
            return self._scan_with_model(text, plan, explain, start)
        found, suspicion = self._first.answer(text, plan.policy, explain, start)
        if found is not None:
            return found
        spent = (perf_counter_ns() - start) / 1e3
        asked = plan._replace(asked=True, suspicion=suspicion)
        result = self._scan_with_model(text, asked, explain, start)
        take_off(spent, result)
        result.timings["first"] = spent
        return result

    def _scan_with_model(
        self, text: str, plan: Plan, explain: bool, start: int, reading: Reading | None = None
    ) -> ScanResult:
        """``start``: since when the deadline runs. ``reading``, a fresh one where it is given, then
        says what was read."""
        if type(text) is not str:
            text = str.__str__(text)  # a subclass's own methods play no part
        if _is_blank(text):
            return self._verdicts.empty(text, start)
        if reading is None:
            reading = Reading(start, len(text))
        try:
            blocks = self._reader.read(text, reading, plan, explain)
            return self._judge(text, blocks, reading, plan, explain)
        except Exception as error:
            return self._verdicts.failed(text, plan, reading, error)

    def _judge(
        self,
        text: str,
        blocks: list[npt.NDArray[np.float32]],
        reading: Reading,
        plan: Plan,
        explain: bool,
    ) -> ScanResult:
        details = explain or plan.details
        texts = [text, *[view.text for view in reading.views]]
        if not blocks and reading.rules is not None:  # cleared: nothing is left to score
            return self._verdict(text, reading.rules, reading, plan, explain)
        try:
            scores = self._scorer.score(
                blocks,
                owners_of(reading),
                texts,
                details,
                None,
                spans_of(reading),
                counts_of(reading),
                reading.rules,
            )
        except (TypeError, ValueError) as error:
            # The core refused what the encoder gave.
            reading.fail(f"the encoder gave no usable output ({error})")
            scores = self._scorer.score([], _NO_OWNERS, texts, details)
        return self._verdict(text, scores, reading, plan, explain)

    def _verdict(
        self,
        text: str,
        scores: Sequence[_core.TextScore],
        reading: Reading,
        plan: Plan,
        explain: bool,
    ) -> ScanResult:
        result = self._verdicts.make(text, scores, reading, plan, explain)
        if explain and result.score >= plan.thresholds.warn and not reading.views:
            return self._with_sentence(text, result, plan.thresholds.warn, reading.start_ns)
        return result

    def _with_sentence(self, text: str, result: ScanResult, warn: float, start: int) -> ScanResult:
        """The result with the sentence that carries the score, found by leaving each out; without
        where the worst window does not reach ``warn`` by itself."""
        reason = None
        if result.window is not None and result.status in ("ok", "partial"):
            score_of = partial(self._score_of, start=start)
            try:
                found = carrying_sentence(text, result.window, warn, score_of)
                reason = None if found is None else found.reason()
            except OutOfTime:
                reason = TOO_LATE
        if reason is None:
            return result
        return replace(
            result,
            reasons=(*result.reasons, reason),
            triggers=result.triggers,
            similar=result.similar,
        )

    def _score_of(self, text: str, start: int) -> float:
        """Score of a text, 0 for white space; NaN where the encoder has not read all of it. Raises
        OutOfTime once the deadline, counted from ``start``, has passed."""
        limit = None if self._deadline_ns is None else start + self._deadline_ns
        if limit is not None and perf_counter_ns() >= limit:
            raise OutOfTime
        result = self._scan_with_model(text, self._unscreened, False, start)
        if result.status == "ok":
            return result.score
        if limit is not None and perf_counter_ns() >= limit:
            raise OutOfTime
        return nan

    def _scan_batches(
        self, texts: Iterator[str], plan: Plan, explain: bool, lookahead: int
    ) -> Generator[ScanResult, None, None]:
        for texts_, readings, scored in self._batcher.score(texts, plan, explain, lookahead):
            if scored is None:  # one by one, so that trouble stays with the text that has it
                yield from (self._scan_one(text, plan, explain) for text in texts_)
                continue
            for text, reading, items in zip(texts_, readings, scored, strict=True):
                if _is_blank(text):
                    yield self._verdicts.empty(text, reading.start_ns)
                    continue
                try:
                    yield self._verdict(text, items, reading, plan, explain)
                except Exception as error:
                    yield self._verdicts.failed(text, plan, reading, error)


@overload
def _model_of(model: None, forest: ForestKind) -> None: ...
@overload
def _model_of(model: str | PathLike[str] | Model, forest: ForestKind) -> Model: ...
def _model_of(model: str | PathLike[str] | Model | None, forest: ForestKind) -> Model | None:
    """A model that was named, loaded; one that is passed in is loaded already."""
    return model if model is None or isinstance(model, Model) else load_model(model, forest=forest)


def _scanner_of(
    small: Model | None, shared: bool, tokens: int, settings: Mapping[str, Any]
) -> Scanner | None:
    """The scanner of a small model, if there is one, that reads as far into a text as the large
    one's: ``tokens``. The files of a model that is not ``shared`` are let go."""
    if small is None:
        return None
    windows = ceil(tokens / small.manifest.encoder.max_tokens)
    scanner = Scanner(small, first=None, max_windows=windows, **settings)
    if not shared:
        scanner._release()
    return scanner


def _in_nanoseconds(deadline_ms: float | None) -> int | None:
    """The deadline; None for one that never comes. Raises ValueError below 0 and for NaN."""
    if deadline_ms is None:
        return None
    if not deadline_ms >= 0:
        raise ValueError(f"deadline_ms must be at least 0, not {deadline_ms!r}")
    try:
        return int(deadline_ms * 1e6)
    except OverflowError:  # infinite, or beyond what a float holds
        return None


def _is_blank(text: str) -> bool:
    return not text or text.isspace()


def _checked(texts: Iterable[str]) -> Iterator[str]:
    """The texts, each checked when its turn comes; the container is checked at once."""
    if isinstance(texts, (bytes, bytearray, memoryview, Mapping)):
        raise TypeError(f"expected a str or an iterable of str, not {type(texts).__name__}")
    try:
        iterator = iter(texts)
    except TypeError:
        raise TypeError(
            f"expected a str or an iterable of str, not {type(texts).__name__}"
        ) from None
    return _check_items(iterator)


def _check_items(texts: Iterator[str]) -> Iterator[str]:
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"text {index} must be a str, not {type(text).__name__}")
        yield text
