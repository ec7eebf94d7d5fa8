// The kernels of the encoder, one table per instruction set, one file per table.
//
// As with the other kernels, the variants' files include no standard header with inline functions.
// All variants do the same float operations in the same order, without contraction (the build
// passes -ffp-contract=off), so that their results are equal to the last bit:
//   sums of a norm: 32 partial sums, element i to sum i % 32, then halves added up, 16 8 4 2 1;
//   everything else: element by element, fused multiply-adds only where written.
// Where a value does not fit an integer type (NaN included), it becomes the type's minimum, then is
// clamped: quantised activations are in 0..255 whatever comes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace raxe_fast {
enum class Isa : int;  // cpu.hpp
}

namespace raxe_fast::detail {

// gelu(x) = x * (0.5 + t * P(t * t)), t = x clamped to +-kGeluRange. P: minimax for the error of
// gelu, pinned so that gelu(x) = x or 0 beyond the range; |error| < 1e-4 for |x| <= 16 (tested).
inline constexpr float kGeluRange = 4.25F;
inline constexpr float kGelu[8] = {0.39842004F,    -0.0654535F,    0.009257821F,   -0.0009404471F,
                                   6.552703e-05F, -2.938798e-06F, 7.5708165e-08F, -8.4603863e-10F};
// 2^r for r in [-0.5, 0.5], relative error < 1.1e-4.
inline constexpr float kExp2[4] = {0.9999289403695112F, 0.6932762416819607F, 0.24260405145947936F,
                                   0.05508868380751114F};
inline constexpr float kExp2Lowest = -60.0F;  // below, all that is asked of 2^x is to round to 0

inline constexpr std::size_t kMaxPadded = 128;      // columns of a head
inline constexpr std::size_t kNormSums = 32;
inline constexpr std::size_t kRowBlock = 32;      // rows that go through the inner layer at a time
inline constexpr float kHeadLevels = 127.0F;      // of queries, keys and values, each side of 0
inline constexpr float kWeightLevels = 255.0F;    // of attention weights, the largest of a row
inline constexpr float kWeightLevelsLog2 = 7.9943534F;
inline constexpr float kLog2E = 1.4426950408889634F;
inline constexpr float kTiny = 1e-20F;            // lower bound of scales

// A linear layer as packed for one table; outputs are a multiple of 16, inputs of 32.
struct PackedLinear {
  std::size_t inputs, outputs;
  const std::int8_t* weight;  // see the table's packing
  const float* scale;         // (outputs)
  const float* sum;           // (outputs): scale * sum of the column's weights
  const float* bias;          // (outputs)
  // Packing::paired: entries [late_begin[p], late_begin[p + 1]) are what was taken out of panel p:
  // late_step is the step (inputs / 4), late_weight (entries, EncoderKernels::panel, 4).
  const std::uint32_t* late_begin;
  const std::uint32_t* late_step;
  const std::int8_t* late_weight;
};

// Rows of unsigned bytes; element = scale[row] * value + low[row].
struct QuantizedRows {
  std::uint8_t* values;
  float* scale;
  float* low;
};

struct EmbeddingTables {
  const std::int8_t* words;
  const float* word_scale;
  const float* position;
  const std::int8_t* pairs;  // nullptr: none
  const float* pair_scale;
};

struct Norm {
  const float* gamma;
  const float* beta;
  float epsilon;
};

// One head of one text. `rows`: query, key and value of each token, each `padded` floats, zeros
// from `head` on; padded is a multiple of 32.
struct HeadShape {
  std::size_t tokens, head, padded;
};

// Sizes in elements, with T = tokens rounded up to 16: query, key, value T * padded,
// score and weight kScoreRows * T. Variants may lay them out as they like.
inline constexpr std::size_t kScoreRows = 8;
struct HeadScratch {
  std::int16_t* query;
  std::int16_t* key;
  std::int16_t* value;
  float* score;
  std::int16_t* weight;
};

enum class Packing : int {
  rows,    // (outputs, inputs), row-major
  panels,  // panels of EncoderKernels::panel columns (the last may have fewer), each
           // (inputs / 4, columns, 4)
  tiles,   // panels of 16 columns, the inputs filled up with zeros to a multiple of kTileInputs
  paired,  // as panels; of two steps in a row, 8 inputs, the products of a column with any bytes fit
           // int16 when summed by fours: weights beyond that are not in the panel but in late_*
};

struct EncoderKernels {
  const char* name;
  Packing packing;
  std::size_t panel;

  // hidden[i] = norm(word of ids[i] + position first + i + pair_rows[i] of the pairs); quantised as
  // well. Without pairs pair_rows is not read.
  void (*embed)(const EmbeddingTables& tables, const Norm& norm, const std::int64_t* ids,
                const std::uint32_t* pair_rows, std::size_t first, std::size_t count, std::size_t width, float* hidden,
                QuantizedRows quantized) noexcept;
  // out = norm(x + residual), rows of `width`; in place or onto residual allowed. quantized.values
  // may be nullptr.
  void (*norm)(const float* x, const float* residual, const Norm& norm, std::size_t rows,
               std::size_t width, float* out, QuantizedRows quantized) noexcept;
  void (*quantize)(const float* x, std::size_t rows, std::size_t width,
                   QuantizedRows quantized) noexcept;
  // x = gelu(x), quantised.
  void (*gelu)(float* x, std::size_t rows, std::size_t width, QuantizedRows quantized) noexcept;
  // out (rows, layer.outputs) = x @ weight * scale + bias
  void (*linear)(const PackedLinear& layer, QuantizedRows x, std::size_t rows,
                 float* out) noexcept;
  // gelu of that, quantised; at most kRowBlock rows. floats (rows, layer.outputs): scratch.
  void (*linear_gelu)(const PackedLinear& layer, QuantizedRows x, std::size_t rows, float* floats,
                      QuantizedRows quantized) noexcept;
  // context[token * stride + d] for d < shape.head: softmax(factor * query @ key) @ value.
  void (*attend)(const float* rows, const HeadShape& shape, float factor,
                 const HeadScratch& scratch, float* context, std::size_t stride) noexcept;
};

// Matrix tiles read this many rows and inputs at a time, whatever is asked of them: behind rows of
// bytes there must be memory up to a multiple of kTileRows rows, and kTileInputs bytes more.
inline constexpr std::size_t kTileRows = 16;
inline constexpr std::size_t kTileInputs = 64;
inline constexpr std::size_t kTilePanel = 16;

extern const EncoderKernels kEncoderScalar;
extern const EncoderKernels kEncoderAvx2;
extern const EncoderKernels kEncoderAvx512Vnni;
extern const EncoderKernels kEncoderAmx;  // only where detected_isa() is Isa::amx

// The table to use at a level of this machine.
[[nodiscard]] const EncoderKernels& encoder_kernels(Isa isa) noexcept;

}  // namespace raxe_fast::detail
