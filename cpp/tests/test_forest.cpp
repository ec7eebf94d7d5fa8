#include "raxe_fast/forest.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <stdexcept>
#include <vector>

#include "raxe_fast/compiled_heads.hpp"

using raxe_fast::ForestArrays;
using raxe_fast::make_packed_forest;

namespace {

// x0 <= 0.5 ? (1, 0) : (x1 <= -1 ? (0.25, 0.75) : (0, 1)), and a second tree of one leaf.
ForestArrays two_trees() {
  ForestArrays a;
  a.n_features = 2;
  a.n_outputs = 2;
  a.tree_offset = {0, 5, 6};
  a.feature = {0, -1, 1, -1, -1, -1};
  a.threshold = {0.5, 0, -1.0, 0, 0, 0};
  a.left = {1, -1, 3, -1, -1, -1};
  a.right = {2, -1, 4, -1, -1, -1};
  a.leaf_index = {-1, 0, -1, 1, 2, 3};
  a.leaf_values = {1, 0, 0.25, 0.75, 0, 1, 0.5, 0.5};
  return a;
}

std::vector<double> run(const raxe_fast::Forest& forest, const std::vector<float>& x) {
  std::vector<double> out(forest.n_outputs(), -7.0);  // predict must overwrite this
  forest.predict(x.data(), out.data());
  return out;
}

// The obvious twin: double thresholds, one tree after another.
std::vector<double> naive(const ForestArrays& a, const float* x) {
  std::vector<double> sum(a.n_outputs, 0.0);
  for (std::size_t t = 0; t + 1 < a.tree_offset.size(); ++t) {
    const std::function<std::size_t(std::size_t)> leaf = [&](std::size_t node) -> std::size_t {
      const std::size_t i = static_cast<std::size_t>(a.tree_offset[t]) + node;
      if (a.feature[i] < 0) return static_cast<std::size_t>(a.leaf_index[i]);
      const double value = static_cast<double>(x[a.feature[i]]);
      return leaf(static_cast<std::size_t>(value <= a.threshold[i] ? a.left[i] : a.right[i]));
    };
    const std::size_t row = leaf(0);
    for (std::size_t k = 0; k < a.n_outputs; ++k) sum[k] += a.leaf_values[row * a.n_outputs + k];
  }
  for (double& value : sum) value /= static_cast<double>(a.tree_offset.size() - 1);
  return sum;
}

// Random trees of random shapes; thresholds from a coarse grid, so that features hit them exactly,
// or a hair beside it in double, so that rounding to float matters.
ForestArrays random_forest(std::mt19937& rng, std::size_t trees, std::size_t leaves,
                           std::size_t outputs, std::size_t features) {
  ForestArrays a;
  a.n_features = features;
  a.n_outputs = outputs;
  a.tree_offset = {0};
  std::uniform_real_distribution<double> unit(0.0, 1.0);
  const auto below = [&](std::size_t n) {
    return std::uniform_int_distribution<std::size_t>(0, n - 1)(rng);
  };
  for (std::size_t t = 0; t < trees; ++t) {
    const std::size_t begin = a.feature.size();
    std::vector<std::size_t> open{0};
    const auto add = [&] {
      a.feature.push_back(-1);
      a.threshold.push_back(0.0);
      a.left.push_back(-1);
      a.right.push_back(-1);
      a.leaf_index.push_back(-1);
    };
    add();
    for (std::size_t splits = below(leaves); splits > 0; --splits) {
      // A random end of the open list: bushy trees and long chains alike.
      const std::size_t pick = t % 3 == 0 ? open.size() - 1 : below(open.size());
      const std::size_t node = begin + open[pick];
      open[pick] = open.back();
      open.pop_back();
      a.feature[node] = static_cast<std::int32_t>(below(features));
      const double grid = (static_cast<double>(below(17)) - 8.0) / 8.0;
      const double hair[] = {0.0, 1e-12, -1e-12};
      a.threshold[node] = grid + hair[below(3)];
      const std::size_t child = a.feature.size() - begin;
      a.left[node] = static_cast<std::int32_t>(child);
      a.right[node] = static_cast<std::int32_t>(child + 1);
      if (unit(rng) < 0.5) std::swap(a.left[node], a.right[node]);
      add();
      add();
      open.push_back(child);
      open.push_back(child + 1);
    }
    for (const std::size_t leaf : open) {
      a.leaf_index[begin + leaf] = static_cast<std::int32_t>(a.leaf_values.size() / outputs);
      for (std::size_t k = 0; k < outputs; ++k) {
        a.leaf_values.push_back(unit(rng) < 0.5 ? 0.0 : unit(rng));
      }
    }
    a.tree_offset.push_back(static_cast<std::int64_t>(a.feature.size()));
  }
  return a;
}

// A tree of `splits` inner nodes, each with a leaf on the left: as deep as can be.
ForestArrays chain(std::int32_t splits) {
  ForestArrays a;
  a.n_features = 1;
  a.n_outputs = 1;
  a.leaf_values = {0.0, 1.0};
  for (std::int32_t i = 0; i < splits; ++i) {
    a.feature.insert(a.feature.end(), {0, -1});
    a.threshold.insert(a.threshold.end(), {static_cast<double>(i), 0.0});
    a.left.insert(a.left.end(), {2 * i + 1, -1});
    a.right.insert(a.right.end(), {2 * i + 2, -1});
    a.leaf_index.insert(a.leaf_index.end(), {-1, 0});
  }
  a.feature.push_back(-1);
  a.threshold.push_back(0.0);
  a.left.push_back(-1);
  a.right.push_back(-1);
  a.leaf_index.push_back(1);
  a.tree_offset = {0, static_cast<std::int64_t>(a.feature.size())};
  return a;
}

// A complete tree: x in (k - 1, k] goes to leaf k, whose value is k's parity.
ForestArrays balanced(int depth) {
  ForestArrays a;
  a.n_features = 1;
  a.n_outputs = 1;
  a.leaf_values = {0.0, 1.0};
  const std::int32_t leaves = std::int32_t{1} << depth;
  for (std::int32_t node = 1; node < 2 * leaves; ++node) {  // heap order, counted from 1
    const bool leaf = node >= leaves;
    a.feature.push_back(leaf ? -1 : 0);
    a.left.push_back(leaf ? -1 : 2 * node - 1);
    a.right.push_back(leaf ? -1 : 2 * node);
    a.leaf_index.push_back(leaf ? node % 2 : -1);
    double threshold = 0.0;
    if (!leaf) {  // the last leaf of the left child
      std::int32_t last = 2 * node;
      while (last < leaves) last = 2 * last + 1;
      threshold = static_cast<double>(last - leaves);
    }
    a.threshold.push_back(threshold);
  }
  a.tree_offset = {0, static_cast<std::int64_t>(a.feature.size())};
  return a;
}

}  // namespace

