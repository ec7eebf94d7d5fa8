#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string_view>
#include <thread>
#include <vector>

#include "isa_levels.hpp"
#include "probe_forest.hpp"
#include "raxe_fast/pooling.hpp"
#include "raxe_fast/score.hpp"

using namespace raxe_fast;
using raxe_fast::test::on_every_isa;

namespace {

using raxe_fast::test::Probe;

constexpr std::size_t kHidden = 4;

TextView view(std::string_view text) { return {text.data(), text.size(), 1}; }

std::vector<TriggerSpec> specs() {
  TriggerSpec ignore;
  ignore.literals = {U"ignore"};
  ignore.weight = 0.5;
  TriggerSpec secret;
  secret.literals = {U"secret"};
  secret.weight = 0.8;
  return {ignore, secret};
}

struct Rig {
  std::shared_ptr<Probe> binary = std::make_shared<Probe>(2, kHidden);
  std::shared_ptr<Probe> family = std::make_shared<Probe>(3, kHidden);
  std::shared_ptr<Probe> subfamily = std::make_shared<Probe>(4, kHidden);

  Scorer::Parts parts(double detail_threshold = 0.0) const {
    Scorer::Parts p;
    p.binary = binary;
    p.family = family;
    p.subfamily = subfamily;
    p.calibration = std::make_shared<Calibration>(std::vector<double>{1.0, 2.0}, 0.0,
                                                  std::vector<double>{}, std::vector<double>{});
    p.clusters = std::make_shared<Clusters>(
        std::vector<float>{1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0}, kHidden, std::size_t{2});
    p.triggers = std::make_shared<TriggerSet>(specs());
    p.hidden = kHidden;
    p.detail_threshold = detail_threshold;
    return p;
  }
};

// One-token windows, so that the embedding is the token itself where it has unit length.
const float kRow[] = {1, 0, 0, 0, 0, 1, 0, 0, -1, 0, 0, 0, 0.6F, 0.8F, 0, 0};

double logistic(double z) { return 1.0 / (1.0 + std::exp(-z)); }

}  // namespace

TEST_CASE("score unit: one text, one window") {
  on_every_isa([] {
    const Rig rig;
    const Scorer scorer(rig.parts());
    const WindowBlock block{kRow + 12, 1, 1, nullptr};
    const std::uint32_t window_text[] = {0};
    const TextView text = view("ignore the secret, ignore");
    std::vector<TextScore> out(5);
    scorer.score(&block, 1, window_text, nullptr, &text, 1, false, out);
    REQUIRE(out.size() == 1);
    const TextScore& s = out[0];
    CHECK(s.rule_score == doctest::Approx(0.9));
    CHECK(s.forest_probability == doctest::Approx(0.8));
    CHECK(s.score == doctest::Approx(logistic(std::log(4.0) + 1.8)));
    CHECK(s.window == 0);
    CHECK(s.window_scores == std::vector<double>{s.score});
    REQUIRE(s.family.size() == 3);
    CHECK(s.family[1] == doctest::Approx(0.8));
    CHECK(s.subfamily.size() == 4);
    CHECK(s.nearest[0].cluster == 1);
    CHECK(s.nearest[0].cosine == doctest::Approx(0.8));
    CHECK(s.nearest[1].cluster == 0);
    CHECK(s.nearest[2].cluster == -1);
    CHECK(s.novelty == doctest::Approx(0.2));
    CHECK(s.matches == std::vector<TriggerMatch>{{0, 0, 6}, {1, 11, 17}, {0, 19, 25}});
    CHECK(s.finite);
    // Nothing but the forest was asked.
    CHECK(std::isnan(s.linear));
    CHECK(std::isnan(s.passage));
    CHECK(std::isnan(s.lexical));
    CHECK(s.passage_end == 0);
  });
}

