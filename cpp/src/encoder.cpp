#include "raxe_fast/encoder.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <new>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "encoder_kernels.hpp"
#include "encoder_pack.hpp"
#include "raxe_fast/cpu.hpp"
#include "raxe_fast/model_memory.hpp"

namespace raxe_fast {

const detail::EncoderKernels& detail::encoder_kernels(Isa isa) noexcept {
#if defined(__x86_64__)
  if (isa == Isa::amx) return kEncoderAmx;
  if (isa == Isa::avx512 && detected_vnni()) return kEncoderAvx512Vnni;
  // AVX-512 without VNNI has no better instruction for this than AVX2.
  if (isa >= Isa::avx2) return kEncoderAvx2;
#else
  (void)isa;
#endif
  return kEncoderScalar;
}

namespace {

using detail::Columns;
using detail::EncoderKernels;
using detail::kRowBlock;
using detail::PackedStore;
using detail::QuantizedRows;

constexpr std::size_t kAlignment = 64;

constexpr std::size_t round_up(std::size_t n, std::size_t to) { return (n + to - 1) / to * to; }

// ---- checks ----------------------------------------------------------------------------------

void require(bool good, const std::string& what) {
  if (!good) throw std::invalid_argument(what);
}

void check_floats(const float* values, std::size_t n, const std::string& name) {
  require(values != nullptr, name + " is missing");
  require(std::all_of(values, values + n, [](float x) { return std::isfinite(x); }),
          name + " holds NaN or infinity");
}

void check_norm(const NormWeights& norm, std::size_t width, const std::string& name) {
  check_floats(norm.gamma, width, name + ".gamma");
  check_floats(norm.beta, width, name + ".beta");
}

void check_linear(const LinearWeights& linear, std::size_t inputs, std::size_t outputs,
                  const std::string& name) {
  require(linear.inputs == inputs && linear.outputs == outputs,
          name + " has shape (" + std::to_string(linear.inputs) + ", " +
              std::to_string(linear.outputs) + "), expected (" + std::to_string(inputs) + ", " +
              std::to_string(outputs) + ")");
  require(linear.weight != nullptr, name + " is missing");
  check_floats(linear.scale, outputs, name + ".scale");
  check_floats(linear.bias, outputs, name + ".bias");
  constexpr int kLimit = NativeEncoder::kWeightLimit;
  const std::span weights(linear.weight, inputs * outputs);
  require(std::ranges::all_of(weights, [](int w) { return w >= -kLimit && w <= kLimit; }),
          name + " holds weights beyond +-" + std::to_string(kLimit) + " (not of 7 bits)");
}

// ---- how large activations may become

// Far beyond what a trained encoder has, and far below where float32 would overflow: squares of
// such values can be summed. Without overflow there is no NaN, and with neither all levels agree.
constexpr double kMaxActivation = 1e15;

double largest(const float* values, std::size_t n) {
  double found = 0.0;
  for (const float x : std::span(values, n)) found = std::max(found, std::abs(double{x}));
  return found;
}

// A normalised value is at most the root of the width.
double bound_of(const NormWeights& norm, std::size_t width) {
  return std::sqrt(static_cast<double>(width)) * largest(norm.gamma, width) +
         largest(norm.beta, width);
}

// Of what a linear layer makes of values up to `bound`, whatever its weights are.
double bound_of(const LinearWeights& linear, double bound, const std::string& name) {
  const double weights = static_cast<double>(NativeEncoder::kWeightLimit * linear.inputs);
  const double found = weights * largest(linear.scale, linear.outputs) * bound +
                       largest(linear.bias, linear.outputs);
  require(found <= kMaxActivation, name + " may give values beyond 1e15");
  return found;
}

void check_activations(const EncoderWeights& w) {
  require(128.0 * (largest(w.word_scale, w.vocabulary) + largest(w.pair_scale, w.pair_rows)) +
                  largest(w.position, w.positions * w.hidden) <= kMaxActivation,
          "word_scale, pair_scale and position may give values beyond 1e15");
  double bound = bound_of(w.norm, w.hidden);
  for (std::size_t i = 0; i < w.layers.size(); ++i) {
    const EncoderLayerWeights& layer = w.layers[i];
    const std::string name = "layer" + std::to_string(i) + ".";
    bound_of(layer.query, bound, name + "query");
    bound_of(layer.key, bound, name + "key");
    const double value = bound_of(layer.value, bound, name + "value");
    bound_of(layer.attention_out, value, name + "attention_out");
    bound = bound_of(layer.attention_norm, w.hidden);
    const double inner = bound_of(layer.intermediate, bound, name + "intermediate");
    bound_of(layer.output, inner, name + "output");
    bound = bound_of(layer.output_norm, w.hidden);
    require(bound <= kMaxActivation, name + "output_norm may give values beyond 1e15");
  }
}

void check(const EncoderWeights& w) {
  const auto in_range = [](std::size_t n, std::size_t high, const char* name) {
    require(n >= 1 && n <= high, std::string(name) + " is " + std::to_string(n) +
                                     ", not from 1 to " + std::to_string(high));
  };
  const auto width = [&in_range](std::size_t n, std::size_t high, const char* name) {
    in_range(n, high, name);
    require(n % 32 == 0, std::string(name) + " is " + std::to_string(n) + ", no multiple of 32");
  };
  width(w.hidden, NativeEncoder::kMaxHidden, "hidden");
  in_range(w.positions, NativeEncoder::kMaxPositions, "positions");
  in_range(w.vocabulary, std::numeric_limits<std::int32_t>::max(), "vocabulary");
  in_range(w.layers.size(), 1000, "layers");
  require(w.epsilon > 0.0F && std::isfinite(w.epsilon), "epsilon is no number above 0");
  require(w.words != nullptr, "words is missing");
  check_floats(w.word_scale, w.vocabulary, "word_scale");
  check_floats(w.position, w.positions * w.hidden, "position");
  require(w.pair_rows <= NativeEncoder::kMaxPairRows,
          std::to_string(w.pair_rows) + " pair_rows are too many");
  if (w.pair_rows > 0) {
    require(w.pairs != nullptr, "pairs is missing");
    check_floats(w.pair_scale, w.pair_rows, "pair_scale");
  }
  check_norm(w.norm, w.hidden, "norm");
  for (std::size_t i = 0; i < w.layers.size(); ++i) {
    const EncoderLayerWeights& layer = w.layers[i];
    const std::string name = "layer" + std::to_string(i) + ".";
    const std::size_t attention = layer.query.outputs;
    const std::size_t inner = layer.intermediate.outputs;
    width(attention, NativeEncoder::kMaxHidden, "attention width");
    width(inner, NativeEncoder::kMaxInner, "inner width");
    require(w.heads >= 1 && attention % w.heads == 0 &&
                attention / w.heads <= NativeEncoder::kMaxHeadSize,
            std::to_string(w.heads) + " heads do not fit a width of " + std::to_string(attention));
    check_linear(layer.query, w.hidden, attention, name + "query");
    check_linear(layer.key, w.hidden, attention, name + "key");
    check_linear(layer.value, w.hidden, attention, name + "value");
    check_linear(layer.attention_out, attention, w.hidden, name + "attention_out");
    check_norm(layer.attention_norm, w.hidden, name + "attention_norm");
    check_linear(layer.intermediate, w.hidden, inner, name + "intermediate");
    check_linear(layer.output, inner, w.hidden, name + "output");
    check_norm(layer.output_norm, w.hidden, name + "output_norm");
  }
  check_activations(w);
}

// ---- packing ---------------------------------------------------------------------------------

// Appends columns [first, first + count) of a matrix, then columns of zeros up to `padded`.
void append(Columns& columns, const LinearWeights& from, std::size_t first, std::size_t count,
            std::size_t padded) {
  columns.inputs = from.inputs;
  const std::size_t begin = columns.weight.size();
  columns.weight.resize(begin + padded * from.inputs);
  // A few columns at a time: a cache line of every row is used while it is there.
  constexpr std::size_t kTogether = 16;
  for (std::size_t column = 0; column < count; column += kTogether) {
    const std::size_t here = std::min(kTogether, count - column);
    std::int8_t* const to = columns.weight.data() + begin + column * from.inputs;
    const std::int8_t* row = from.weight + first + column;
    for (std::size_t k = 0; k < from.inputs; ++k, row += from.outputs) {
      for (std::size_t n = 0; n < here; ++n) to[n * from.inputs + k] = row[n];
    }
  }
  const auto append_floats = [first, count, padded](std::vector<float>& to, const float* values) {
    to.insert(to.end(), values + first, values + first + count);
    to.resize(to.size() + padded - count);
  };
  append_floats(columns.scale, from.scale);
  append_floats(columns.bias, from.bias);
}

PackedStore pack(const LinearWeights& from, const EncoderKernels& kernels) {
  Columns columns;
  append(columns, from, 0, from.outputs, from.outputs);
  return {columns, kernels};
}

ModelVector<float> copy(const float* values, std::size_t n) { return {values, values + n}; }

struct PackedNorm {
  ModelVector<float> gamma, beta;
  float epsilon;

