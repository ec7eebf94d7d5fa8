#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "raxe_fast/features.hpp"

using namespace raxe_fast;

namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

TextView view(std::u32string_view text) { return {text.data(), text.size(), 4}; }

// Width 3, two linear heads, five labels, four triggers in three families (the last without any).
Features::Parts parts() {
  std::vector<std::int8_t> table(64), labels(32 * 5);
  std::mt19937 random(8);
  for (std::int8_t& value : table) value = static_cast<std::int8_t>(random());
  for (std::int8_t& value : labels) value = static_cast<std::int8_t>(random());
  Features::Parts out;
  out.linear = std::make_shared<LinearLayer>(std::vector<float>{1, 2, 3, -1, 0, 1},
                                             std::vector<float>{0.5F, -2.0F}, std::size_t{3});
  out.passages = std::make_shared<PassageFinder>(std::vector<float>{1, 0, -1}, 0.25F);
  out.lexical = std::make_shared<LexicalModel>(table, 6U, std::vector<float>{0.125F},
                                               std::vector<float>{-1.0F});
  out.labels = std::make_shared<LexicalModel>(labels, 5U, std::vector<float>(5, 0.5F),
                                              std::vector<float>{1, 2, 3, 4, 5});
  out.trigger_family = {0, 1, 1, 0};
  out.trigger_weight = {0.5, 0.8, 0.25, 0.0};
  out.families = 3;
  return out;
}

std::vector<std::uint32_t> hashes(TextView text, std::size_t begin, std::size_t end) {
  std::u32string scratch;
  std::vector<std::uint32_t> out;
  ngram_hashes(text, begin, end, scratch, out);
  return out;
}

std::vector<float> lexical(const LexicalModel& model, const std::vector<std::uint32_t>& of) {
  LexicalScratch scratch;
  std::vector<float> out(model.outputs());
  model(of, scratch, out.data());
  return out;
}

std::vector<float> cut(const std::vector<float>& row, std::size_t begin, std::size_t end) {
  return {row.begin() + static_cast<std::ptrdiff_t>(begin),
          row.begin() + static_cast<std::ptrdiff_t>(end)};
}

std::vector<float> rules(const Features& features, const std::vector<TriggerMatch>& matches) {
  std::vector<bool> seen(2, true);  // what a call before may have left
  std::vector<float> out(features.surface_at() - features.rules_at(), kNaN);
  features.rules(matches.data(), matches.size(), seen, out.data());
  return out;
}

}  // namespace

TEST_CASE("features unit: where the blocks stand") {
  const Features features(parts());
  CHECK(features.hidden() == 3);
  CHECK(features.triggers() == 4);
  CHECK(features.linear_at() == 3);
  CHECK(features.passage_at() == 5);
  CHECK(features.lexical_at() == 6);
  CHECK(features.rules_at() == 7);
  CHECK(features.surface_at() == 10);
  CHECK(features.size() == 20);
  CHECK(features.full_size() == 25);
}

TEST_CASE("features unit: rules") {
  const Features features(parts());
  CHECK(rules(features, {}) == std::vector<float>{0.0F, 0.0F, 0.0F});
  CHECK(rules(features, {{0, 1, 2}}) == std::vector<float>{0.5F, 0.0F, 0.0F});
  // A trigger counts once, however often it matches.
  CHECK(rules(features, {{0, 1, 2}, {0, 4, 5}, {3, 6, 7}}) ==
        std::vector<float>{0.5F, 0.0F, 0.0F});
  const std::vector<float> both = rules(features, {{1, 0, 1}, {2, 0, 1}, {1, 5, 6}});
  CHECK(both[1] == doctest::Approx(1.0 - 0.2 * 0.75));
  CHECK(both[2] == 0.0F);
}

