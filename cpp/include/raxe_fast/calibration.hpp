// Evidence -> calibrated probability of an attack.
//
// p = logistic(bias + sum_i weight[i] * evidence[i]), then, where knots are given, the monotone
// piecewise-linear map through (knot_x, knot_y) (isotonic regression; clamped at both ends).
// Evidence order is a contract with calibration.json ("inputs"):
//   0 forest_logit  log(p / (1 - p)) of the binary forest, p clipped to [1e-4, 1 - 1e-4]
//   1 rules         noisy-or rule score in [0, 1]
// and, for models whose forests see more than the embedding (features.hpp):
//   2 linear        logit of the linear head
//   3 passage       evidence of the strongest passage, a logit
//   4 lexical       n-gram score, a logit
//   5 windows       log of the number of windows of the text: the worst of many is worse by chance
#pragma once

#include <cstddef>
#include <vector>

namespace raxe_fast {

inline constexpr std::size_t kEvidence = 6;
inline constexpr std::size_t kPlainEvidence = 2;  // without the features
inline constexpr double kProbabilityClip = 1e-4;

class Calibration {
 public:
  // weights: kEvidence values, or kPlainEvidence, and the others are 0.
  // Throws std::invalid_argument for another number of weights, if a value is not
  // finite, the weight of forest_logit is negative, knots differ in length, knot_x does not
  // strictly increase, or knot_y decreases or leaves [0, 1].
  Calibration(std::vector<double> weights, double bias, std::vector<double> knot_x,
              std::vector<double> knot_y);

  // evidence: kEvidence finite values. Result in [0, 1], non-decreasing in forest_logit.
  [[nodiscard]] double operator()(const double* evidence) const noexcept;

 private:
  std::vector<double> weights_;
  double bias_;
  std::vector<double> knot_x_, knot_y_;
};

// log(p / (1 - p)) with p clipped to [kProbabilityClip, 1 - kProbabilityClip].
[[nodiscard]] double clipped_logit(double probability) noexcept;

}  // namespace raxe_fast
