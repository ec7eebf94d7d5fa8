// A linear layer y = W x + b in float32, for the heads that the encoder was tuned with.
#pragma once

#include <cstddef>
#include <vector>

#include "raxe_fast/model_memory.hpp"

namespace raxe_fast {

// out[r] = sum of rows[r * stride + i] * x[i], i < n, for r < count. The order of each summation is
// fixed (16 interleaved partial sums), so the result is the same on every machine, whatever its
// vector width, and whatever rows stand beside it.
void dots(const float* rows, std::size_t count, std::size_t stride, const float* x, std::size_t n,
          float* out) noexcept;

class LinearLayer {
 public:
  // weights: (outputs, inputs), row-major. Throws std::invalid_argument unless there is one bias an
  // output, at least one of each, and every value is finite.
  LinearLayer(const std::vector<float>& weights, const std::vector<float>& bias,
              std::size_t inputs);

  [[nodiscard]] std::size_t inputs() const noexcept { return inputs_; }
  [[nodiscard]] std::size_t outputs() const noexcept { return bias_.size(); }
  // x: inputs() floats; out: outputs() floats, overwritten.
  void operator()(const float* x, float* out) const noexcept;

 private:
  std::size_t inputs_;
  ModelVector<float> weights_, bias_;
};

}  // namespace raxe_fast
