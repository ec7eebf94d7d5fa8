#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <random>
#include <stdexcept>
#include <vector>

#include "raxe_fast/calibration.hpp"

using namespace raxe_fast;

namespace {

double at(const Calibration& calibration, double logit, double rules) {
  const double evidence[kEvidence] = {logit, rules};
  return calibration(evidence);
}

double logistic(double z) { return 1.0 / (1.0 + std::exp(-z)); }

}  // namespace

TEST_CASE("calibration unit: six weights for six pieces of evidence") {
  const std::vector<double> weights{1.0, 2.0, -0.5, 0.25, 4.0, -1.0};
  const Calibration calibration(weights, 0.125, {}, {});
  const double evidence[kEvidence] = {0.5, 0.75, 2.0, -3.0, 0.0625, 0.5};
  CHECK(calibration(evidence) ==
        doctest::Approx(logistic(0.125 + 0.5 + 1.5 - 1.0 - 0.75 + 0.25 - 0.5)).epsilon(1e-15));
  // Each weight belongs to its own piece of evidence.
  for (std::size_t i = 0; i < kEvidence; ++i) {
    double one[kEvidence] = {};
    one[i] = 1.0;
    CHECK(calibration(one) == doctest::Approx(logistic(0.125 + weights[i])).epsilon(1e-15));
  }
}

TEST_CASE("calibration rules: two weights leave the rest of the evidence out") {
  const Calibration two({0.9, 3.0}, -2.0, {0.1, 0.6}, {0.2, 0.9});
  const Calibration six({0.9, 3.0, 0.0, 0.0, 0.0, 0.0}, -2.0, {0.1, 0.6}, {0.2, 0.9});
  for (int i = -40; i <= 40; ++i) {
    const double evidence[kEvidence] = {i * 0.2, 0.4, 5.0, -5.0, 7.0, 3.0};
    CHECK(two(evidence) == at(two, i * 0.2, 0.4));
    CHECK(six(evidence) == two(evidence));
  }
}

TEST_CASE("calibration unit: logistic literals") {
  const Calibration calibration({1.0, 2.0}, -1.0, {}, {});
  CHECK(at(calibration, 1.0, 0.0) == 0.5);
  CHECK(at(calibration, 0.0, 0.5) == 0.5);
  CHECK(at(calibration, 0.0, 1.0) == doctest::Approx(0.7310585786300049).epsilon(1e-15));
  CHECK(at(calibration, -1.0, 0.0) == doctest::Approx(0.11920292202211755).epsilon(1e-15));
}

TEST_CASE("calibration unit: knots") {
  // Weight 0 and a bias pick the logistic's value; the knots then map it.
  const auto map = [](double bias) {
    return at(Calibration({0.0, 0.0}, bias, {0.25, 0.5, 0.75}, {0.1, 0.2, 0.8}), 0.0, 0.0);
  };
  CHECK(map(0.0) == doctest::Approx(0.2));
  CHECK(map(-50.0) == 0.1);
  CHECK(map(50.0) == 0.8);
  CHECK(map(std::log(0.625 / 0.375)) == doctest::Approx(0.5));
  const Calibration constant({1.0, 1.0}, 0.0, {0.5}, {0.3});
  CHECK(at(constant, -9.0, 0.0) == 0.3);
  CHECK(at(constant, 9.0, 0.0) == 0.3);
}

TEST_CASE("calibration unit: clipped logit") {
  CHECK(clipped_logit(0.5) == 0.0);
  CHECK(clipped_logit(0.75) == doctest::Approx(std::log(3.0)));
  CHECK(clipped_logit(1.0) == doctest::Approx(std::log(9999.0)));
  CHECK(clipped_logit(0.0) == doctest::Approx(-std::log(9999.0)));
  CHECK(clipped_logit(5.0) == clipped_logit(1.0));
}

TEST_CASE("calibration rules: in [0, 1] and non-decreasing in the forest's logit") {
  const Calibration smooth({0.9, 3.0}, -2.0, {}, {});
  const Calibration mapped({0.9, 3.0}, -2.0, {0.01, 0.3, 0.300001, 0.7},
                           {0.0, 1.0 / 3.0, 0.6, 1.0});
  for (const auto* calibration : {&smooth, &mapped}) {
    double last = 0.0;
    for (int i = -4000; i <= 4000; ++i) {
      const double p = at(*calibration, i * 0.0025, 0.37);
      CHECK((p >= last && p <= 1.0));
      last = p;
    }
  }
}