TEST_CASE("packed: hand-written trees") {
  const auto forest = make_packed_forest(two_trees());
  CHECK(forest->n_features() == 2);
  CHECK(forest->n_outputs() == 2);
  CHECK(forest->n_trees() == 2);
  CHECK(forest->kind() == "packed");
  CHECK(run(*forest, {0.0F, 0.0F}) == std::vector<double>{0.75, 0.25});
  CHECK(run(*forest, {0.5F, 0.0F}) == std::vector<double>{0.75, 0.25});
  CHECK(run(*forest, {std::nextafter(0.5F, 1.0F), 0.0F}) == std::vector<double>{0.25, 0.75});
  CHECK(run(*forest, {1.0F, -1.0F}) == std::vector<double>{0.375, 0.625});
}

TEST_CASE("packed: a single leaf") {
  ForestArrays a;
  a.n_features = 1;
  a.n_outputs = 3;
  a.tree_offset = {0, 1};
  a.feature = {-1};
  a.threshold = {0};
  a.left = {-1};
  a.right = {-1};
  a.leaf_index = {0};
  a.leaf_values = {0.125, 0.25, 0.625};
  CHECK(run(*make_packed_forest(a), {42.0F}) == a.leaf_values);
}

TEST_CASE("packed: thresholds that float cannot hold") {
  const float largest = std::numeric_limits<float>::max();
  const double infinity = std::numeric_limits<double>::infinity();
  const float smallest = std::numeric_limits<float>::denorm_min();
  const float third = 1.0F / 3.0F;
  const std::vector<double> thresholds{
      1.0 / 3.0, -1.0 / 3.0, 0.1,   1e-300, -1e-300, 0.0,       -0.0,     1e300,
      -1e300,    3.5e38,     -3.5e38, infinity, -infinity, 1e-45, -1e-45, 1.0 + 1e-12};
  const std::vector<float> values{0.0F,     -0.0F,   third, std::nextafter(third, 1.0F),
                                  -third,   0.1F,    1.0F,  std::nextafter(1.0F, 2.0F),
                                  smallest, -smallest, largest, -largest};
  for (const double threshold : thresholds) {
    ForestArrays a = chain(1);
    a.threshold[0] = threshold;
    const auto forest = make_packed_forest(a);
    for (const float x : values) {
      CAPTURE(threshold);
      CAPTURE(x);
      CHECK(run(*forest, {x})[0] == (static_cast<double>(x) <= threshold ? 0.0 : 1.0));
    }
  }
}

TEST_CASE("packed: equals the naive walk bit for bit") {
  std::mt19937 rng(20240607);
  const std::size_t shapes[][3] = {{1, 2, 1},   {3, 1, 2},   {7, 30, 2},   {8, 64, 9},
                                   {50, 256, 2}, {65, 40, 7}, {130, 12, 3}, {20, 128, 42}};
  for (const auto& [trees, leaves, outputs] : shapes) {
    const std::size_t features = 24;
    const ForestArrays a = random_forest(rng, trees, leaves, outputs, features);
    const auto forest = make_packed_forest(a);
    std::size_t wrong = 0;
    for (int row = 0; row < 3000; ++row) {
      std::vector<float> x(features);
      for (float& value : x) {
        value = (static_cast<float>(std::uniform_int_distribution<int>(0, 20)(rng)) - 10.0F) / 8.0F;
      }
      if (run(*forest, x) != naive(a, x.data())) ++wrong;
    }
    CAPTURE(trees);
    CHECK(wrong == 0);
  }
}

