#include "raxe_fast/linear.hpp"

#include <cmath>
#include <stdexcept>

namespace raxe_fast {
namespace {

constexpr std::size_t kLanes = 16;

bool all_finite(const std::vector<float>& values) noexcept {
  for (const float value : values) {
    if (!std::isfinite(value)) return false;
  }
  return true;
}

}  // namespace

float dot(const float* a, const float* b, std::size_t n) noexcept {
  // One partial sum per lane: what a compiler may vectorise without reordering anything.
  float lanes[kLanes] = {};
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::size_t k = 0; k < kLanes; ++k) lanes[k] += a[i + k] * b[i + k];
  }
  for (std::size_t k = 0; i < n; ++i, ++k) lanes[k] += a[i] * b[i];
  for (std::size_t width = kLanes / 2; width > 0; width /= 2) {
    for (std::size_t k = 0; k < width; ++k) lanes[k] += lanes[k + width];
  }
  return lanes[0];
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
