#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <stdexcept>
#include <vector>

#include "raxe_fast/passage.hpp"

using namespace raxe_fast;

namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

Passage find(const PassageFinder& finder, const std::vector<float>& tokens,
             const std::vector<std::uint8_t>* mask = nullptr) {
  std::vector<float> scratch(3, kNaN);  // what a call before may have left
  return finder(tokens.data(), tokens.size() / finder.hidden(),
                mask == nullptr ? nullptr : mask->data(), scratch);
}

void check(const Passage& got, const Passage& want) {
  CHECK(got.evidence == want.evidence);
  CHECK(got.begin == want.begin);
  CHECK(got.end == want.end);
}

// Every passage of the tokens that take part, in integers: what the finder sums is exact.
Passage brute_force(const std::vector<float>& weights, float bias,
                    const std::vector<float>& tokens, const std::vector<std::uint8_t>& mask) {
  const std::size_t hidden = weights.size();
  std::vector<int> logits;
  std::size_t first = 0;
  for (std::size_t i = 0; i < mask.size(); ++i) {
    if (mask[i] == 0) continue;
    if (logits.empty()) first = i;
    int logit = 0;
    for (std::size_t j = 0; j < hidden; ++j) {
      logit += static_cast<int>(tokens[i * hidden + j]) * static_cast<int>(weights[j]);
    }
    logits.push_back(logit);
  }
  if (logits.empty()) return {};
  const std::size_t span = std::min<std::size_t>(8, logits.size());
  int best = std::numeric_limits<int>::min();
  std::size_t at = 0;
  for (std::size_t begin = 0; begin + span <= logits.size(); ++begin) {
    int sum = 0;
    for (std::size_t i = begin; i < begin + span; ++i) sum += logits[i];
    if (sum > best) {
      best = sum;
      at = begin;
    }
  }
  return {static_cast<float>(best) / static_cast<float>(span) + bias, first + at,
          first + at + span};
}

std::vector<float> integers(std::mt19937& random, std::size_t n, int limit) {
  std::uniform_int_distribution<int> draw(-limit, limit);
  std::vector<float> out(n);
  for (float& value : out) value = static_cast<float>(draw(random));
  return out;
}

}  // namespace

TEST_CASE("passage unit: no token, one token, few tokens") {
  const PassageFinder finder({1.0F, -1.0F}, 0.5F);
  CHECK(finder.hidden() == 2);
  check(find(finder, {}), {0.0F, 0, 0});
  check(find(finder, {3.0F, 1.0F}), {2.5F, 0, 1});
  check(find(finder, {3.0F, 1.0F, 0.0F, 4.0F}), {-0.5F, 0, 2});
}

TEST_CASE("passage unit: the eight tokens in a row whose mean is highest") {
  const PassageFinder finder({1.0F}, -1.0F);
  std::vector<float> tokens(20, 0.0F);
  for (std::size_t i = 5; i < 13; ++i) tokens[i] = 2.0F;
  check(find(finder, tokens), {1.0F, 5, 13});
  // One strong token beats them, with the last of the twos: (2 + 102) / 8 - 1.
  tokens[19] = 102.0F;
  check(find(finder, tokens), {12.0F, 12, 20});
}

TEST_CASE("passage unit: of equal passages the first") {
  const PassageFinder finder({1.0F}, 0.0F);
  check(find(finder, std::vector<float>(30, -3.0F)), {-3.0F, 0, 8});
  std::vector<float> tokens(30, 0.0F);
  tokens[10] = tokens[25] = 8.0F;
  check(find(finder, tokens), {1.0F, 3, 11});
}

TEST_CASE("passage rules: brute force, with and without padding") {
  std::mt19937 random(3);
  for (int repeat = 0; repeat < 400; ++repeat) {
    const std::size_t hidden = 1 + random() % 40, count = random() % 40;
    const std::vector<float> weights = integers(random, hidden, 2);
    const std::vector<float> tokens = integers(random, count * hidden, 1);
    const PassageFinder finder(weights, 0.25F);
    const std::vector<std::uint8_t> all(count, 1);
    check(find(finder, tokens), brute_force(weights, 0.25F, tokens, all));

    // Padding at both ends, and then any mask at all.
    std::vector<std::uint8_t> mask(count, 0);
    const std::size_t begin = random() % (count + 1);
    const std::size_t end = begin + random() % (count + 1 - begin);
    std::fill(mask.begin() + static_cast<std::ptrdiff_t>(begin),
              mask.begin() + static_cast<std::ptrdiff_t>(end), std::uint8_t{255});
    check(find(finder, tokens, &mask), brute_force(weights, 0.25F, tokens, mask));
    for (std::uint8_t& byte : mask) byte = static_cast<std::uint8_t>(random() % 2);
    check(find(finder, tokens, &mask), brute_force(weights, 0.25F, tokens, mask));
  }
}

TEST_CASE("passage rules: tokens that are masked out take no part, whatever they hold") {
  const PassageFinder finder({1.0F}, 0.0F);
  const std::vector<std::uint8_t> none(3, 0), middle{0, 1, 0};
  check(find(finder, {kNaN, kInf, 1.0F}, &none), {0.0F, 0, 0});
  check(find(finder, {kNaN, 7.0F, kInf}, &middle), {7.0F, 1, 2});
}

TEST_CASE("passage safety: a token that is not finite makes the evidence NaN") {
  // The weight of what is not finite is 0, and it still shows.
  const PassageFinder finder({0.0F, 1.0F}, 0.0F);
  for (const float bad : {kNaN, kInf, -kInf}) {
    for (const std::size_t at : {0U, 9U, 19U}) {
      std::vector<float> tokens(40, 1.0F);
      tokens[2 * at] = bad;
      const Passage passage = find(finder, tokens);
      CHECK(std::isnan(passage.evidence));
      CHECK(passage.begin == 0);
      CHECK(passage.end == 8);
    }
  }
  // Finite tokens may overflow.
  const PassageFinder steep({1e30F}, 0.0F);
  CHECK(std::isnan(find(steep, {1.0F, 1e30F, 1.0F}).evidence));
  CHECK(std::isnan(find(steep, {-1e30F}).evidence));
}

TEST_CASE("passage safety: malformed finders are refused") {
  using V = std::vector<float>;
  const auto make = [](const V& weights, float bias) { return PassageFinder(weights, bias); };
  CHECK_NOTHROW(make({0.0F}, 0.0F));
  CHECK_THROWS_AS(make({}, 0.0F), std::invalid_argument);
  for (const float bad : {kNaN, kInf, -kInf}) {
    CHECK_THROWS_AS(make({1.0F, bad}, 0.0F), std::invalid_argument);
    CHECK_THROWS_AS(make({1.0F}, bad), std::invalid_argument);
  }
}
