#include <cmath>

#include "pooling_kernels.hpp"

namespace raxe_fast::detail {

void mean_pool_l2_scalar(const float* tokens, std::size_t count, std::size_t hidden,
                         const std::uint8_t* mask, float* out) noexcept {
  for (std::size_t j = 0; j < hidden; ++j) out[j] = 0.0F;
  std::size_t used = 0;
  for (std::size_t i = 0; i < count; ++i) {
    if (mask != nullptr && mask[i] == 0) continue;
    ++used;
    const float* row = tokens + i * hidden;
    for (std::size_t j = 0; j < hidden; ++j) out[j] += row[j];
  }
  if (used == 0) return;

  const auto divisor = static_cast<float>(used);
  double square = 0.0;
  for (std::size_t j = 0; j < hidden; ++j) {
    out[j] /= divisor;
    square += static_cast<double>(out[j]) * static_cast<double>(out[j]);
  }
  const double norm = std::sqrt(square);
  const double scale = 1.0 / (norm < 1e-12 ? 1e-12 : norm);
  for (std::size_t j = 0; j < hidden; ++j) {
    out[j] = static_cast<float>(static_cast<double>(out[j]) * scale);
  }
}

}  // namespace raxe_fast::detail
