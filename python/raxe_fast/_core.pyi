"""The compiled core of raxe-fast. Internal: use the package raxe_fast."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import numpy
from numpy.typing import NDArray


__version__: str

def normalize(text: str, separate_ignorables: bool = False) -> tuple[str, list[int]]:
    """
    The normalised text and, for each of its characters, the index of its origin in `text`.

    separate_ignorables: turn invisible format characters into spaces; else drop them.
    """

def isa() -> str:
    """The instruction set in use: "scalar", "avx2", "avx512" or "amx"."""

def detected_isa() -> str:
    """The best instruction set of this machine, whatever is forced."""

def force_isa(name: str) -> None:
    """
    Uses this instruction set from now on, process-wide; for tests and benchmarks.

    Raises ValueError if the machine lacks it or there is no such name.
    """

def mean_pool_l2(tokens: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], mask: Annotated[NDArray[numpy.uint8], dict(shape=(None,), order='C', device='cpu', writable=False)] | None = None) -> Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C')]:
    """
    tokens: float32 (S, H), C order; mask: uint8 (S,) or None. Returns float32 (H,): the mean
    of the tokens whose mask is not 0, scaled to unit length; zeros if there is none.

    Raises ValueError if mask and tokens differ in length.
    """

def release_freed_memory() -> None:
    """
    Gives the system what the C library keeps of freed memory, where that is glibc.
    """

def compiled_heads() -> list[str]:
    """SHA-256 of every Treelite file compiled into this build."""

def build_info() -> dict[str, Any]:
    """How this module was built; JSON-safe."""

class Tokens:
    """The tokens of one text, without special ones. Immutable."""

    def __len__(self) -> int: ...

    @property
    def ids(self) -> Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')]:
        """int64 (n,), a new array."""

    @property
    def offsets(self) -> Annotated[NDArray[numpy.uint32], dict(shape=(None, None), order='C')]:
        """uint32 (n, 2), a new array: code points [begin, end) of the text."""

    def token_to_chars(self, index: int) -> tuple[int, int]:
        """
        Code points [begin, end) of one token. Raises IndexError past the last.
        """

    def row(self, start: int, stop: int, first: int, last: int) -> Annotated[NDArray[numpy.int64], dict(shape=(None, None), order='C')]:
        """
        int64 (1, stop - start + 2): the ids of tokens [start, stop) between first and last.

        Raises IndexError where there are no such tokens.
        """

class WordPiece:
    """
    BERT's uncased normaliser, word splitter and WordPiece in one pass, as in the
    tokenizers library. Immutable and thread-safe.
    """

    def __init__(self, vocabulary: list[str], unknown: int, max_word: int = 100, chunk: int = 0, left_out: list[str] = []) -> None:
        """
        vocabulary: list of str, the token of each id; those that begin with ## continue a word.
        unknown: id of the token for words that it cannot spell or that have more than max_word
        characters. chunk: cut words into pieces of that many characters first; 0: do not.
        left_out: words, normalised, that make no token where they stand alone.

        Raises TypeError for tokens that are not str, ValueError for no token, 65,536 of them or
        more, one that appears twice, unknown outside of them, max_word above 1,000, or a word to
        leave out that appears twice, is empty, or is longer than max_word or chunk.
        """

    def sharing(self, chunk: int = 0, left_out: list[str] = []) -> WordPiece:
        """
        Another one with the same tokens, which are in memory once.

        Raises TypeError and ValueError for words to leave out as the constructor, ValueError also
        for one with a character that is in no token.
        """

    def encode(self, text: str) -> Tokens:
        """
        The tokens of a text, with the GIL released. Special tokens in it are plain text, lone
        surrogates are left out. Time is linear in the length, whatever the text.
        """

    @property
    def vocabulary_size(self) -> int: ...

    @property
    def nbytes(self) -> int:
        """Size of the trie and tables."""

class EncodingSigns:
    """
    Which decoders of encoded parts could find anything in a text. Immutable and
    thread-safe.
    """

    def __init__(self, coded: dict[str, int], common: list[str], in_ay: list[str]) -> None:
        """
        coded: what common words become in ciphers, with a bit for each cipher that does so.
        common: words that leetspeak is looked for. in_ay: words in "ay" that are no pig Latin.

        Raises TypeError for words that are not str and values that are no uint32, ValueError for
        words that are not of 1 to 12 letters a to z or, but in common, appear twice.
        """

    def __call__(self, text: str, limit: int) -> int:
        """
        Bits, as in raxe_fast.decode_signs: a decoder whose bit is not set finds nothing in the
        text, where views of at most limit characters are wanted. One pass; the GIL is released
        for long texts only.
        """

class Forest:
    """A forest of decision trees: the mean of the leaf vectors."""

    @staticmethod
    def packed(n_features: int, n_outputs: int, tree_offset: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], feature: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], threshold: Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu', writable=False)], left: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], right: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], leaf_index: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], leaf_values: Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> Forest:
        """
        A forest from flat arrays, trees one after another; all are copied.

        tree_offset int64 (trees + 1); feature, left, right, leaf_index int32 (nodes);
        threshold float64 (nodes); leaf_values float64 (leaves * n_outputs, flat).
        Inner node: feature >= 0, left if x[feature] <= threshold; children count from
        the tree's first node. Leaf: feature < 0, leaf_index picks its row of values.
        Raises ValueError if an index is out of range, a tree is no tree, a value is
        NaN or a length is wrong.
        """

    @staticmethod
    def treelite(data: bytes) -> Forest:
        """
        A forest from the content of a file that treelite.Model.serialize wrote.

        Random forests of Treelite 4.1 and later 4.x: float64 thresholds and leaf
        vectors, one target, tests x <= threshold, outputs averaged over the trees.
        Raises ValueError if the data is truncated, corrupt or of another kind.
        """

    @staticmethod
    def compiled(sha256: str) -> Forest | None:
        """
        The compiled forest of the Treelite file with this SHA-256 (hex), or None.
        """

    def predict(self, X: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)]) -> Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C')]:
        """
        X: float32 (rows, n_features), C order. Returns float64 (rows, n_outputs).

        Raises ValueError for another number of features, NaN or infinity.
        """

    @property
    def n_features(self) -> int: ...

    @property
    def n_outputs(self) -> int: ...

    @property
    def n_trees(self) -> int: ...

    @property
    def kind(self) -> str:
        """"compiled" or "packed"."""

def treelite_arrays(data: bytes) -> tuple[int, int, Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')], Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C')], Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C')], Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C')], Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C')], Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C')], Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C')]]:
    """
    What Forest.treelite makes a forest of, in the order in which Forest.packed takes it.

    Raises ValueError as it does; the shapes of the trees are not checked.
    """

class Calibration:
    """Evidence -> calibrated probability of an attack."""

    def __init__(self, weights: Sequence[float], bias: float, knot_x: Sequence[float] = [], knot_y: Sequence[float] = []) -> None:
        """
        weights: 2 (forest_logit, rules), or 6 (and linear, passage, lexical, windows).
        knots: the isotonic map, or empty.

        Raises ValueError for values that are not finite, knots that do not increase, or a
        negative weight of forest_logit.
        """

    def __call__(self, evidence: Sequence[float]) -> float:
        """
        evidence: the 6 values that the weights are for; 2 stand for those and four zeros.
        Returns the probability in [0, 1].
        """

class Clusters:
    """Nearest cluster centroids by cosine."""

    def __init__(self, centroids: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], n_attack: int) -> None:
        """
        centroids: float32 (clusters, hidden), unit rows, attack clusters first; copied.

        Raises ValueError for a row that is not of unit length, or n_attack too large.
        """

    def nearest(self, embedding: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> tuple[list[tuple[int, float]], float]:
        """
        embedding: float32 (hidden), unit length. Returns up to 3 (cluster, cosine) of the
        attack clusters, best first, and the novelty: 1 - the best cosine over all clusters.
        """

    @property
    def count(self) -> int: ...

    @property
    def n_attack(self) -> int: ...

class TriggerSet:
    """Linear-time matcher of many trigger patterns."""

    def __init__(self, specs: Iterable[Mapping[str, Any] | tuple[Any, Any, float]]) -> None:
        """
        specs: for each trigger a dict with phrases, literals and weight, as in
        triggers.json, or the tuple (phrases, literals, weight). A phrase is a list of
        elements: a dict with words, prefixes and max_gap, or the tuple of these.

        Raises ValueError for a pattern that is empty or not normalised, a word that holds a
        separator, or a weight outside [0, 1).
        """

    def match(self, text: str) -> list[tuple[int, int, int]]:
        """
        All matches as (trigger, begin, end), sorted by (begin, end, trigger); spans are code
        points of `text`, half open.
        """

    def rule_score(self, text: str) -> float:
        """
        Noisy-or of the weights of the distinct triggers that match, in [0, 1].
        """

    def __len__(self) -> int: ...

def ngram_hashes(text: str, begin: int = 0, end: int | None = None) -> Annotated[NDArray[numpy.uint32], dict(shape=(None,), order='C')]:
    """
    uint32 (n,): the hashes of all n-grams of code points [begin, end) of the text: characters
    in threes, fours and fives, words, and pairs of words, of the normalised text.
    """

def strongest_passage(tokens: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], weight: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)], bias: float) -> tuple[float, int, int]:
    """
    tokens: float32 (S, H), weight: float32 (H,). (evidence, begin, end) of the strongest
    passage: the 8 tokens in a row whose mean of weight @ token + bias is highest.

    Raises ValueError for lengths that differ or a weight that is not finite.
    """

class Features:
    """What the forests see of a window, in one row."""

    def __init__(self, linear_weight: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], linear_bias: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)], passage_weight: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)], passage_bias: float, lexical_table: Annotated[NDArray[numpy.int8], dict(shape=(None, None), order='C', device='cpu', writable=False)], lexical_scale: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)], lexical_bias: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)], label_table: Annotated[NDArray[numpy.int8], dict(shape=(None, None), order='C', device='cpu', writable=False)], label_scale: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)], label_bias: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)], trigger_family: Annotated[NDArray[numpy.uint32], dict(shape=(None,), order='C', device='cpu', writable=False)], trigger_weight: Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu', writable=False)], families: int) -> None:
        """
        linear_weight float32 (K, H), linear_bias (K,): logits on the embedding; passage_weight
        (H,): logit of a token; *_table int8 (2^bits, outputs) with *_scale and *_bias float32
        (outputs,): n-gram models; trigger_family uint32 and trigger_weight float64 (triggers,).

        Raises ValueError for parts that do not fit, values that are not finite, or a trigger's
        weight outside [0, 1).
        """

    def row(self, embedding: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)], evidence: float, text: str, begin: int, end: int, matches: Sequence[tuple[int, int, int]]) -> Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C')]:
        """
        float32 (full_size,) for the window [begin, end) of the text, as the fused call makes
        it. embedding: float32 (H,); matches: as TriggerSet.match gives them.
        """

    @property
    def hidden(self) -> int: ...

    @property
    def size(self) -> int:
        """Length of the row that the binary forest sees."""

    @property
    def full_size(self) -> int:
        """Length of the row that the family and subfamily forests see."""

class NativeEncoder:
    """
    A BERT sentence encoder in INT8. Immutable and thread-safe; one thread per call.
    """

    def __init__(self, words: NDArray[numpy.int8], word_scale: NDArray[numpy.float32], positions: NDArray[numpy.float32], gamma: NDArray[numpy.float32], beta: NDArray[numpy.float32], layers: list[dict[str, NDArray[Any]]], heads: int, epsilon: float = 1e-12, pairs: NDArray[numpy.int8] | None = None, pair_scale: NDArray[numpy.float32] | None = None) -> None:
        """
        words int8 (V, H) and word_scale float32 (V,), positions float32 (P, H), gamma and beta
        (H,) of the norm of the embeddings; all are copied. layers: for each a dict of
        {query,key,value,attention_out,intermediate,output}.weight int8 (inputs, outputs),
        within +-64, with .scale and .bias float32 (outputs,), and
        {attention_norm,output_norm}.{gamma,beta} float32 (H,). pairs int8 (R, H) and pair_scale
        float32 (R,): rows that are added to the word of a token, by a hash of it and of the
        token before it (raxe_fast/encoder.hpp, pair_row).

        Packs the weights for the instruction set in use, which stays that of this encoder. The
        GIL is released: nobody may write to the arrays meanwhile.
        Raises TypeError for another dtype, rank or layout, ValueError for missing arrays, shapes
        that do not fit or are out of range, weights out of range, values that are not finite.
        """

    def encode(self, ids: Annotated[NDArray[numpy.int64], dict(shape=(None, None), order='C', device='cpu', writable=False)]) -> Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order='C')]:
        """
        ids: int64 (B, S), C order, without padding. Returns float32 (B, S, H): token
        embeddings. The GIL is released; the rows of a text do not depend on its batch.

        Raises ValueError for ids outside the vocabulary, S = 0 or S > positions.
        """

    @property
    def hidden(self) -> int: ...

    @property
    def layers(self) -> int: ...

    @property
    def positions(self) -> int:
        """The most tokens of a text."""

    @property
    def vocabulary(self) -> int: ...

    @property
    def nbytes(self) -> int:
        """Size of the packed weights and tables."""

    @property
    def kernels(self) -> str:
        """
        "scalar", "avx2", "avx512vnni" or "amx". The results are the same to the bit.
        """

class Screener:
    """
    The screening stage: how sure a tiny encoder is that a window is harmless.
    Immutable and thread-safe.
    """

    def __init__(self, encoder: NativeEncoder, linear_weight: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)], linear_bias: float, passage_weight: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)], passage_bias: float, weights: Sequence[float], bias: float, features: Features | None = None) -> None:
        """
        linear_weight, passage_weight: float32 (H,) of the encoder, on the unit embedding and on
        a token. weights, bias: of the evidence (linear, passage, lexical). features: whose
        n-gram model gives the third; None: it is 0.

        Raises ValueError for parts that do not fit, values that are not finite, a negative
        weight, or one of n-grams without features.
        """

    def __call__(self, ids: Annotated[NDArray[numpy.int64], dict(shape=(None, None), order='C', device='cpu', writable=False)], text: str, begin: int, end: int) -> float:
        """
        The logit of an attack for one window: ids int64 (1, S), C order, code points [begin, end)
        of the text; NaN if it is not finite. The GIL is released; nothing is made but the float.

        Raises ValueError for ids outside the vocabulary, S = 0, S > positions, more than one
        window, or a span that is not in the text.
        """

    def evidence(self, ids: Annotated[NDArray[numpy.int64], dict(shape=(None, None), order='C', device='cpu', writable=False)], text: str, begin: int, end: int) -> tuple[float, float, float]:
        """(linear, passage, lexical) of one window, of which the logit is made."""

    @property
    def weights(self) -> list[float]: ...

    @property
    def bias(self) -> float: ...

class TextScore:
    """What Scorer.score says of one text. Read-only."""

    @property
    def score(self) -> float:
        """
        Calibrated P(attack) of the worst window; the rule score if there is no window;
        NaN if an embedding or other evidence was not finite.
        """

    @property
    def forest_probability(self) -> float:
        """Uncalibrated P(attack) of the worst window; NaN without one."""

    @property
    def linear(self) -> float:
        """
        Evidence of the worst window, logits; NaN without one or without features.
        """

    @property
    def passage(self) -> float: ...

    @property
    def lexical(self) -> float: ...

    @property
    def passage_tokens(self) -> tuple[int, int]:
        """
        Its strongest passage: tokens of the window, half open, special tokens counted.
        """

    @property
    def rule_score(self) -> float: ...

    @property
    def window(self) -> int:
        """
        The worst window's index within the text (the first of equals; the first that is
        not finite, if any is); -1: no window.
        """

    @property
    def window_scores(self) -> list[float]:
        """One calibrated probability per window of the text."""

    @property
    def family(self) -> list[float]:
        """Family scores of the worst window; empty below detail_threshold."""

    @property
    def subfamily(self) -> list[float]: ...

    @property
    def nearest(self) -> list[tuple[int, float]]:
        """Up to 3 (cluster, cosine) of the attack clusters, best first."""

    @property
    def novelty(self) -> float: ...

    @property
    def matches(self) -> list[tuple[int, int, int]]:
        """
        (trigger, begin, end), sorted by (begin, end, trigger); code points of the text.
        """

    @property
    def finite(self) -> bool: ...

    @property
    def times(self) -> tuple[int, int, int, int]:
        """Nanoseconds spent in (pooling, forests, clusters, triggers)."""

class Scorer:
    """The fused call. Immutable and thread-safe."""

    def __init__(self, binary: Forest, family: Forest, subfamily: Forest, calibration: Calibration, clusters: Clusters, triggers: TriggerSet, hidden: int, detail_threshold: float, features: Features | None = None) -> None:
        """
        Without features the forests see the embedding alone.

        Raises ValueError if binary has not 2 outputs, a forest's n_features differs from the
        row it will see, the centroids' length from hidden, or detail_threshold is NaN.
        """

    def score(self, blocks: list[NDArray[numpy.float32]], window_text: NDArray[numpy.uint32], texts: list[str], all_details: bool = False, masks: list[NDArray[numpy.uint8]] | None = None, spans: NDArray[numpy.uint32] | None = None, counts: NDArray[numpy.uint32] | None = None, known: list[TextScore] | None = None) -> list[TextScore]:
        """
        Scores a batch with the GIL released; nothing is copied.

        blocks: list of float32 (B, S, hidden), C order: token embeddings of windows of equal
        length. window_text: uint32 (windows,): for each window, over all blocks in order, the
        index of its text. texts: list of str. masks: None, or per block uint8 (B, S), 0 for
        padding. spans: uint32 (windows, 2): the code points [begin, end) that each window
        covers of its text; None: all. counts: uint32 (texts,): windows of each text in all,
        those left out too; None: those given. known: what an earlier call said of the texts,
        whose triggers are taken from there; None: they are matched. Returns one TextScore per
        text.

        Raises TypeError for another dtype, rank or layout or for a text that is not a str,
        ValueError for shapes that do not fit, an index that is no text, or a count below the
        number of windows given.
        """

    @property
    def hidden(self) -> int: ...

    @property
    def detail_threshold(self) -> float: ...
