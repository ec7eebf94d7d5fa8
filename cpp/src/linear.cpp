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

// GCC takes no vector_size that depends on a template's argument.
using Lanes4 = float __attribute__((vector_size(16)));
using Lanes8 = float __attribute__((vector_size(32)));
using Lanes16 = float __attribute__((vector_size(64)));

// kRows rows with one x: each load of x serves all of them, and their chains overlap. There is one
// partial sum per lane, whatever the width of the registers: the additions are the same ones.
template <typename Lanes, std::size_t kRows>
[[gnu::always_inline]] inline void dot_lanes(const float* rows, std::size_t stride, const float* x,
                                             std::size_t n, float* out) {
  constexpr std::size_t kWidth = sizeof(Lanes) / sizeof(float);
  constexpr std::size_t kParts = kLanes / kWidth;
  Lanes sums[kRows][kParts] = {};
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::size_t part = 0; part < kParts; ++part) {
      Lanes value;
      std::memcpy(&value, x + i + part * kWidth, sizeof value);
      for (std::size_t r = 0; r < kRows; ++r) {
        Lanes row;
        std::memcpy(&row, rows + r * stride + i + part * kWidth, sizeof row);
        sums[r][part] += row * value;
      }
    }
  }
  for (std::size_t r = 0; r < kRows; ++r) {
    float lanes[kLanes];
    if (i < n) {
      std::memcpy(lanes, sums[r], sizeof lanes);
      for (std::size_t k = i; k < n; ++k) lanes[k - i] += rows[r * stride + k] * x[k];
      std::memcpy(sums[r], lanes, sizeof lanes);
    }
    for (std::size_t parts = kParts / 2; parts > 0; parts /= 2) {
      for (std::size_t part = 0; part < parts; ++part) sums[r][part] += sums[r][part + parts];
    }
    std::memcpy(lanes, sums[r], sizeof sums[r][0]);
    for (std::size_t width = kWidth / 2; width > 0; width /= 2) {
      for (std::size_t k = 0; k < width; ++k) lanes[k] += lanes[k + width];
    }
    out[r] = lanes[0];
  }
}

template <typename Lanes>
[[gnu::always_inline]] inline void dots_lanes(const float* rows, std::size_t count,
                                              std::size_t stride, const float* x, std::size_t n,
                                              float* out) {
  constexpr std::size_t kTogether = 4;
  std::size_t r = 0;
  for (; r + kTogether <= count; r += kTogether) {
    dot_lanes<Lanes, kTogether>(rows + r * stride, stride, x, n, out + r);
  }
  for (; r < count; ++r) dot_lanes<Lanes, 1>(rows + r * stride, stride, x, n, out + r);
}

using DotKernel = void (*)(const float*, std::size_t, std::size_t, const float*, std::size_t,
                           float*);

void dots_scalar(const float* rows, std::size_t count, std::size_t stride, const float* x,
                 std::size_t n, float* out) {
  dots_lanes<Lanes4>(rows, count, stride, x, n, out);
}

// Indexed by vector_level(). This file is compiled without contraction: no level multiplies and
// adds in one.
#if defined(__x86_64__)
[[gnu::target("avx2")]] void dots_avx2(const float* rows, std::size_t count, std::size_t stride,
                                       const float* x, std::size_t n, float* out) {
  dots_lanes<Lanes8>(rows, count, stride, x, n, out);
}
[[gnu::target("avx512f")]] void dots_avx512(const float* rows, std::size_t count,
                                            std::size_t stride, const float* x, std::size_t n,
                                            float* out) {
  dots_lanes<Lanes16>(rows, count, stride, x, n, out);
}
constexpr std::array<DotKernel, 3> kDots{dots_scalar, dots_avx2, dots_avx512};
#else
constexpr std::array<DotKernel, 3> kDots{dots_scalar, dots_scalar, dots_scalar};
#endif

}  // namespace

void dots(const float* rows, std::size_t count, std::size_t stride, const float* x, std::size_t n,
          float* out) noexcept {
  kDots[vector_level()](rows, count, stride, x, n, out);
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
  dots(weights_.data(), bias_.size(), inputs_, x, inputs_, out);
  for (std::size_t k = 0; k < bias_.size(); ++k) out[k] += bias_[k];
}

}  // namespace raxe_fast
