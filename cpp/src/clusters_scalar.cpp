#include "clusters_kernels.hpp"

namespace raxe_fast::detail {

void dot_rows_scalar(const float* rows, std::size_t count, std::size_t hidden, const float* x,
                     float* out) noexcept {
  for (std::size_t i = 0; i < count; ++i) {
    const float* row = rows + i * hidden;
    // Four partial sums: a single one would be bound by the latency of the addition.
    float sum[4] = {};
    std::size_t j = 0;
    for (; j + 4 <= hidden; j += 4) {
      for (std::size_t k = 0; k < 4; ++k) sum[k] += row[j + k] * x[j + k];
    }
    for (; j < hidden; ++j) sum[0] += row[j] * x[j];
    out[i] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
  }
}

}  // namespace raxe_fast::detail