  PackedNorm(const NormWeights& from, std::size_t width, float eps)
      : gamma(copy(from.gamma, width)), beta(copy(from.beta, width)), epsilon(eps) {}
  [[nodiscard]] detail::Norm view() const noexcept {
    return {gamma.data(), beta.data(), epsilon};
  }
};

struct PackedLayer {
  std::vector<PackedStore> heads;  // query, key and value of each, padded to a multiple of 32
  PackedStore attention_out, intermediate, output;
  PackedNorm attention_norm, output_norm;
};

// ---- scratch ---------------------------------------------------------------------------------

// One piece of memory per thread, cut anew for each text.
class Arena {
 public:
  Arena() = default;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena() { release(); }

  // Invalidates what was cut before.
  void reserve(std::size_t bytes) {
    used_ = 0;
    if (bytes <= size_) return;
    release();
    memory_ = static_cast<std::byte*>(::operator new(bytes, std::align_val_t{kAlignment}));
    size_ = bytes;
  }
  template <typename T>
  T* cut(std::size_t n) noexcept {
    T* const piece = reinterpret_cast<T*>(memory_ + used_);
    used_ += round_up(n * sizeof(T), kAlignment);
    return piece;
  }

 private:
  void release() noexcept {
    ::operator delete(memory_, std::align_val_t{kAlignment});
    memory_ = nullptr;
    size_ = 0;
  }
  std::byte* memory_ = nullptr;
  std::size_t size_ = 0, used_ = 0;
};

// What one text needs.
struct Scratch {
  QuantizedRows hidden, block, inner_block;  // all tokens; kRowBlock rows each
  std::int64_t* ids;
  std::uint32_t* pair_rows;
  float *head_rows, *context, *sum, *inner;
  detail::HeadScratch head;

