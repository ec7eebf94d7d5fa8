// The encoder's kernels on vectors, for the files that know how wide these are. `V` names the
// instruction set: types F (floats) and I (int32), kLanes of each, kRows and kVectors of a tile,
// kHeadRows and kHeadVectors, and the operations used below. Everything here has internal linkage:
// V lives in an unnamed namespace.
#pragma once

#include <cstddef>
#include <cstdint>

#include "encoder_kernels.hpp"

#define RAXE_INLINE inline __attribute__((always_inline))
#if defined(__clang__)
#define RAXE_UNROLL(n) _Pragma(RAXE_STRING(unroll(n)))
#else
#define RAXE_UNROLL(n) _Pragma(RAXE_STRING(GCC unroll n))
#endif
#define RAXE_STRING(x) #x
#define RAXE_INLINE_LAMBDA __attribute__((always_inline))

namespace raxe_fast::detail {
namespace {

// ---- rows: norm, gelu, quantisation -----------------------------------------------------------

template <class V>
RAXE_INLINE void quantize_row(const float* x, std::size_t width, float low, float high,
                              std::uint8_t* values, float* scale, float* offset) noexcept {
  float step = (high - low) * (1.0F / 255.0F);
  step = step > kTiny ? step : kTiny;
  const float inverse = 1.0F / step;
  const auto by = V::set(inverse);
  const auto from = V::set(-low * inverse);
  RAXE_UNROLL(4)
  for (std::size_t i = 0; i < width; i += V::kLanes) {
    V::store_u8(values + i, V::to_int(V::fma(V::load(x + i), by, from)));
  }
  *scale = step;
  *offset = low;
}

// The 32 partial sums of a norm.
template <class V>
struct Sums {
  static constexpr std::size_t kParts = kNormSums / V::kLanes;
  typename V::F part[kParts];