TEST_CASE("score rules: the worst window stands for its text, in blocks of any order") {
  const Rig rig;
  const Scorer scorer(rig.parts(0.9));
  // Text 0 owns windows 1, 3 (second block) and text 1 windows 0, 2.
  const WindowBlock blocks[] = {{kRow, 2, 1, nullptr}, {kRow + 8, 2, 1, nullptr}};
  const std::uint32_t window_text[] = {1, 0, 1, 0};
  const TextView texts[] = {view("nothing"), view("here")};
  std::vector<TextScore> out;
  scorer.score(blocks, 2, window_text, nullptr, texts, 2, false, out);
  CHECK(out[0].window == 1);
  CHECK(out[0].window_scores.size() == 2);
  CHECK(out[0].window_scores[0] == doctest::Approx(0.5));
  CHECK(out[0].score == doctest::Approx(0.8));
  CHECK(out[0].family.empty());
  CHECK(out[0].nearest[0].cluster == 1);
  CHECK(out[1].window == 0);
  CHECK(out[1].score == doctest::Approx(0.9999));
  CHECK(out[1].window_scores[1] == doctest::Approx(0.0001));
  CHECK(out[1].family.size() == 3);
  // The worst window came first: its embedding is the one that the details see.
  CHECK(out[1].family[0] == doctest::Approx(1.0));
  CHECK(out[1].nearest[0].cluster == 0);
  CHECK(rig.binary->calls == 4);
  CHECK(rig.family->calls == 1);
  CHECK(rig.subfamily->calls == 1);
}

TEST_CASE("score rules: of equal windows the first wins") {
  const Rig rig;
  const Scorer scorer(rig.parts());
  const float rows[] = {0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1};
  const WindowBlock block{rows, 3, 1, nullptr};
  const std::uint32_t window_text[] = {0, 0, 0};
  const TextView text = view("");
  std::vector<TextScore> out;
  scorer.score(&block, 1, window_text, nullptr, &text, 1, false, out);
  CHECK(out[0].window == 0);
  CHECK(out[0].nearest[0].cluster == 1);
}

TEST_CASE("score rules: a text without windows is judged by the rules") {
  const Rig rig;
  const Scorer scorer(rig.parts());
  const TextView texts[] = {view("secret"), view("")};
  std::vector<TextScore> out;
  scorer.score(nullptr, 0, nullptr, nullptr, texts, 2, true, out);
  REQUIRE(out.size() == 2);
  CHECK(out[0].score == doctest::Approx(0.8));
  CHECK(out[0].rule_score == doctest::Approx(0.8));
  CHECK(out[0].window == -1);
  CHECK(std::isnan(out[0].forest_probability));
  CHECK(out[0].window_scores.empty());
  CHECK(out[0].family.empty());
  CHECK(out[0].nearest[0].cluster == -1);
  CHECK(out[0].novelty == 1.0F);
  CHECK(out[0].finite);
  CHECK(out[1].score == 0.0);
  CHECK(rig.family->calls == 0);
}

TEST_CASE("score rules: details below the threshold only on request; no texts, no results") {
  const Rig rig;
  const Scorer scorer(rig.parts(1.0));
  const WindowBlock block{kRow + 8, 1, 1, nullptr};
  const std::uint32_t window_text[] = {0};
  const TextView text = view("x");
  std::vector<TextScore> out;
  scorer.score(&block, 1, window_text, nullptr, &text, 1, false, out);
  CHECK(out[0].family.empty());
  CHECK(out[0].subfamily.empty());
  scorer.score(&block, 1, window_text, nullptr, &text, 1, true, out);
  CHECK(out[0].family.size() == 3);
  CHECK(out[0].subfamily.size() == 4);
  scorer.score(nullptr, 0, nullptr, nullptr, nullptr, 0, false, out);
  CHECK(out.empty());
}

TEST_CASE("score rules: masks") {
  const Rig rig;
  const Scorer scorer(rig.parts());
  const std::uint8_t mask[] = {0, 1, 1, 0};
  const WindowBlock block{kRow, 2, 2, mask};
  const std::uint32_t window_text[] = {0, 1};
  const TextView texts[] = {view("a"), view("b")};
  std::vector<TextScore> out;
  scorer.score(&block, 1, window_text, nullptr, texts, 2, true, out);
  CHECK(out[0].nearest[0].cluster == 1);
  CHECK(out[0].nearest[0].cosine == 1.0F);
  CHECK(out[1].nearest[1].cosine == -1.0F);
}

