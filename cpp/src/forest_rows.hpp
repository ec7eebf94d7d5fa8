// The mean of chosen leaf vectors: the last step of every forest.
#pragma once

#include <cstddef>
#include <cstdint>

namespace raxe_fast {

// Adds, for each of `n` trees in order, the leaf vector at table + row[i] * n_outputs to
// out[0 .. n_outputs). Each output is a chain of additions in tree order, whatever the blocking:
// results equal scikit-learn's to the last bit.
inline void add_leaf_rows(const double* table, const std::uint32_t* row, std::size_t n,
                          std::size_t n_outputs, double* out) noexcept {
  // Sums of a block stay in registers over all trees, and the loads of one output block do not
  // depend on each other: cold lines arrive in parallel.
  constexpr std::size_t kBlock = 8;
  std::size_t k = 0;
  for (; k + kBlock <= n_outputs; k += kBlock) {
    double sum[kBlock];
    for (std::size_t j = 0; j < kBlock; ++j) sum[j] = out[k + j];
    for (std::size_t i = 0; i < n; ++i) {
      const double* const leaf = table + row[i] * n_outputs + k;
#pragma GCC unroll 8
      for (std::size_t j = 0; j < kBlock; ++j) sum[j] += leaf[j];
    }
    for (std::size_t j = 0; j < kBlock; ++j) out[k + j] = sum[j];
  }
  for (; k + 2 <= n_outputs; k += 2) {
    double sum0 = out[k];
    double sum1 = out[k + 1];
    for (std::size_t i = 0; i < n; ++i) {
      const double* const leaf = table + row[i] * n_outputs + k;
      sum0 += leaf[0];
      sum1 += leaf[1];
    }
    out[k] = sum0;
    out[k + 1] = sum1;
  }
  if (k < n_outputs) {
    double sum = out[k];
    for (std::size_t i = 0; i < n; ++i) sum += table[row[i] * n_outputs + k];
    out[k] = sum;
  }
}

}  // namespace raxe_fast