  struct Sizes {
    std::size_t tokens, hidden, attention, inner, padded_head;
  };

  static std::size_t bytes(const Sizes& s) {
    std::size_t total = 0;
    Scratch unused{};
    unused.lay(s, [&total](auto*& pointer, std::size_t n) {
      total += round_up(n * sizeof(*pointer), kAlignment);
    });
    return total;
  }
  static Scratch from(Arena& arena, const Sizes& s) {
    arena.reserve(bytes(s));
    Scratch scratch{};
    scratch.lay(s, [&arena](auto*& pointer, std::size_t n) {
      pointer = arena.cut<std::remove_reference_t<decltype(*pointer)>>(n);
    });
    return scratch;
  }

 private:
  template <typename Take>
  void lay(const Sizes& s, Take take) {
    const auto rows = [&take](QuantizedRows& q, std::size_t n, std::size_t width) {
      take(q.values, round_up(n, detail::kTileRows) * width + detail::kTileInputs);
      take(q.scale, n);
      take(q.low, n);
    };
    const std::size_t even = round_up(s.tokens, 16);
    take(ids, s.tokens);
    take(pair_rows, s.tokens);
    rows(hidden, s.tokens, s.hidden);
    rows(block, kRowBlock, std::max(s.hidden, s.attention));
    rows(inner_block, kRowBlock, s.inner);
    take(head_rows, s.tokens * 3 * s.padded_head);
    take(context, s.tokens * s.attention);
    take(sum, kRowBlock * s.hidden);
    take(inner, kRowBlock * s.inner);
    take(head.query, even * s.padded_head);
    take(head.key, even * s.padded_head);
    take(head.value, even * s.padded_head);
    take(head.score, detail::kScoreRows * even);
    take(head.weight, detail::kScoreRows * even);
  }
};

Arena& thread_arena() {
  thread_local Arena arena;
  return arena;
}

QuantizedRows from_row(const QuantizedRows& rows, std::size_t row, std::size_t width) noexcept {
  return {rows.values + row * width, rows.scale + row, rows.low + row};
}

}  // namespace

struct NativeEncoder::Packed {
  const EncoderKernels& kernels;
  std::size_t hidden, positions, vocabulary, pair_count, heads, attention, padded_head, inner;
  ModelVector<std::int8_t> words, pairs;
  ModelVector<float> word_scale, position, pair_scale;
  PackedNorm norm;
  std::vector<PackedLayer> layers;