  RAXE_INLINE float total() const noexcept {
    if constexpr (kParts == 2) {
      return V::sum(V::add(part[0], part[1]));
    } else {
      return V::sum(V::add(V::add(part[0], part[2]), V::add(part[1], part[3])));
    }
  }
};

template <class V, bool kQuantize>
RAXE_INLINE void norm_row(const float* x, const float* residual, const Norm& norm,
                          std::size_t width, float* out, std::uint8_t* values, float* scale,
                          float* offset) noexcept {
  using F = typename V::F;
  constexpr std::size_t kParts = Sums<V>::kParts;
  const float share = 1.0F / static_cast<float>(width);
  Sums<V> sums;
  for (std::size_t p = 0; p < kParts; ++p) sums.part[p] = V::set(0.0F);
  for (std::size_t i = 0; i < width; i += kNormSums) {
    RAXE_UNROLL(4)
    for (std::size_t p = 0; p < kParts; ++p) {
      F a = V::load(x + i + p * V::kLanes);
      if (residual != nullptr) a = V::add(a, V::load(residual + i + p * V::kLanes));
      V::store(out + i + p * V::kLanes, a);
      sums.part[p] = V::add(sums.part[p], a);
    }
  }
  const F mean = V::set(sums.total() * share);
  for (std::size_t p = 0; p < kParts; ++p) sums.part[p] = V::set(0.0F);
  for (std::size_t i = 0; i < width; i += kNormSums) {
    RAXE_UNROLL(4)
    for (std::size_t p = 0; p < kParts; ++p) {
      const F a = V::sub(V::load(out + i + p * V::kLanes), mean);
      sums.part[p] = V::fma(a, a, sums.part[p]);
    }
  }
  const F inverse = V::set(1.0F / __builtin_sqrtf(sums.total() * share + norm.epsilon));
  F low = V::set(3.0e38F);
  F high = V::set(-3.0e38F);
  RAXE_UNROLL(4)
  for (std::size_t i = 0; i < width; i += V::kLanes) {
    const F a = V::mul(V::sub(V::load(out + i), mean), inverse);
    const F y = V::fma(a, V::load(norm.gamma + i), V::load(norm.beta + i));
    V::store(out + i, y);
    if constexpr (kQuantize) {
      low = V::min(low, y);
      high = V::max(high, y);
    }
  }
  if constexpr (kQuantize) {
    quantize_row<V>(out, width, V::lowest(low), V::highest(high), values, scale, offset);
  }
}

template <class V>
void embed(const EmbeddingTables& tables, const Norm& norm, const std::int64_t* ids,
           const std::uint32_t* pair_rows, std::size_t first, std::size_t count, std::size_t width,
           float* hidden, QuantizedRows quantized) noexcept {
  for (std::size_t r = 0; r < count; ++r) {
    const auto id = static_cast<std::size_t>(ids[r]);
    const std::int8_t* const word = tables.words + id * width;
    const float* const position = tables.position + (first + r) * width;
    const auto scale = V::set(tables.word_scale[id]);
    float* const row = hidden + r * width;
    for (std::size_t i = 0; i < width; i += V::kLanes) {
      V::store(row + i, V::fma(V::load_i8(word + i), scale, V::load(position + i)));
    }
    if (tables.pairs != nullptr) {
      const std::int8_t* const pair = tables.pairs + pair_rows[r] * width;
      const auto factor = V::set(tables.pair_scale[pair_rows[r]]);
      for (std::size_t i = 0; i < width; i += V::kLanes) {
        V::store(row + i, V::fma(V::load_i8(pair + i), factor, V::load(row + i)));
      }
    }
    norm_row<V, true>(row, nullptr, norm, width, row, quantized.values + r * width,
                      quantized.scale + r, quantized.low + r);
  }
}

template <class V>
void norm(const float* x, const float* residual, const Norm& norm, std::size_t rows,
          std::size_t width, float* out, QuantizedRows quantized) noexcept {
  for (std::size_t r = 0; r < rows; ++r) {
    const float* const from = x + r * width;
    const float* const more = residual == nullptr ? nullptr : residual + r * width;
    if (quantized.values == nullptr) {
      norm_row<V, false>(from, more, norm, width, out + r * width, nullptr, nullptr, nullptr);
    } else {
      norm_row<V, true>(from, more, norm, width, out + r * width, quantized.values + r * width,
                        quantized.scale + r, quantized.low + r);
    }
  }
}

template <class V>
void quantize(const float* x, std::size_t rows, std::size_t width,
              QuantizedRows quantized) noexcept {
  for (std::size_t r = 0; r < rows; ++r) {
    const float* const row = x + r * width;
    auto low = V::load(row);
    auto high = low;
    RAXE_UNROLL(4)
    for (std::size_t i = V::kLanes; i < width; i += V::kLanes) {
      const auto a = V::load(row + i);
      low = V::min(low, a);
      high = V::max(high, a);
    }
    quantize_row<V>(row, width, V::lowest(low), V::highest(high), quantized.values + r * width,
                    quantized.scale + r, quantized.low + r);
  }
}

template <class V>
RAXE_INLINE typename V::F gelu_of(typename V::F x) noexcept {
  const auto t = V::min(V::max(x, V::set(-kGeluRange)), V::set(kGeluRange));
  const auto u = V::mul(t, t);
  auto p = V::set(kGelu[7]);
  RAXE_UNROLL(7)
  for (int k = 6; k >= 0; --k) p = V::fma(p, u, V::set(kGelu[k]));
  return V::mul(x, V::fma(p, t, V::set(0.5F)));
}

template <class V>
void gelu(float* x, std::size_t rows, std::size_t width, QuantizedRows quantized) noexcept {
  for (std::size_t r = 0; r < rows; ++r) {
    float* const row = x + r * width;
    auto low = V::set(3.0e38F);
    auto high = V::set(-3.0e38F);
    RAXE_UNROLL(2)
    for (std::size_t i = 0; i < width; i += V::kLanes) {
      const auto y = gelu_of<V>(V::load(row + i));
      V::store(row + i, y);
      low = V::min(low, y);
      high = V::max(high, y);
    }
    quantize_row<V>(row, width, V::lowest(low), V::highest(high), quantized.values + r * width,
                    quantized.scale + r, quantized.low + r);
  }
}

// ---- linear layers ----------------------------------------------------------------------------

struct Tile {
  const std::uint8_t* x;       // rows of `inputs` bytes
  const std::int8_t* weight;   // the panel
  std::size_t inputs;
  const float* x_scale;
  const float* x_low;
  const float* scale;
  const float* sum;
  const float* bias;
  float* out;
  std::size_t stride;          // of out
  const std::uint32_t* late_step;
  const std::int8_t* late_weight;
  std::size_t late;
};

// kRows rows times kVectors vectors of columns, all inputs: accumulators never leave the registers.
// kPrefetch: bring the next panel, as large, into the cache on the way (behind a layer's last one lies
// the next layer).
template <class V, std::size_t kRows, std::size_t kVectors, bool kPrefetch>
__attribute__((noinline)) void tile(const Tile& t) noexcept {
  typename V::I sums[kRows][kVectors];
  V::template products<kRows, kVectors, kPrefetch>(t, sums);
  RAXE_UNROLL(3)
  for (std::size_t v = 0; v < kVectors; ++v) {
    const auto scale = V::load(t.scale + v * V::kLanes);
    const auto sum = V::load(t.sum + v * V::kLanes);
    const auto bias = V::load(t.bias + v * V::kLanes);
    RAXE_UNROLL(8)
    for (std::size_t r = 0; r < kRows; ++r) {
      const auto shift = V::fma(V::set(t.x_low[r]), sum, bias);
      const auto y = V::fma(V::mul(V::to_float(sums[r][v]), scale), V::set(t.x_scale[r]), shift);
      V::store(t.out + r * t.stride + v * V::kLanes, y);
    }
  }
}

template <class V, std::size_t kVectors, bool kPrefetch>
RAXE_INLINE void tile_of_rows(std::size_t rows, const Tile& t) noexcept {
  if constexpr (V::kRows == 8) {
    switch (rows) {
      case 1: return tile<V, 1, kVectors, kPrefetch>(t);
      case 2: return tile<V, 2, kVectors, kPrefetch>(t);
      case 3: return tile<V, 3, kVectors, kPrefetch>(t);
      case 4: return tile<V, 4, kVectors, kPrefetch>(t);
      case 5: return tile<V, 5, kVectors, kPrefetch>(t);
      case 6: return tile<V, 6, kVectors, kPrefetch>(t);
      case 7: return tile<V, 7, kVectors, kPrefetch>(t);
      default: return tile<V, 8, kVectors, kPrefetch>(t);
    }
  } else {
    static_assert(V::kRows == 4);
    switch (rows) {
      case 1: return tile<V, 1, kVectors, kPrefetch>(t);
      case 2: return tile<V, 2, kVectors, kPrefetch>(t);
      case 3: return tile<V, 3, kVectors, kPrefetch>(t);
      default: return tile<V, 4, kVectors, kPrefetch>(t);
    }
  }
}

// One panel for all rows: it stays in the cache while the rows go by.
template <class V, std::size_t kVectors>
void panel(Tile t, std::size_t rows) noexcept {
  const std::size_t blocks = (rows + V::kRows - 1) / V::kRows;
  const std::size_t each = rows / blocks;
  const std::size_t longer = rows % blocks;
  for (std::size_t b = 0; b < blocks; ++b) {
    const std::size_t count = each + (b < longer ? 1 : 0);
    if (b == 0) {
      tile_of_rows<V, kVectors, true>(count, t);
    } else {
      tile_of_rows<V, kVectors, false>(count, t);
    }
    t.x += count * t.inputs;
    t.x_scale += count;
    t.x_low += count;
    t.out += count * t.stride;
  }
}

template <class V>
void linear(const PackedLinear& layer, QuantizedRows x, std::size_t rows, float* out) noexcept {
  constexpr std::size_t kWidth = V::kVectors * V::kLanes;
  std::size_t column = 0;
  for (std::size_t p = 0; column < layer.outputs; ++p) {
    Tile t{x.values, layer.weight + column * layer.inputs, layer.inputs, x.scale, x.low,
           layer.scale + column, layer.sum + column, layer.bias + column, out + column,
           layer.outputs, nullptr, nullptr, 0};
    const std::size_t left = (layer.outputs - column) / V::kLanes;
    if (layer.late_begin != nullptr) {
      const std::size_t begin = layer.late_begin[p];
      t.late = layer.late_begin[p + 1] - begin;
      t.late_step = layer.late_step + begin;
      t.late_weight = layer.late_weight + begin * kWidth * 4;
    }
    if (left >= V::kVectors) {
      panel<V, V::kVectors>(t, rows);
    } else if (left == 2) {
      panel<V, 2>(t, rows);
    } else {
      panel<V, 1>(t, rows);
    }
    column += kWidth;
  }
}

template <class V>
void linear_gelu(const PackedLinear& layer, QuantizedRows x, std::size_t rows, float* floats,
                 QuantizedRows quantized) noexcept {
  linear<V>(layer, x, rows, floats);
  gelu<V>(floats, rows, layer.outputs, quantized);
}

// ---- attention --------------------------------------------------------------------------------

// Queries, keys, values and weights as V multiplies them, kGroup elements of four bytes at a time:
// query (tokens, padded), key (tokens / kLanes, padded / kGroup, kLanes, kGroup), value
// (tokens / kGroup, padded, kGroup), weight (kScoreRows, tokens). Where queries are made unsigned
// by adding an offset, `shift` takes the offset's products out of the scores again, key by key.
template <class V>
struct Parts {
  typename V::Part *query, *key, *value, *weight;
  std::int32_t* shift;

