#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <random>
#include <stdexcept>
#include <utility>
#include <vector>

#include "isa_levels.hpp"
#include "raxe_fast/linear.hpp"

using namespace raxe_fast;

namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

float dot(const float* a, const float* b, std::size_t n) {
  float out = kNaN;
  dots(a, 1, n, b, n, &out);
  return out;
}

struct Exact {
  double value = 0.0, magnitude = 0.0;  // the sum, and that of the terms' absolute values
};

Exact exact_dot(const float* a, const float* b, std::size_t n) {
  Exact out;
  for (std::size_t i = 0; i < n; ++i) {
    const double term = static_cast<double>(a[i]) * static_cast<double>(b[i]);
    out.value += term;
    out.magnitude += std::fabs(term);
  }
  return out;
}

// The error bound of a float32 sum of n products, whatever its order.
double bound(const Exact& exact, std::size_t n) {
  return exact.magnitude * static_cast<double>(n + 1) * 6e-8;
}

std::vector<float> normal(std::mt19937& random, std::size_t n) {
  std::normal_distribution<float> draw;
  std::vector<float> out(n);
  for (float& value : out) value = draw(random);
  return out;
}

}  // namespace

TEST_CASE("linear unit: dot literals") {
  const float a[] = {1.0F, -2.0F, 3.0F}, b[] = {4.0F, 5.0F, 0.5F};
  CHECK(dot(a, b, 3) == -4.5F);
  CHECK(dot(a, b, 1) == 4.0F);
  CHECK(dot(a, b, 0) == 0.0F);
  CHECK(dot(nullptr, nullptr, 0) == 0.0F);
}

TEST_CASE("linear rules: dot against double precision, for every length round the lanes") {
  std::mt19937 random(1);
  for (std::size_t n = 0; n <= 70; ++n) {
    for (int repeat = 0; repeat < 5; ++repeat) {
      const std::vector<float> a = normal(random, n), b = normal(random, n);
      const Exact exact = exact_dot(a.data(), b.data(), n);
      CAPTURE(n);
      CHECK(std::fabs(static_cast<double>(dot(a.data(), b.data(), n)) - exact.value) <=
            bound(exact, n));
    }
  }
}

TEST_CASE("linear rules: the order of summation is that of 16 interleaved sums") {
  // Summed from left to right, the one would be lost in the large number beside it.
  std::vector<float> a(33, 0.0F);
  const std::vector<float> ones(33, 1.0F);
  a[0] = 1e8F;
  a[1] = 1.0F;
  a[16] = -1e8F;
  CHECK(dot(a.data(), ones.data(), 33) == 1.0F);
  // The remainder joins the lanes it continues.
  a[16] = 0.0F;
  a[32] = -1e8F;
  CHECK(dot(a.data(), ones.data(), 33) == 1.0F);
  std::swap(a[0], a[1]);
  std::swap(a[32], a[17]);
  CHECK(dot(a.data(), ones.data(), 18) == 1.0F);
}

TEST_CASE("linear rules: the same bits on every instruction set, at any alignment") {
  std::mt19937 random(3);
  for (std::size_t n = 0; n <= 70; ++n) {
    const std::vector<float> a = normal(random, n + 3), b = normal(random, n + 1);
    std::vector<float> found;
    test::on_every_isa([&] { found.push_back(dot(a.data() + 3, b.data() + 1, n)); });
    for (const float value : found) CHECK(value == found.front());
  }
}

TEST_CASE("linear rules: a row's sum does not depend on the rows beside it") {
  std::mt19937 random(4);
  for (const std::size_t n : {0U, 1U, 15U, 16U, 37U, 128U}) {
    for (std::size_t count = 0; count <= 9; ++count) {
      const std::size_t stride = n + 3;
      const std::vector<float> rows = normal(random, count * stride), x = normal(random, n);
      test::on_every_isa([&] {
        std::vector<float> out(count + 1, kNaN);
        dots(rows.data(), count, stride, x.data(), n, out.data());
        for (std::size_t r = 0; r < count; ++r) {
          CHECK(out[r] == dot(rows.data() + r * stride, x.data(), n));
        }
        CHECK(std::isnan(out[count]));
      });
    }
  }
}

TEST_CASE("linear rules: what is not finite shows") {
  for (const float bad : {kNaN, kInf, -kInf}) {
    for (const std::size_t at : {0U, 15U, 16U, 20U}) {
      std::vector<float> a(21, 1.0F);
      const std::vector<float> b(21, 0.0F);
      a[at] = bad;
      CHECK(std::isnan(dot(a.data(), b.data(), 21)));
    }
  }
}

TEST_CASE("linear unit: a layer") {
  const LinearLayer layer({1.0F, 2.0F, -1.0F, 0.0F, 0.5F, 4.0F}, {10.0F, 0.25F}, 3);
  CHECK(layer.inputs() == 3);
  CHECK(layer.outputs() == 2);
  const float x[] = {1.0F, 1.0F, 2.0F};
  float out[] = {kNaN, kNaN};
  layer(x, out);
  CHECK(out[0] == 11.0F);
  CHECK(out[1] == 8.75F);
}

TEST_CASE("linear rules: a layer against double precision") {
  std::mt19937 random(2);
  for (const std::size_t inputs : {1U, 15U, 16U, 17U, 48U, 384U}) {
    for (const std::size_t outputs : {1U, 2U, 7U}) {
      const std::vector<float> weights = normal(random, inputs * outputs);
      const std::vector<float> bias = normal(random, outputs), x = normal(random, inputs);
      const LinearLayer layer(weights, bias, inputs);
      std::vector<float> out(outputs, kNaN);
      layer(x.data(), out.data());
      for (std::size_t k = 0; k < outputs; ++k) {
        Exact exact = exact_dot(weights.data() + k * inputs, x.data(), inputs);
        exact.value += static_cast<double>(bias[k]);
        exact.magnitude += std::fabs(static_cast<double>(bias[k]));
        CHECK(std::fabs(static_cast<double>(out[k]) - exact.value) <= bound(exact, inputs + 1));
      }
    }
  }
}

TEST_CASE("linear safety: malformed layers are refused") {
  using V = std::vector<float>;
  const auto make = [](const V& w, const V& b, std::size_t n) { return LinearLayer(w, b, n); };
  CHECK_NOTHROW(make({1.0F}, {0.0F}, 1));
  CHECK_THROWS_AS(make({}, {}, 1), std::invalid_argument);
  CHECK_THROWS_AS(make({}, {0.0F}, 0), std::invalid_argument);
  CHECK_THROWS_AS(make({1.0F, 2.0F}, {}, 2), std::invalid_argument);
  CHECK_THROWS_AS(make({1.0F, 2.0F}, {0.0F, 0.0F}, 2), std::invalid_argument);
  CHECK_THROWS_AS(make({1.0F, 2.0F, 3.0F}, {0.0F}, 2), std::invalid_argument);
  for (const float bad : {kNaN, kInf, -kInf}) {
    CHECK_THROWS_AS(make({1.0F, bad}, {0.0F}, 2), std::invalid_argument);
    CHECK_THROWS_AS(make({1.0F, 2.0F}, {bad}, 2), std::invalid_argument);
  }
}
