// Linear layers on matrix tiles (AMX): 16 rows by 64 inputs times 64 inputs by 16 outputs an
// instruction. The sums are integers and the floats are those of encoder_simd.hpp, in the same
// order: the results equal those of every other table to the bit. All else is that of AVX-512.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "encoder_vnni.hpp"

namespace raxe_fast::detail {
namespace {

constexpr std::size_t kRows = kTileRows;
constexpr std::size_t kColumns = kTilePanel;
constexpr std::size_t kInputs = kTileInputs;
constexpr std::size_t kTileBytes = kColumns * kInputs;
constexpr std::size_t kBlockRows = 2 * kRows;
constexpr std::size_t kBlockColumns = 2 * kColumns;
// How far ahead of the weights in use those to come are brought into the cache. The layers lie one
// behind the other, as they are used: ahead of one's end is the next one.
constexpr std::size_t kAhead = 16384;

struct alignas(64) TileConfig {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
constexpr TileConfig kConfig;

// Tiles 0 to 3 sum; 4 and 5 hold rows, 6 and 7 weights. A tile is always full: rows beyond the last
// are computed from what lies behind it and thrown away, for a tile of fewer takes as long.
template <std::size_t kRowTiles, std::size_t kColumnTiles>
RAXE_INLINE void multiply(const std::uint8_t* x, std::size_t stride, const std::int8_t* weight,
                          std::size_t panel, std::size_t steps, bool prefetch,
                          std::int32_t* sums) noexcept {
  const std::uint8_t* const second = x + kRows * stride;
  _tile_zero(0);
  if constexpr (kColumnTiles == 2) _tile_zero(1);
  if constexpr (kRowTiles == 2) _tile_zero(2);
  if constexpr (kRowTiles == 2 && kColumnTiles == 2) _tile_zero(3);
  for (std::size_t s = 0; s < steps; ++s) {
    const std::int8_t* const w = weight + s * kTileBytes;
    if (prefetch) {
      const std::int8_t* const next = weight + kAhead + s * kColumnTiles * kTileBytes;
      for (std::size_t i = 0; i < kColumnTiles * kTileBytes; i += 64) {
        _mm_prefetch(next + i, _MM_HINT_T1);
      }
    }
    _tile_loadd(4, x + s * kInputs, stride);
    _tile_loadd(6, w, 64);
    _tile_dpbusd(0, 4, 6);
    if constexpr (kColumnTiles == 2) {
      _tile_loadd(7, w + panel, 64);
      _tile_dpbusd(1, 4, 7);
    }
    if constexpr (kRowTiles == 2) {
      _tile_loadd(5, second + s * kInputs, stride);
      _tile_dpbusd(2, 5, 6);
      if constexpr (kColumnTiles == 2) _tile_dpbusd(3, 5, 7);
    }
  }
  // (rows, columns) of int32, one row a line of two tiles.
  constexpr int kLine = kBlockColumns * sizeof(std::int32_t);
  _tile_stored(0, sums, kLine);
  if constexpr (kColumnTiles == 2) _tile_stored(1, sums + kColumns, kLine);
  if constexpr (kRowTiles == 2) {
    _tile_stored(2, sums + kRows * kBlockColumns, kLine);
    if constexpr (kColumnTiles == 2) _tile_stored(3, sums + kRows * kBlockColumns + kColumns, kLine);
  }
}

// The smallest and the largest value of each lane of each row, for the quantisation of gelu.
struct Ranges {
  __m512 low[kBlockRows], high[kBlockRows];
};

// From the sums of a block to floats, and with kGelu through gelu: what is read again is in the
// nearest cache still.
template <std::size_t kVectors, bool kGelu>
RAXE_INLINE void finish(const PackedLinear& layer, QuantizedRows x, std::size_t row,
                        std::size_t rows, std::size_t column, const std::int32_t* sums, float* out,
                        Ranges* ranges) noexcept {
  __m512 scale[kVectors], sum[kVectors], bias[kVectors];
  for (std::size_t v = 0; v < kVectors; ++v) {
    scale[v] = _mm512_loadu_ps(layer.scale + column + v * kColumns);
    sum[v] = _mm512_loadu_ps(layer.sum + column + v * kColumns);
    bias[v] = _mm512_loadu_ps(layer.bias + column + v * kColumns);
  }
  for (std::size_t r = 0; r < rows; ++r) {
    const __m512 low = _mm512_set1_ps(x.low[row + r]);
    const __m512 step = _mm512_set1_ps(x.scale[row + r]);
    float* const to = out + (row + r) * layer.outputs + column;
    for (std::size_t v = 0; v < kVectors; ++v) {
      const __m512 product =
          _mm512_cvtepi32_ps(_mm512_load_si512(sums + r * kBlockColumns + v * kColumns));
      const __m512 shift = _mm512_fmadd_ps(low, sum[v], bias[v]);
      __m512 y = _mm512_fmadd_ps(_mm512_mul_ps(product, scale[v]), step, shift);
      if constexpr (kGelu) {
        y = gelu_of<Vnni>(y);
        ranges->low[r] = _mm512_min_ps(ranges->low[r], y);
        ranges->high[r] = _mm512_max_ps(ranges->high[r], y);
      }
      _mm512_storeu_ps(to + v * kColumns, y);
    }
  }
}

// With kGelu at most kBlockRows rows.
template <bool kGelu>
RAXE_INLINE void product(const PackedLinear& layer, QuantizedRows x, std::size_t rows, float* out,
                         Ranges* ranges) noexcept {
  _tile_loadconfig(&kConfig);
  alignas(64) std::int32_t sums[kBlockRows * kBlockColumns];
  const std::size_t steps = (layer.inputs + kInputs - 1) / kInputs;
  const std::size_t panel = steps * kTileBytes;
  for (std::size_t column = 0; column < layer.outputs; column += kBlockColumns) {
    const std::int8_t* const weight = layer.weight + column / kColumns * panel;
    const bool two = column + kBlockColumns <= layer.outputs;
    for (std::size_t row = 0; row < rows; row += kBlockRows) {
      const std::uint8_t* const from = x.values + row * layer.inputs;
      const std::size_t left = rows - row;
      const std::size_t count = left < kBlockRows ? left : kBlockRows;
      const bool first = row == 0;
      if (two) {
        if (left > kRows) {
          multiply<2, 2>(from, layer.inputs, weight, panel, steps, first, sums);
        } else {
          multiply<1, 2>(from, layer.inputs, weight, panel, steps, first, sums);
        }
        finish<2, kGelu>(layer, x, row, count, column, sums, out, ranges);
      } else {
        if (left > kRows) {
          multiply<2, 1>(from, layer.inputs, weight, panel, steps, first, sums);
        } else {
          multiply<1, 1>(from, layer.inputs, weight, panel, steps, first, sums);
        }
        finish<1, kGelu>(layer, x, row, count, column, sums, out, ranges);
      }
    }
  }
  // Tiles in use would be saved at every switch of threads.
  _tile_release();
}

void linear_tiles(const PackedLinear& layer, QuantizedRows x, std::size_t rows,
                  float* out) noexcept {
  product<false>(layer, x, rows, out, nullptr);
}

void linear_gelu_tiles(const PackedLinear& layer, QuantizedRows x, std::size_t rows, float* floats,
                       QuantizedRows quantized) noexcept {
  static_assert(kRowBlock <= kBlockRows);
  Ranges ranges;
  for (std::size_t r = 0; r < rows; ++r) {
    ranges.low[r] = Vnni::set(3.0e38F);
    ranges.high[r] = Vnni::set(-3.0e38F);
  }
  product<true>(layer, x, rows, floats, &ranges);
  for (std::size_t r = 0; r < rows; ++r) {
    quantize_row<Vnni>(floats + r * layer.outputs, layer.outputs, Vnni::lowest(ranges.low[r]),
                       Vnni::highest(ranges.high[r]), quantized.values + r * layer.outputs,
                       quantized.scale + r, quantized.low + r);
  }
}

}  // namespace

constinit const EncoderKernels kEncoderAmx = [] {
  EncoderKernels kernels = make_kernels<Vnni>("amx", Packing::tiles);
  kernels.panel = kTilePanel;
  kernels.linear = &linear_tiles;
  kernels.linear_gelu = &linear_gelu_tiles;
  return kernels;
}();

}  // namespace raxe_fast::detail
