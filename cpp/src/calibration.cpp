#include "raxe_fast/calibration.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

namespace raxe_fast {
namespace {

void require(bool condition, const char* message) {
  if (!condition) throw std::invalid_argument(message);
}

bool all_finite(const std::vector<double>& values) {
  return std::all_of(values.begin(), values.end(), [](double v) { return std::isfinite(v); });
}

// Never falls as z rises, to the last bit, which e^z / (1 + e^z) does. Where exp overflows, 1 / inf
// is the right result.
double logistic(double z) noexcept { return 1.0 / (1.0 + std::exp(-z)); }

// Evidence is made of float32s: sums of so much of it stay finite.
constexpr double kMaxWeight = 1e6;

}  // namespace

Calibration::Calibration(std::vector<double> weights, double bias, std::vector<double> knot_x,
                         std::vector<double> knot_y)
    : weights_(std::move(weights)),
      bias_(bias),
      knot_x_(std::move(knot_x)),
      knot_y_(std::move(knot_y)) {
  require(weights_.size() == kEvidence || weights_.size() == kPlainEvidence,
          "calibration: wrong number of weights");
  weights_.resize(kEvidence, 0.0);
  require(all_finite(weights_) && std::isfinite(bias_), "calibration: weight not finite");
  for (const double weight : weights_) {
    require(std::abs(weight) <= kMaxWeight, "calibration: a weight is beyond 1e6");
  }
  require(weights_[0] >= 0.0, "calibration: the weight of forest_logit is negative");
  require(knot_x_.size() == knot_y_.size(), "calibration: knots differ in length");
  require(all_finite(knot_x_) && all_finite(knot_y_), "calibration: knot not finite");
  for (std::size_t i = 0; i < knot_y_.size(); ++i) {
    require(knot_y_[i] >= 0.0 && knot_y_[i] <= 1.0, "calibration: knot_y leaves [0, 1]");
    if (i == 0) continue;
    require(knot_x_[i] > knot_x_[i - 1], "calibration: knot_x does not increase");
    require(knot_y_[i] >= knot_y_[i - 1], "calibration: knot_y decreases");
  }
}

double Calibration::operator()(const double* evidence) const noexcept {
  double z = bias_;
  for (std::size_t i = 0; i < kEvidence; ++i) z += weights_[i] * evidence[i];
  const double p = logistic(z);
  if (knot_x_.empty()) return p;

  const auto above = std::upper_bound(knot_x_.begin(), knot_x_.end(), p);
  if (above == knot_x_.begin()) return knot_y_.front();
  if (above == knot_x_.end()) return knot_y_.back();
  const auto i = static_cast<std::size_t>(above - knot_x_.begin());
  const double share = (p - knot_x_[i - 1]) / (knot_x_[i] - knot_x_[i - 1]);
  const double y = knot_y_[i - 1] + share * (knot_y_[i] - knot_y_[i - 1]);
  // Rounding may step over the end of a segment, and then the map would not be monotone.
  return std::clamp(y, knot_y_[i - 1], knot_y_[i]);
}

double clipped_logit(double probability) noexcept {
  const double p = std::clamp(probability, kProbabilityClip, 1.0 - kProbabilityClip);
  return std::log(p / (1.0 - p));
}

}  // namespace raxe_fast