  RAXE_INLINE Parts(const HeadShape& shape, const HeadScratch& scratch) noexcept
      : query(reinterpret_cast<typename V::Part*>(scratch.query)),
        key(reinterpret_cast<typename V::Part*>(scratch.key)),
        value(reinterpret_cast<typename V::Part*>(scratch.value)),
        weight(reinterpret_cast<typename V::Part*>(scratch.weight)),
        // Bytes fill half of the memory for keys.
        shift(reinterpret_cast<std::int32_t*>(scratch.key + (shape.tokens + 15) / 16 * 16 *
                                                                shape.padded / 2)) {}
};

// kRows rows of one head, from row `first`: scores, softmax and mix of values, all of whose sums of
// products are integers.
template <class V, std::size_t kRows>
__attribute__((noinline)) void attend_rows(const HeadShape& shape, const HeadScratch& scratch,
                                           std::size_t first, float to_log2, float value_step,
                                           float* context, std::size_t stride) noexcept {
  using F = typename V::F;
  using I = typename V::I;
  using Part = typename V::Part;
  constexpr std::size_t kLanes = V::kLanes;
  constexpr std::size_t kGroup = V::kGroup;
  const std::size_t groups = shape.padded / kGroup;
  const std::size_t blocks = (shape.tokens + kLanes - 1) / kLanes;
  const std::size_t padded_tokens = blocks * kLanes;
  const std::size_t tail = shape.tokens % kLanes;
  const Parts<V> parts(shape, scratch);
  const Part* const query = parts.query + first * shape.padded;

  F highest[kRows];
  RAXE_UNROLL(8)
  for (std::size_t r = 0; r < kRows; ++r) highest[r] = V::set(-1.0e30F);
  const F beyond = tail == 0 ? V::set(0.0F) : V::select_tail(tail, 0.0F, -1.0e30F);
  const auto finish = [&](std::size_t r, std::size_t block, I sums) RAXE_INLINE_LAMBDA {
    F score = V::to_float(sums);
    if (block + 1 == blocks) score = V::add(score, beyond);
    V::store(scratch.score + r * padded_tokens + block * kLanes, score);
    highest[r] = V::max(highest[r], score);
  };
  std::size_t block = 0;
  for (; block + 1 < blocks; block += 2) {
    I sums[kRows][2];
    RAXE_UNROLL(8)
    for (std::size_t r = 0; r < kRows; ++r) {
      sums[r][0] = V::first_score(parts.shift + block * kLanes);
      sums[r][1] = V::first_score(parts.shift + (block + 1) * kLanes);
    }
    const Part* const keys = parts.key + block * kLanes * shape.padded;
    const Part* const next = keys + kLanes * shape.padded;
    RAXE_UNROLL(4)
    for (std::size_t d = 0; d < groups; ++d) {
      const I key0 = V::load_int(keys + d * kLanes * kGroup);
      const I key1 = V::load_int(next + d * kLanes * kGroup);
      RAXE_UNROLL(8)
      for (std::size_t r = 0; r < kRows; ++r) {
        const I q = V::four(query + r * shape.padded + kGroup * d);
        sums[r][0] = V::dot(sums[r][0], q, key0);
        sums[r][1] = V::dot(sums[r][1], q, key1);
      }
    }
    RAXE_UNROLL(8)
    for (std::size_t r = 0; r < kRows; ++r) {
      finish(r, block, sums[r][0]);
      finish(r, block + 1, sums[r][1]);
    }
  }
  if (block < blocks) {
    I sums[kRows];
    RAXE_UNROLL(8)
    for (std::size_t r = 0; r < kRows; ++r) {
      sums[r] = V::first_score(parts.shift + block * kLanes);
    }
    const Part* const keys = parts.key + block * kLanes * shape.padded;
    RAXE_UNROLL(4)
    for (std::size_t d = 0; d < groups; ++d) {
      const I key = V::load_int(keys + d * kLanes * kGroup);
      RAXE_UNROLL(8)
      for (std::size_t r = 0; r < kRows; ++r) {
        sums[r] = V::dot(sums[r], V::four(query + r * shape.padded + kGroup * d), key);
      }
    }
    RAXE_UNROLL(8)
    for (std::size_t r = 0; r < kRows; ++r) finish(r, block, sums[r]);
  }

  float share[kRows];
  // From the highest score down: integers, so the difference is exact and the top weight is what
  // it should be however steep the slope.
  const F slope = V::set(to_log2);
  const F top = V::set(kWeightLevelsLog2);
  for (std::size_t r = 0; r < kRows; ++r) {
    const F peak = V::set(V::highest(highest[r]));
    const float* const score = scratch.score + r * padded_tokens;
    Part* const weight = parts.weight + r * padded_tokens;
    I total = V::zero();
    const std::size_t whole = tail == 0 ? padded_tokens : padded_tokens - kLanes;
    RAXE_UNROLL(2)
    for (std::size_t k = 0; k < whole; k += kLanes) {
      const I w = V::to_int(V::exp2(V::fma(V::sub(V::load(score + k), peak), slope, top)));
      total = V::add_int(total, w);
      V::store_weight(weight + k, w);
    }
    if (tail != 0) {
      I w = V::to_int(V::exp2(V::fma(V::sub(V::load(score + whole), peak), slope, top)));
      w = V::keep_first(tail, w);
      total = V::add_int(total, w);
      V::store_weight(weight + whole, w);
    }
    share[r] = value_step / static_cast<float>(V::sum_int(total));
  }

  constexpr std::size_t kWide = V::kHeadVectors;
  const std::size_t steps = (shape.tokens + kGroup - 1) / kGroup;
  for (std::size_t column = 0; column < shape.head; column += kWide * kLanes) {
    I sums[kRows][kWide];
    RAXE_UNROLL(8)
    for (std::size_t r = 0; r < kRows; ++r) {
      RAXE_UNROLL(2)
      for (std::size_t v = 0; v < kWide; ++v) sums[r][v] = V::zero();
    }
    const Part* value = parts.value + column * kGroup;
    for (std::size_t k = 0; k < steps; ++k, value += shape.padded * kGroup) {
      I values[kWide];
      RAXE_UNROLL(2)
      for (std::size_t v = 0; v < kWide; ++v) {
        values[v] = V::load_int(value + v * kLanes * kGroup);
      }
      RAXE_UNROLL(8)
      for (std::size_t r = 0; r < kRows; ++r) {
        const I w = V::four(parts.weight + r * padded_tokens + kGroup * k);
        RAXE_UNROLL(2)
        for (std::size_t v = 0; v < kWide; ++v) sums[r][v] = V::dot(sums[r][v], w, values[v]);
      }
    }
    // A head may end within the last vectors: what is beyond belongs to the next head.
    const bool whole = column + kWide * kLanes <= shape.head;
    float last[kRows][kWide * kLanes];
    RAXE_UNROLL(8)
    for (std::size_t r = 0; r < kRows; ++r) {
      float* const out = whole ? context + (first + r) * stride + column : last[r];
      RAXE_UNROLL(2)
      for (std::size_t v = 0; v < kWide; ++v) {
        V::store(out + v * kLanes, V::mul(V::to_float(sums[r][v]), V::set(share[r])));
      }
    }
    if (!whole) {
      for (std::size_t r = 0; r < kRows; ++r) {
        __builtin_memcpy(context + (first + r) * stride + column, last[r],
                         (shape.head - column) * sizeof(float));
      }
    }
  }
}

template <class V>
void attend(const float* rows, const HeadShape& shape, float factor, const HeadScratch& scratch,
            float* context, std::size_t stride) noexcept {
  using F = typename V::F;
  using I = typename V::I;
  using Part = typename V::Part;
  constexpr std::size_t kLanes = V::kLanes;
  constexpr std::size_t kGroup = V::kGroup;
  const std::size_t tokens = shape.tokens;
  const std::size_t padded = shape.padded;
  const std::size_t width = 3 * padded;
  const std::size_t groups = padded / kGroup;
  const Parts<V> parts(shape, scratch);

  F peak[3] = {V::set(0.0F), V::set(0.0F), V::set(0.0F)};
  for (std::size_t i = 0; i < tokens; ++i) {
    for (std::size_t part = 0; part < 3; ++part) {
      const float* const from = rows + i * width + part * padded;
      for (std::size_t d = 0; d < padded; d += kLanes) {
        peak[part] = V::max(peak[part], V::abs(V::load(from + d)));
      }
    }
  }
  const float query_peak = V::highest(peak[0]) + kTiny;
  const float key_peak = V::highest(peak[1]) + kTiny;
  const float value_peak = V::highest(peak[2]) + kTiny;
  const F by_query = V::set(kHeadLevels / query_peak);
  const F by_key = V::set(kHeadLevels / key_peak);
  const F by_value = V::set(kHeadLevels / value_peak);

  const std::size_t padded_tokens = (tokens + kLanes - 1) / kLanes * kLanes;
  for (std::size_t i = 0; i < padded_tokens; ++i) {
    const float* const row = rows + i * width;
    alignas(64) Part key[kMaxPadded] = {};
    I total = V::zero();
    if (i < tokens) {
      for (std::size_t d = 0; d < padded; d += kLanes) {
        const I q = V::to_int(V::mul(V::load(row + d), by_query));
        const I k = V::to_int(V::mul(V::load(row + padded + d), by_key));
        V::store_query(parts.query + i * padded + d, q);
        V::store_part(key + d, k);
        total = V::add_int(total, k);
      }
    }
    V::store_shift(parts.shift + i, total);
    Part* const out = parts.key + (i / kLanes) * padded * kLanes + (i % kLanes) * kGroup;
    RAXE_UNROLL(4)
    for (std::size_t d = 0; d < groups; ++d) {
      __builtin_memcpy(out + d * kLanes * kGroup, key + kGroup * d, 4);
    }
  }
  for (std::size_t i = 0; i < tokens; i += kGroup) {
    for (std::size_t d = 0; d < padded; d += kLanes) {
      I group[kGroup];
      for (std::size_t g = 0; g < kGroup; ++g) {
        const float* const from = rows + (i + g) * width + 2 * padded + d;
        group[g] = i + g < tokens ? V::to_int(V::mul(V::load(from), by_value)) : V::zero();
      }
      V::store_int(parts.value + i * padded + d * kGroup, V::interleave(group));
    }
  }

  const float to_log2 =
      query_peak / kHeadLevels * (key_peak / kHeadLevels) * factor * kLog2E;
  const float value_step = value_peak / kHeadLevels;
  const std::size_t blocks = (tokens + V::kHeadRows - 1) / V::kHeadRows;
  const std::size_t each = tokens / blocks;
  const std::size_t longer = tokens % blocks;
  std::size_t row = 0;
  for (std::size_t b = 0; b < blocks; ++b) {
    const std::size_t count = each + (b < longer ? 1 : 0);
    V::attend_rows(count, shape, scratch, row, to_log2, value_step, context, stride);
    row += count;
  }
}

template <class V>
constexpr EncoderKernels make_kernels(const char* name, Packing packing) noexcept {
  return {name,         packing,  V::kVectors* V::kLanes, &embed<V>,       &norm<V>,
          &quantize<V>, &gelu<V>, &linear<V>,              &linear_gelu<V>, &attend<V>};
}

}  // namespace
}  // namespace raxe_fast::detail