TEST_CASE("packed: large and degenerate trees") {
  const auto deep = make_packed_forest(chain(20000));
  CHECK(run(*deep, {19999.5F})[0] == 1.0);
  CHECK(run(*deep, {10000.0F})[0] == 0.0);
  // 65,535 nodes always fit; a balanced tree of four times as many needs steps over 16 bits.
  const auto large = make_packed_forest(balanced(15));
  for (const std::uint32_t leaf : {0U, 1U, 12345U, 32767U}) {
    CHECK(run(*large, {static_cast<float>(leaf)})[0] == static_cast<double>(leaf % 2));
  }
  CHECK_THROWS_AS(static_cast<void>(make_packed_forest(balanced(17))), std::invalid_argument);
}

TEST_CASE("packed: refuses what is no forest") {
  static constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  struct Bad {
    const char* what;
    void (*spoil)(ForestArrays&);
  };
  const Bad cases[] = {
      {"no features", [](ForestArrays& a) { a.n_features = 0; }},
      {"too many features", [](ForestArrays& a) { a.n_features = 65537; }},
      {"no outputs", [](ForestArrays& a) { a.n_outputs = 0; }},
      {"outputs do not divide the values", [](ForestArrays& a) { a.n_outputs = 3; }},
      {"no leaf values", [](ForestArrays& a) { a.leaf_values.clear(); }},
      {"no offsets", [](ForestArrays& a) { a.tree_offset.clear(); }},
      {"no trees", [](ForestArrays& a) { a.tree_offset = {0}; }},
      {"first offset", [](ForestArrays& a) { a.tree_offset[0] = 1; }},
      {"last offset", [](ForestArrays& a) { a.tree_offset.back() = 7; }},
      {"negative offset", [](ForestArrays& a) { a.tree_offset.back() = -6; }},
      {"empty tree", [](ForestArrays& a) { a.tree_offset = {0, 5, 5, 6}; }},
      {"offsets that fall", [](ForestArrays& a) { a.tree_offset = {0, 9, 5, 6}; }},
      {"short feature", [](ForestArrays& a) { a.feature.pop_back(); }},
      {"short threshold", [](ForestArrays& a) { a.threshold.pop_back(); }},
      {"short left", [](ForestArrays& a) { a.left.pop_back(); }},
      {"short right", [](ForestArrays& a) { a.right.pop_back(); }},
      {"short leaf_index", [](ForestArrays& a) { a.leaf_index.pop_back(); }},
      {"feature out of range", [](ForestArrays& a) { a.feature[0] = 2; }},
      {"left out of range", [](ForestArrays& a) { a.left[0] = 5; }},
      {"right negative", [](ForestArrays& a) { a.right[2] = -1; }},
      {"a cycle", [](ForestArrays& a) { a.left[2] = 0; }},
      {"a node of its own child", [](ForestArrays& a) { a.left[2] = 2; }},
      {"a node reached twice", [](ForestArrays& a) { a.left[2] = 1; }},
      {"both children the same", [](ForestArrays& a) { a.right[2] = 3; }},
      {"nodes out of reach", [](ForestArrays& a) { a.feature[2] = -1; a.leaf_index[2] = 0; }},
      {"leaf index negative", [](ForestArrays& a) { a.leaf_index[1] = -1; }},
      {"leaf index out of range", [](ForestArrays& a) { a.leaf_index[5] = 4; }},
      {"NaN threshold", [](ForestArrays& a) { a.threshold[2] = kNan; }},
      {"NaN leaf", [](ForestArrays& a) { a.leaf_values[3] = kNan; }},
      {"infinite leaf", [](ForestArrays& a) { a.leaf_values[3] = HUGE_VAL; }},
  };
  for (const Bad& bad : cases) {
    ForestArrays a = two_trees();
    bad.spoil(a);
    CAPTURE(bad.what);
    CHECK_THROWS_AS(static_cast<void>(make_packed_forest(a)), std::invalid_argument);
  }
}

TEST_CASE("compiled: the registry") {
  CHECK(raxe_fast::make_compiled_forest("") == nullptr);
  CHECK(raxe_fast::make_compiled_forest("no such head") == nullptr);
  CHECK(raxe_fast::compiled_heads().size() == raxe_fast::compiled_head_registry().size());
  for (const std::string_view sha256 : raxe_fast::compiled_heads()) {
    CHECK(sha256.size() == 64);
    const auto forest = raxe_fast::make_compiled_forest(sha256);
    REQUIRE(forest != nullptr);
    CHECK(forest->kind() == "compiled");
    REQUIRE(forest->n_trees() <= raxe_fast::kMaxCompiledTrees);
    // Whatever the row, leaf vectors are probabilities: their mean is one, too.
    const std::vector<double> out =
        run(*forest, std::vector<float>(forest->n_features(), 0.01F));
    double sum = 0.0;
    for (const double value : out) sum += value;
    CHECK(sum == doctest::Approx(1.0));
  }
}