  explicit Packed(const EncoderWeights& w)
      : kernels(detail::encoder_kernels(active_isa())),
        hidden(w.hidden),
        positions(w.positions),
        vocabulary(w.vocabulary),
        pair_count(w.pair_rows),
        heads(w.heads),
        attention(w.layers[0].query.outputs),
        padded_head(round_up(attention / w.heads, 32)),
        inner(w.layers[0].intermediate.outputs),
        words(w.words, w.words + w.vocabulary * w.hidden),
        pairs(w.pairs, w.pairs + w.pair_rows * w.hidden),
        word_scale(copy(w.word_scale, w.vocabulary)),
        position(copy(w.position, w.positions * w.hidden)),
        pair_scale(copy(w.pair_scale, w.pair_rows)),
        norm(w.norm, w.hidden, w.epsilon) {
    layers.reserve(w.layers.size());
    for (const EncoderLayerWeights& layer : w.layers) {
      require(layer.query.outputs == attention && layer.intermediate.outputs == inner,
              "layers differ in width");
      layers.push_back({pack_heads(layer), pack(layer.attention_out, kernels),
                        pack(layer.intermediate, kernels), pack(layer.output, kernels),
                        PackedNorm(layer.attention_norm, hidden, w.epsilon),
                        PackedNorm(layer.output_norm, hidden, w.epsilon)});
    }
  }

  [[nodiscard]] std::vector<PackedStore> pack_heads(const EncoderLayerWeights& layer) const {
    const std::size_t size = attention / heads;
    std::vector<PackedStore> packed;
    packed.reserve(heads);
    for (std::size_t h = 0; h < heads; ++h) {
      Columns columns;
      for (const LinearWeights* part : {&layer.query, &layer.key, &layer.value}) {
        append(columns, *part, h * size, size, padded_head);
      }
      packed.emplace_back(columns, kernels);
    }
    return packed;
  }

  // One text. `out` holds the residual stream throughout.
  void encode(const std::int64_t* ids, std::size_t tokens, float* out) const {
    const Scratch scratch =
        Scratch::from(thread_arena(), {tokens, hidden, attention, inner, padded_head});
    // Checked in a copy: another thread may write to what the caller gave.
    std::copy_n(ids, tokens, scratch.ids);
    for (const std::int64_t id : std::span(scratch.ids, tokens)) {
      if (id < 0 || static_cast<std::uint64_t>(id) >= vocabulary) {
        throw std::invalid_argument("token id " + std::to_string(id) +
                                    " is not in the vocabulary of " + std::to_string(vocabulary));
      }
    }
    if (pair_count > 0) find_pairs(tokens, scratch);
    kernels.embed({words.data(), word_scale.data(), position.data(),
                   pair_count > 0 ? pairs.data() : nullptr, pair_scale.data()},
                  norm.view(), scratch.ids, scratch.pair_rows, 0, tokens, hidden, out,
                  scratch.hidden);
    for (const PackedLayer& layer : layers) {
      attend(layer, tokens, scratch);
      const bool last = &layer == &layers.back();
      for (std::size_t row = 0; row < tokens; row += kRowBlock) {
        finish(layer, row, std::min(kRowBlock, tokens - row), last, scratch, out);
      }
    }
  }

