#include "raxe_fast/clusters.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <utility>

#include "clusters_kernels.hpp"
#include "raxe_fast/cpu.hpp"

namespace raxe_fast {
namespace {

constexpr double kUnitTolerance = 1e-3;
// Rows per kernel call: the dot products stay in a buffer on the stack.
constexpr std::size_t kChunk = 64;

// Indexed by vector_level().
#if defined(__x86_64__)
constexpr std::array<detail::DotKernel, 3> kKernels{
    detail::dot_rows_scalar, detail::dot_rows_avx2, detail::dot_rows_avx512};
#else
constexpr std::array<detail::DotKernel, 3> kKernels{
    detail::dot_rows_scalar, detail::dot_rows_scalar, detail::dot_rows_scalar};
#endif

// Keeps `nearest` sorted; of equal cosines the lower cluster stays first.
void insert(Neighbour candidate, Neighbour* nearest) noexcept {
  for (std::size_t k = 0; k < kNearest; ++k) {
    if (nearest[k].cluster < 0 || candidate.cosine > nearest[k].cosine) {
      std::swap(candidate, nearest[k]);
      if (candidate.cluster < 0) return;
    }
  }
}

}  // namespace

Clusters::Clusters(std::vector<float> centroids, std::size_t hidden, std::size_t n_attack)
    : centroids_(settle(centroids)), hidden_(hidden), count_(0), n_attack_(n_attack) {
  if (hidden_ == 0 || centroids_.size() % hidden_ != 0) {
    throw std::invalid_argument("centroids: size is not a multiple of hidden");
  }
  count_ = centroids_.size() / hidden_;
  if (count_ > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max())) {
    throw std::invalid_argument("centroids: too many rows");
  }
  if (n_attack_ > count_) throw std::invalid_argument("n_attack exceeds the number of centroids");
  for (std::size_t i = 0; i < count_; ++i) {
    double square = 0.0;
    for (std::size_t j = 0; j < hidden_; ++j) {
      const double value = static_cast<double>(centroids_[i * hidden_ + j]);
      square += value * value;
    }
    // Written so that NaN fails too.
    if (!(std::abs(std::sqrt(square) - 1.0) <= kUnitTolerance)) {
      throw std::invalid_argument("centroids: a row is not of unit length");
    }
  }
}

float Clusters::nearest(const float* embedding, Neighbour* nearest) const noexcept {
  std::fill_n(nearest, kNearest, Neighbour{});
  const auto kernel = kKernels[vector_level()];
  std::array<float, kChunk> cosine;
  float best = -std::numeric_limits<float>::infinity();
  for (std::size_t start = 0; start < count_; start += kChunk) {
    const std::size_t rows = std::min(kChunk, count_ - start);
    kernel(centroids_.data() + start * hidden_, rows, hidden_, embedding, cosine.data());
    for (std::size_t i = 0; i < rows; ++i) {
      best = std::max(best, cosine[i]);
      if (start + i < n_attack_) {
        insert({static_cast<std::int32_t>(start + i), cosine[i]}, nearest);
      }
    }
  }
  return count_ == 0 ? 1.0F : std::clamp(1.0F - best, 0.0F, 2.0F);
}

}  // namespace raxe_fast