TEST_CASE("score safety: a window that is not finite marks its text, not the others") {
  on_every_isa([] {
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                            std::numeric_limits<float>::infinity()}) {
      const Rig rig;
      const Scorer scorer(rig.parts());
      const float rows[] = {1, 0, 0, 0, 0, 1, bad, 0, 0, 1, 0, 0, 1, 0, 0, 0};
      const WindowBlock block{rows, 4, 1, nullptr};
      const std::uint32_t window_text[] = {0, 0, 1, 0};
      const TextView texts[] = {view("ignore"), view("ignore")};
      std::vector<TextScore> out;
      scorer.score(&block, 1, window_text, nullptr, texts, 2, true, out);
      CHECK_FALSE(out[0].finite);
      CHECK(std::isnan(out[0].score));
      CHECK(std::isnan(out[0].forest_probability));
      CHECK(out[0].rule_score == doctest::Approx(0.5));
      CHECK(out[0].window == 1);
      REQUIRE(out[0].window_scores.size() == 3);
      CHECK(out[0].window_scores[0] > 0.99);
      CHECK(std::isnan(out[0].window_scores[1]));
      CHECK(out[0].family.empty());
      CHECK(out[0].nearest[0].cluster == -1);
      CHECK(out[0].nearest[1].cluster == -1);
      CHECK(out[1].finite);
      CHECK(out[1].score == doctest::Approx(logistic(1.0)));
      CHECK(rig.binary->calls == 3);
      CHECK(rig.family->calls == 1);
    }
  });
}

TEST_CASE("score safety: bad indices and missing parts are refused") {
  const Rig rig;
  const Scorer scorer(rig.parts());
  const WindowBlock block{kRow, 1, 1, nullptr};
  const std::uint32_t window_text[] = {1};
  const TextView text = view("x");
  std::vector<TextScore> out;
  CHECK_THROWS_AS(scorer.score(&block, 1, window_text, nullptr, &text, 1, false, out),
                  std::invalid_argument);

  const auto broken = [&](auto change) {
    auto parts = rig.parts();
    change(parts);
    CHECK_THROWS_AS(Scorer{parts}, std::invalid_argument);
  };
  broken([](auto& p) { p.binary = nullptr; });
  broken([](auto& p) { p.family = nullptr; });
  broken([](auto& p) { p.subfamily = nullptr; });
  broken([](auto& p) { p.calibration = nullptr; });
  broken([](auto& p) { p.clusters = nullptr; });
  broken([](auto& p) { p.triggers = nullptr; });
  broken([](auto& p) { p.hidden = 0; });
  broken([](auto& p) { p.hidden = 5; });
  broken([](auto& p) { p.binary = std::make_shared<Probe>(3, kHidden); });
  broken([](auto& p) { p.family = std::make_shared<Probe>(3, 5); });
  broken([](auto& p) { p.detail_threshold = std::numeric_limits<double>::quiet_NaN(); });
}

TEST_CASE("score all: threads with scratch of their own give the same results") {
  const Rig rig;
  const Scorer scorer(rig.parts());
  const WindowBlock block{kRow, 4, 1, nullptr};
  const std::uint32_t window_text[] = {0, 1, 1, 0};
  const TextView texts[] = {view("ignore all"), view("the secret")};
  std::vector<TextScore> serial;
  scorer.score(&block, 1, window_text, nullptr, texts, 2, true, serial);
  std::vector<std::vector<TextScore>> results(4);
  std::vector<std::thread> threads;
  for (auto& result : results) {
    threads.emplace_back([&] {
      // Parts of its own: the probe's call counter is not made for sharing.
      const Rig own;
      const Scorer mine(own.parts());
      for (int i = 0; i < 50; ++i) {
        mine.score(&block, 1, window_text, nullptr, texts, 2, true, result);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  for (const auto& result : results) {
    for (std::size_t t = 0; t < 2; ++t) {
      CHECK(result[t].score == serial[t].score);
      CHECK(result[t].window_scores == serial[t].window_scores);
      CHECK(result[t].family == serial[t].family);
      CHECK(result[t].matches == serial[t].matches);
    }
  }
}
