// A BERT sentence encoder in INT8: token ids in, float32 token embeddings out. One thread per call.
//
// Weights are INT8 with one scale per output; activations are quantised on the way, each token for
// itself, to 8 bits between its own smallest and largest value, queries, keys and values by head.
// All sums of products are integers and exact, and all float operations are the same in the same
// order on every instruction set: an encoder gives the same bits everywhere.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

namespace raxe_fast {

// x @ weight * scale + bias; weight int8 (inputs, outputs), row-major, scale and bias one per
// output. Views: read by the constructor of NativeEncoder only.
struct LinearWeights {
  const std::int8_t* weight = nullptr;
  const float* scale = nullptr;
  const float* bias = nullptr;
  std::size_t inputs = 0, outputs = 0;
};

struct NormWeights {
  const float* gamma = nullptr;
  const float* beta = nullptr;
};

struct EncoderLayerWeights {
  LinearWeights query, key, value, attention_out, intermediate, output;
  NormWeights attention_norm, output_norm;
};

struct EncoderWeights {
  std::size_t vocabulary = 0, positions = 0, hidden = 0, heads = 0;
  float epsilon = 1e-12F;                // of every layer norm
  const std::int8_t* words = nullptr;    // (vocabulary, hidden)
  const float* word_scale = nullptr;     // (vocabulary)
  const float* position = nullptr;       // (positions, hidden)
  // Optional: rows that are added for pairs of neighbouring tokens, see pair_row. pair_rows is 0
  // for none.
  std::size_t pair_rows = 0;
  const std::int8_t* pairs = nullptr;    // (pair_rows, hidden)
  const float* pair_scale = nullptr;     // (pair_rows)
  NormWeights norm;                      // of the embeddings
  std::vector<EncoderLayerWeights> layers;
};

// The row, of `rows`, of a token and the one before it (0 before the first of a text): the hash
// (1000003 previous + 7919 token) mod (2^31 - 1) mod rows. Ids are not negative and below 2^31.
[[nodiscard]] constexpr std::size_t pair_row(std::int64_t previous, std::int64_t token,
                                             std::size_t rows) noexcept {
  const auto mixed = static_cast<std::uint64_t>(previous) * 1000003U +
                     static_cast<std::uint64_t>(token) * 7919U;
  return static_cast<std::size_t>(mixed % 2147483647U) % rows;
}

class NativeEncoder {
 public:
  // The largest magnitude of a weight: so far no instruction set can overflow on the way.
  static constexpr int kWeightLimit = 64;
  static constexpr std::size_t kMaxHidden = 1024;
  static constexpr std::size_t kMaxInner = 8192;
  static constexpr std::size_t kMaxPositions = 4096;
  static constexpr std::size_t kMaxHeadSize = 128;
  static constexpr std::size_t kMaxPairRows = std::size_t{1} << 24;

  // Packs the weights for the instruction set in use (cpu.hpp), which stays that of this encoder.
  // hidden, the width of attention and of the inner layer: multiples of 32; the width of attention
  // is a multiple of heads. Throws std::invalid_argument for shapes that do not fit or are out of
  // range, weights beyond +-kWeightLimit, floats that are not finite, and scales, biases and norms so
  // large that an activation might exceed 1e15: what is left cannot overflow.
  explicit NativeEncoder(const EncoderWeights& weights);
  ~NativeEncoder();
  NativeEncoder(const NativeEncoder&) = delete;
  NativeEncoder& operator=(const NativeEncoder&) = delete;

  // ids: (batch, length), nothing padded; out: (batch, length, hidden), overwritten. A text's
  // embeddings do not depend on the rest of its batch. Thread-safe; scratch is per thread, grows
  // to the longest text seen and is then reused. Throws std::invalid_argument if an id is outside
  // the vocabulary (texts before it are in `out` then) or length is 0 or exceeds positions.
  void encode(const std::int64_t* ids, std::size_t batch, std::size_t length, float* out) const;

  [[nodiscard]] std::size_t hidden() const noexcept;
  [[nodiscard]] std::size_t layers() const noexcept;
  [[nodiscard]] std::size_t positions() const noexcept;
  [[nodiscard]] std::size_t vocabulary() const noexcept;
  [[nodiscard]] std::size_t bytes() const noexcept;          // of packed weights and tables
  [[nodiscard]] std::string_view kernels() const noexcept;   // "scalar", "avx2", "avx512vnni", "amx"

 private:
  struct Packed;
  std::unique_ptr<const Packed> packed_;
};

}  // namespace raxe_fast