  // The tables are larger than the near caches and read here and there: all rows are asked for
  // before the first is read.
  void find_pairs(std::size_t tokens, const Scratch& scratch) const noexcept {
    std::int64_t previous = 0;
    for (std::size_t i = 0; i < tokens; ++i) {
      const std::int64_t id = scratch.ids[i];
      const std::size_t row = pair_row(previous, id, pair_count);
      scratch.pair_rows[i] = static_cast<std::uint32_t>(row);
      __builtin_prefetch(pair_scale.data() + row);
      for (std::size_t at = 0; at < hidden; at += 64) {
        __builtin_prefetch(pairs.data() + row * hidden + at);
      }
      previous = id;
    }
  }

  // Heads one after another, so that the queries, keys and values of one stay in the cache.
  void attend(const PackedLayer& layer, std::size_t tokens, const Scratch& scratch) const noexcept {
    const std::size_t size = attention / heads;
    const detail::HeadShape shape{tokens, size, padded_head};
    const float factor = 1.0F / std::sqrt(static_cast<float>(size));
    for (std::size_t h = 0; h < heads; ++h) {
      kernels.linear(layer.heads[h].layer(), scratch.hidden, tokens, scratch.head_rows);
      kernels.attend(scratch.head_rows, shape, factor, scratch.head, scratch.context + h * size,
                     attention);
    }
  }

  // The rest of a layer for a block of rows, so that what is between its parts stays in the cache.
  void finish(const PackedLayer& layer, std::size_t row, std::size_t rows, bool last,
              const Scratch& scratch, float* out) const noexcept {
    float* const stream = out + row * hidden;
    kernels.quantize(scratch.context + row * attention, rows, attention, scratch.block);
    kernels.linear(layer.attention_out.layer(), scratch.block, rows, scratch.sum);
    kernels.norm(scratch.sum, stream, layer.attention_norm.view(), rows, hidden, stream,
                 scratch.block);
    kernels.linear_gelu(layer.intermediate.layer(), scratch.block, rows, scratch.inner,
                        scratch.inner_block);
    kernels.linear(layer.output.layer(), scratch.inner_block, rows, scratch.sum);
    const QuantizedRows next =
        last ? QuantizedRows{} : from_row(scratch.hidden, row, hidden);
    kernels.norm(scratch.sum, stream, layer.output_norm.view(), rows, hidden, stream, next);
  }

  [[nodiscard]] std::size_t bytes() const noexcept {
    std::size_t total = words.size() + pairs.size() +
                        4 * (word_scale.size() + pair_scale.size() + position.size() + 2 * hidden);
    for (const PackedLayer& layer : layers) {
      total += layer.attention_out.bytes() + layer.intermediate.bytes() + layer.output.bytes() +
               4 * 4 * hidden;
      for (const PackedStore& head : layer.heads) total += head.bytes();
    }
    return total;
  }
};

NativeEncoder::NativeEncoder(const EncoderWeights& weights) {
  check(weights);
  packed_ = std::make_unique<const Packed>(weights);
}

NativeEncoder::~NativeEncoder() = default;

void NativeEncoder::encode(const std::int64_t* ids, std::size_t batch, std::size_t length,
                           float* out) const {
  const Packed& packed = *packed_;
  if (length < 1 || length > packed.positions) {
    throw std::invalid_argument(std::to_string(length) + " tokens; this encoder takes 1 to " +
                                std::to_string(packed.positions));
  }
  for (std::size_t b = 0; b < batch; ++b) {
    packed.encode(ids + b * length, length, out + b * length * packed.hidden);
  }
}

std::size_t NativeEncoder::hidden() const noexcept { return packed_->hidden; }
std::size_t NativeEncoder::layers() const noexcept { return packed_->layers.size(); }
std::size_t NativeEncoder::positions() const noexcept { return packed_->positions; }
std::size_t NativeEncoder::vocabulary() const noexcept { return packed_->vocabulary; }
std::size_t NativeEncoder::bytes() const noexcept { return packed_->bytes(); }
std::string_view NativeEncoder::kernels() const noexcept { return packed_->kernels.name; }

}  // namespace raxe_fast
