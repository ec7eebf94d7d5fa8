#include "raxe_fast/linear.hpp"

#include <array>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "raxe_fast/cpu.hpp"

namespace raxe_fast {
namespace {

constexpr std::size_t kLanes = 16;

bool all_finite(const std::vector<float>& values) noexcept {
  for (const float value : values) {
    if (!std::isfinite(value)) return false;
  }
  return true;
}

// One partial sum per lane, in registers of whatever width: the additions are the same ones.
using Lanes = float __attribute__((vector_size(kLanes * sizeof(float))));

[[gnu::always_inline]] inline float dot_lanes(const float* a, const float* b, std::size_t n) {
  Lanes sums{};
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    Lanes x, y;
    std::memcpy(&x, a + i, sizeof x);
    std::memcpy(&y, b + i, sizeof y);
    sums += x * y;
  }
  float lanes[kLanes];
  std::memcpy(lanes, &sums, sizeof lanes);
  for (std::size_t k = 0; i < n; ++i, ++k) lanes[k] += a[i] * b[i];
  for (std::size_t width = kLanes / 2; width > 0; width /= 2) {
    for (std::size_t k = 0; k < width; ++k) lanes[k] += lanes[k + width];
  }
  return lanes[0];
}

using DotKernel = float (*)(const float*, const float*, std::size_t);

float dot_scalar(const float* a, const float* b, std::size_t n) { return dot_lanes(a, b, n); }

// Indexed by vector_level(). This file is compiled without contraction, so no level has multiply-adds.
#if defined(__x86_64__)
[[gnu::target("avx2")]] float dot_avx2(const float* a, const float* b, std::size_t n) {
  return dot_lanes(a, b, n);
}
[[gnu::target("avx512f")]] float dot_avx512(const float* a, const float* b, std::size_t n) {
  return dot_lanes(a, b, n);
}
constexpr std::array<DotKernel, 3> kDot{dot_scalar, dot_avx2, dot_avx512};
#else
constexpr std::array<DotKernel, 3> kDot{dot_scalar, dot_scalar, dot_scalar};
#endif

}  // namespace

float dot(const float* a, const float* b, std::size_t n) noexcept {
  return kDot[vector_level()](a, b, n);
}

LinearLayer::LinearLayer(const std::vector<float>& weights, const std::vector<float>& bias,
                         std::size_t inputs)
    : inputs_(inputs), weights_(settle(weights)), bias_(settle(bias)) {
  if (inputs == 0 || bias.empty() || weights.size() != inputs * bias.size()) {
    throw std::invalid_argument("linear layer: weights and bias do not fit");
  }
  if (!all_finite(weights) || !all_finite(bias)) {
    throw std::invalid_argument("linear layer: a value is not finite");
  }
}

void LinearLayer::operator()(const float* x, float* out) const noexcept {
  for (std::size_t k = 0; k < bias_.size(); ++k) {
    out[k] = dot(weights_.data() + k * inputs_, x, inputs_) + bias_[k];
  }
}

}  // namespace raxe_fast