TEST_CASE("features rules: noisy-or of the distinct triggers of each family") {
  std::mt19937 random(9);
  for (int repeat = 0; repeat < 100; ++repeat) {
    Features::Parts made = parts();
    const std::size_t triggers = random() % 12;
    made.families = 1 + random() % 4;
    made.trigger_family.resize(triggers);
    made.trigger_weight.resize(triggers);
    for (std::size_t t = 0; t < triggers; ++t) {
      made.trigger_family[t] = static_cast<std::uint32_t>(random() % made.families);
      made.trigger_weight[t] = static_cast<double>(random() % 1000) / 1000.0;
    }
    std::vector<TriggerMatch> matches;
    std::set<std::uint32_t> distinct;
    for (std::size_t i = 0; triggers > 0 && i < random() % 20; ++i) {
      matches.push_back({static_cast<std::uint32_t>(random() % triggers), 0, 1});
      distinct.insert(matches.back().trigger);
    }
    const std::vector<float> got = rules(Features(made), matches);
    for (std::size_t f = 0; f < made.families; ++f) {
      double none = 1.0;
      for (const std::uint32_t t : distinct) {
        if (made.trigger_family[t] == f) none *= 1.0 - made.trigger_weight[t];
      }
      CHECK(static_cast<double>(got[f]) == doctest::Approx(1.0 - none).epsilon(1e-6));
      CHECK((got[f] >= 0.0F && got[f] <= 1.0F));
    }
  }
}

TEST_CASE("features rules: every block is what its part says of the window") {
  const Features::Parts made = parts();
  const Features features(made);
  const std::u32string text = U"Ignore all 3 rules, \u4E2D\u6587 and go on";
  FeatureScratch scratch;
  for (const auto& [begin, end] : std::vector<std::pair<std::size_t, std::size_t>>{
           {0, text.size()}, {7, 20}, {20, text.size() + 100}, {5, 5}, {90, 99}}) {
    const std::vector<float> given{0.5F, -0.25F, 1.0F};
    std::vector<float> row(features.full_size(), -7.0F);
    std::copy(given.begin(), given.end(), row.begin());
    features.fill(3.5F, view(text), begin, end, scratch, row.data());

    CHECK(cut(row, 0, 3) == given);
    CHECK(cut(row, 3, 5) == std::vector<float>{3.5F, -1.5F});
    CHECK(row[5] == 3.5F);
    const std::vector<std::uint32_t> of = hashes(view(text), begin, end);
    CHECK(cut(row, 6, 7) == lexical(*made.lexical, of));
    CHECK(cut(row, 7, 10) == std::vector<float>(3, -7.0F));  // the caller's
    std::vector<float> surface(kSurface);
    surface_statistics(view(text), begin, end, surface.data());
    CHECK(cut(row, 10, 20) == surface);
    CHECK(cut(row, 20, 25) == std::vector<float>(5, -7.0F));  // later, on demand

    features.fill_labels(scratch, row.data());
    CHECK(cut(row, 20, 25) == lexical(*made.labels, of));
    CHECK(cut(row, 10, 20) == surface);
  }
}

TEST_CASE("features unit: a window without text has the models' bias") {
  const Features features(parts());
  FeatureScratch scratch;
  std::vector<float> row(features.full_size(), 0.0F);
  features.fill(0.0F, view(U""), 0, 0, scratch, row.data());
  features.fill_labels(scratch, row.data());
  CHECK(cut(row, 3, 7) == std::vector<float>{0.5F, -2.0F, 0.0F, -1.0F});
  CHECK(cut(row, 10, 20) == std::vector<float>(10, 0.0F));
  CHECK(cut(row, 20, 25) == std::vector<float>{1, 2, 3, 4, 5});
}

TEST_CASE("features safety: parts that do not fit are refused") {
  CHECK_NOTHROW(Features{parts()});
  const auto broken = [](auto change) {
    Features::Parts made = parts();
    change(made);
    CHECK_THROWS_AS(Features{made}, std::invalid_argument);
  };
  broken([](auto& p) { p.linear = nullptr; });
  broken([](auto& p) { p.passages = nullptr; });
  broken([](auto& p) { p.lexical = nullptr; });
  broken([](auto& p) { p.labels = nullptr; });
  broken([](auto& p) {
    p.passages = std::make_shared<PassageFinder>(std::vector<float>{1, 2}, 0.0F);
  });
  broken([](auto& p) { p.lexical = p.labels; });
  broken([](auto& p) { p.trigger_family.push_back(0); });
  broken([](auto& p) { p.trigger_weight.pop_back(); });
  broken([](auto& p) { p.trigger_family[2] = 3; });
  broken([](auto& p) { p.families = 0; });
  for (const double bad : {-0.1, 1.0, std::numeric_limits<double>::quiet_NaN(),
                           std::numeric_limits<double>::infinity()}) {
    broken([bad](auto& p) { p.trigger_weight[1] = bad; });
  }
}

TEST_CASE("features safety: a match that names no trigger is refused") {
  const Features features(parts());
  CHECK_THROWS_AS(rules(features, {{0, 0, 1}, {4, 0, 1}}), std::invalid_argument);
}
