#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <stdexcept>
#include <vector>

#include "isa_levels.hpp"
#include "raxe_fast/clusters.hpp"

using namespace raxe_fast;
using raxe_fast::test::on_every_isa;

namespace {

std::vector<float> unit_rows(std::size_t count, std::size_t hidden, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> rows(count * hidden);
  for (std::size_t i = 0; i < count; ++i) {
    double square = 0.0;
    for (std::size_t j = 0; j < hidden; ++j) {
      const float value = normal(random);
      rows[i * hidden + j] = value;
      square += static_cast<double>(value) * static_cast<double>(value);
    }
    for (std::size_t j = 0; j < hidden; ++j) {
      rows[i * hidden + j] = static_cast<float>(
          static_cast<double>(rows[i * hidden + j]) / std::sqrt(square));
    }
  }
  return rows;
}

}  // namespace

TEST_CASE("clusters unit: literals") {
  on_every_isa([] {
    const Clusters clusters({1, 0, 0, 0, 1, 0, 0.6F, 0.8F, 0, 0, 0, 1}, 3, 3);
    CHECK(clusters.count() == 4);
    CHECK(clusters.n_attack() == 3);
    Neighbour nearest[kNearest];
    const float x[3] = {0.0F, 1.0F, 0.0F};
    CHECK(clusters.nearest(x, nearest) == 0.0F);
    CHECK(nearest[0].cluster == 1);
    CHECK(nearest[0].cosine == 1.0F);
    CHECK(nearest[1].cluster == 2);
    CHECK(nearest[1].cosine == doctest::Approx(0.8));
    CHECK(nearest[2].cluster == 0);
    CHECK(nearest[2].cosine == 0.0F);
  });
}

TEST_CASE("clusters rules: harmless clusters count for novelty alone") {
  const Clusters clusters({1, 0, 0, 1}, 2, 1);
  Neighbour nearest[kNearest];
  const float x[2] = {0.0F, 1.0F};
  CHECK(clusters.nearest(x, nearest) == 0.0F);
  CHECK(nearest[0].cluster == 0);
  CHECK(nearest[0].cosine == 0.0F);
  CHECK(nearest[1].cluster == -1);
  CHECK(nearest[2].cluster == -1);
  const float opposite[2] = {-std::sqrt(0.5F), -std::sqrt(0.5F)};
  CHECK(clusters.nearest(opposite, nearest) == doctest::Approx(1.0 + std::sqrt(0.5)));
}

TEST_CASE("clusters rules: of equal cosines the lower cluster comes first") {
  const Clusters clusters({1, 0, 1, 0, 0, 1, 1, 0, 1, 0}, 2, 5);
  Neighbour nearest[kNearest];
  const float x[2] = {1.0F, 0.0F};
  clusters.nearest(x, nearest);
  CHECK(nearest[0].cluster == 0);
  CHECK(nearest[1].cluster == 1);
  CHECK(nearest[2].cluster == 3);
}

TEST_CASE("clusters rules: no cluster at all") {
  const Clusters clusters({}, 4, 0);
  Neighbour nearest[kNearest];
  const float x[4] = {1.0F, 0.0F, 0.0F, 0.0F};
  CHECK(clusters.nearest(x, nearest) == 1.0F);
  CHECK(nearest[0].cluster == -1);
}

TEST_CASE("clusters safety: malformed centroids are refused") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  CHECK_THROWS_AS(Clusters({1, 0, 0}, 2, 0), std::invalid_argument);
  CHECK_THROWS_AS(Clusters({1, 0}, 0, 0), std::invalid_argument);
  CHECK_THROWS_AS(Clusters({1, 0}, 2, 2), std::invalid_argument);
  CHECK_THROWS_AS(Clusters({1, 1}, 2, 1), std::invalid_argument);
  CHECK_THROWS_AS(Clusters({nan, 0}, 2, 1), std::invalid_argument);
  CHECK_THROWS_AS(Clusters({inf, 0}, 2, 1), std::invalid_argument);
  CHECK_NOTHROW(Clusters({1.0009F, 0}, 2, 1));
  CHECK_THROWS_AS(Clusters({1.0011F, 0}, 2, 1), std::invalid_argument);
}

TEST_CASE("clusters safety: a NaN embedding does no harm") {
  on_every_isa([] {
    const Clusters clusters(unit_rows(70, 19, 3), 19, 70);
    const std::vector<float> x(19, std::numeric_limits<float>::quiet_NaN());
    Neighbour nearest[kNearest];
    const float novelty = clusters.nearest(x.data(), nearest);
    CHECK((novelty >= 0.0F && novelty <= 2.0F));
  });
}

TEST_CASE("clusters all: every instruction set agrees with a full sort in double") {
  for (const std::size_t hidden : {3U, 16U, 33U, 384U, 391U}) {
    for (const std::size_t count : {1U, 2U, 9U, 64U, 65U, 201U}) {
      const auto rows = unit_rows(count, hidden, static_cast<unsigned>(hidden + count));
      const auto x = unit_rows(1, hidden, 1);
      const std::size_t n_attack = count - count / 4;
      std::vector<std::pair<double, std::int32_t>> order;
      double best = -2.0;
      for (std::size_t i = 0; i < count; ++i) {
        double dot = 0.0;
        for (std::size_t j = 0; j < hidden; ++j) {
          dot += static_cast<double>(rows[i * hidden + j]) * static_cast<double>(x[j]);
        }
        best = std::max(best, dot);
        if (i < n_attack) order.emplace_back(-dot, static_cast<std::int32_t>(i));
      }
      std::sort(order.begin(), order.end());
      const Clusters clusters(rows, hidden, n_attack);
      on_every_isa([&] {
        Neighbour nearest[kNearest];
        const float novelty = clusters.nearest(x.data(), nearest);
        CHECK(std::abs(static_cast<double>(novelty) - (1.0 - best)) < 1e-6);
        for (std::size_t k = 0; k < kNearest; ++k) {
          if (k >= order.size()) {
            CHECK(nearest[k].cluster == -1);
            continue;
          }
          CHECK(nearest[k].cluster == order[k].second);
          CHECK(std::abs(static_cast<double>(nearest[k].cosine) + order[k].first) < 1e-6);
        }
      });
    }
  }
}