TEST_CASE("calibration safety: extreme evidence does not overflow") {
  const Calibration calibration({1e6, -1e6}, 0.0, {}, {});
  const auto most = static_cast<double>(std::numeric_limits<float>::max());
  CHECK(at(calibration, most, 0.0) == 1.0);
  CHECK(at(calibration, -most, 0.0) == 0.0);
  CHECK(at(calibration, most, most) == 0.5);
}

TEST_CASE("calibration rules: never falls from one double to the next") {
  const Calibration logistic({1.0, 0.0}, 0.0, {}, {});
  std::mt19937_64 random(5);
  std::uniform_real_distribution<double> anywhere(-1.5, 1.5);
  for (int i = 0; i < 200000; ++i) {
    const double z = anywhere(random);
    const double next = std::nextafter(z, 2.0);
    CHECK(at(logistic, next, 0.0) >= at(logistic, z, 0.0));
  }
}

TEST_CASE("calibration safety: malformed parameters are refused") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double inf = std::numeric_limits<double>::infinity();
  using V = std::vector<double>;
  const auto make = [](V w, double b, V x, V y) { return Calibration(w, b, x, y); };
  CHECK_THROWS_AS(make({1.0}, 0.0, {}, {}), std::invalid_argument);
  CHECK_THROWS_AS(make({}, 0.0, {}, {}), std::invalid_argument);
  CHECK_THROWS_AS(make({1.0, 1.0, 1.0}, 0.0, {}, {}), std::invalid_argument);
  CHECK_THROWS_AS(make(V(5, 1.0), 0.0, {}, {}), std::invalid_argument);
  CHECK_THROWS_AS(make(V(7, 1.0), 0.0, {}, {}), std::invalid_argument);
  CHECK_NOTHROW(make(V(6, 1.0), 0.0, {}, {}));
  CHECK_THROWS_AS(make({1.0, 1.0, 1.0, 1.0, 1.0, nan}, 0.0, {}, {}), std::invalid_argument);
  CHECK_THROWS_AS(make({-1.0, 1.0, 1.0, 1.0, 1.0, 1.0}, 0.0, {}, {}), std::invalid_argument);
  CHECK_THROWS_AS(make({nan, 1.0}, 0.0, {}, {}), std::invalid_argument);
  CHECK_THROWS_AS(make({1.0, inf}, 0.0, {}, {}), std::invalid_argument);
  CHECK_THROWS_AS(make({1.1e6, 1.0}, 0.0, {}, {}), std::invalid_argument);
  CHECK_THROWS_AS(make({1.0, -1.1e6}, 0.0, {}, {}), std::invalid_argument);
  CHECK_THROWS_AS(make({1.0, 1.0}, nan, {}, {}), std::invalid_argument);
  CHECK_THROWS_AS(make({-0.1, 1.0}, 0.0, {}, {}), std::invalid_argument);
  CHECK_NOTHROW(make({0.0, -1.0}, 0.0, {}, {}));
  CHECK_THROWS_AS(make({1.0, 1.0}, 0.0, {0.1}, {}), std::invalid_argument);
  CHECK_THROWS_AS(make({1.0, 1.0}, 0.0, {0.1, 0.1}, {0.1, 0.2}), std::invalid_argument);
  CHECK_THROWS_AS(make({1.0, 1.0}, 0.0, {0.1, 0.2}, {0.2, 0.1}), std::invalid_argument);
  CHECK_THROWS_AS(make({1.0, 1.0}, 0.0, {0.1, 0.2}, {0.1, 1.1}), std::invalid_argument);
  CHECK_THROWS_AS(make({1.0, 1.0}, 0.0, {0.1, nan}, {0.1, 0.2}), std::invalid_argument);
  CHECK_THROWS_AS(make({1.0, 1.0}, 0.0, {0.1, 0.2}, {0.1, nan}), std::invalid_argument);
}
