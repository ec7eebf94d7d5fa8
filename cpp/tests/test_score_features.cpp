// The fused call with features: what the forests are given, and what becomes of the evidence.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <limits>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "isa_levels.hpp"
#include "probe_forest.hpp"
#include "raxe_fast/pooling.hpp"
#include "raxe_fast/score.hpp"

using namespace raxe_fast;
using raxe_fast::test::on_every_isa;
using raxe_fast::test::Probe;

namespace {

constexpr std::size_t kHidden = 4, kFamilies = 2, kLabels = 3;
constexpr std::size_t kSize = kHidden + 2 + 1 + 1 + kFamilies + kSurface;
constexpr float kInf = std::numeric_limits<float>::infinity();
const std::vector<double> kWeights{1.0, 2.0, 0.5, -0.25, 0.125, -0.75};

std::shared_ptr<const Features> make_features(std::size_t triggers = 3) {
  std::mt19937 random(10);
  std::vector<std::int8_t> table(256), labels(64 * kLabels);
  for (std::int8_t& value : table) value = static_cast<std::int8_t>(random());
  for (std::int8_t& value : labels) value = static_cast<std::int8_t>(random());
  Features::Parts parts;
  parts.linear = std::make_shared<LinearLayer>(std::vector<float>{1, 2, 3, 4, 0, 1, 0, -1},
                                               std::vector<float>{0.25F, -1.0F}, kHidden);
  parts.passages = std::make_shared<PassageFinder>(std::vector<float>{2, 0, -1, 1}, -0.5F);
  parts.lexical = std::make_shared<LexicalModel>(table, 8U, std::vector<float>{0.02F},
                                                 std::vector<float>{0.5F});
  parts.labels = std::make_shared<LexicalModel>(labels, 6U, std::vector<float>(kLabels, 0.02F),
                                                std::vector<float>(kLabels, 0.0F));
  parts.trigger_family.assign(triggers, 1);
  parts.trigger_family[0] = 0;
  parts.trigger_weight.assign(triggers, 0.5);
  parts.families = kFamilies;
  return std::make_shared<Features>(std::move(parts));
}

std::shared_ptr<const TriggerSet> make_triggers() {
  std::vector<TriggerSpec> specs(3);
  specs[0].literals = {U"ignore"};
  specs[1].literals = {U"secret"};
  specs[2].literals = {U"rules"};
  for (TriggerSpec& spec : specs) spec.weight = 0.5;
  return std::make_shared<TriggerSet>(specs);
}

struct Rig {
  std::shared_ptr<Probe> binary = std::make_shared<Probe>(2, kSize);
  std::shared_ptr<Probe> family = std::make_shared<Probe>(5, kSize + kLabels);
  std::shared_ptr<Probe> subfamily = std::make_shared<Probe>(6, kSize + kLabels);
  std::shared_ptr<const Features> features = make_features();

  Scorer::Parts parts(double detail_threshold = 0.0) const {
    Scorer::Parts p;
    p.binary = binary;
    p.family = family;
    p.subfamily = subfamily;
    p.calibration = std::make_shared<Calibration>(kWeights, -0.5, std::vector<double>{},
                                                  std::vector<double>{});
    p.clusters = std::make_shared<Clusters>(std::vector<float>{1, 0, 0, 0, 0, 1, 0, 0}, kHidden,
                                            std::size_t{1});
    p.triggers = make_triggers();
    p.features = features;
    p.hidden = kHidden;
    p.detail_threshold = detail_threshold;
    return p;
  }
};

struct Batch {
  std::vector<std::u32string> texts;
  std::vector<std::vector<float>> tokens;        // by block
  std::vector<std::vector<std::uint8_t>> masks;  // by block
  std::vector<WindowBlock> blocks;
  std::vector<std::uint32_t> window_text;
  std::vector<WindowSpan> spans;

  [[nodiscard]] std::vector<TextView> views() const {
    std::vector<TextView> out;
    for (const std::u32string& text : texts) out.push_back({text.data(), text.size(), 4});
    return out;
  }

  std::vector<TextScore> score(const Scorer& scorer, bool with_spans = true) const {
    const std::vector<TextView> texts_seen = views();
    std::vector<TextScore> out;
    scorer.score(blocks.data(), blocks.size(), window_text.data(),
                 with_spans ? spans.data() : nullptr, texts_seen.data(), texts_seen.size(), true,
                 out);
    return out;
  }
};

Batch random_batch(std::mt19937& random) {
  Batch out;
  const std::u32string pieces[] = {U"ignore ", U"the ", U"SECRET", U"rules", U" 12!", U"\u4E2D"};
  out.texts.resize(1 + random() % 4);
  for (std::u32string& text : out.texts) {
    for (auto n = random() % 8; n > 0; --n) text += pieces[random() % 6];
  }
  std::normal_distribution<float> draw;
  for (auto b = random() % 3; b > 0; --b) {
    const std::size_t windows = random() % 4, length = 1 + random() % 20;
    std::vector<float> tokens(windows * length * kHidden);
    for (float& value : tokens) value = draw(random);
    std::vector<std::uint8_t> mask(windows * length, 0);
    for (std::size_t w = 0; w < windows; ++w) {
      const std::size_t used = 1 + random() % length;
      std::fill_n(mask.begin() + static_cast<std::ptrdiff_t>(w * length), used, std::uint8_t{1});
      out.window_text.push_back(static_cast<std::uint32_t>(random() % out.texts.size()));
      const auto begin = static_cast<std::uint32_t>(random() % 10);
      out.spans.push_back({begin, begin + static_cast<std::uint32_t>(random() % 40)});
    }
    out.tokens.push_back(std::move(tokens));
    out.masks.push_back(std::move(mask));
    out.blocks.push_back({nullptr, windows, length, nullptr});
  }
  for (std::size_t b = 0; b < out.blocks.size(); ++b) {
    out.blocks[b].tokens = out.tokens[b].data();
    if (b % 2 == 0) out.blocks[b].mask = out.masks[b].data();
  }
  return out;
}

// One window on its own, by the parts.
struct Expected {
  std::uint32_t text;
  std::vector<float> row;  // labels included
  Passage passage;
};

std::vector<Expected> describe(const Rig& rig, const Batch& batch, bool with_spans) {
  const Features& features = *rig.features;
  const std::vector<TextView> views = batch.views();
  const auto triggers = make_triggers();
  std::vector<Expected> out;
  for (const WindowBlock& block : batch.blocks) {
    for (std::size_t w = 0; w < block.windows; ++w) {
      const std::size_t flat = out.size();
      const float* tokens = block.tokens + w * block.length * kHidden;
      const std::uint8_t* mask = block.mask == nullptr ? nullptr : block.mask + w * block.length;
      const TextView view = views[batch.window_text[flat]];
      Expected one{batch.window_text[flat], std::vector<float>(features.full_size()), {}};
      float* const row = one.row.data();
      mean_pool_l2(tokens, block.length, kHidden, mask, row);
      std::vector<float> logits;
      one.passage = features.passages()(tokens, block.length, mask, logits);
      TriggerScratch trigger_scratch;
      std::vector<TriggerMatch> matches;
      triggers->match(view, trigger_scratch, matches);
      std::vector<bool> seen;
      features.rules(matches.data(), matches.size(), seen, row + features.rules_at());
      FeatureScratch scratch;
      features.fill(one.passage.evidence, view, with_spans ? batch.spans[flat].begin : 0,
                    with_spans ? batch.spans[flat].end : view.length, scratch, row);
      features.fill_labels(scratch, row);
      out.push_back(std::move(one));
    }
  }
  return out;
}

double logistic(double z) { return 1.0 / (1.0 + std::exp(-z)); }

double calibrated(const Expected& window, double rule_score, std::size_t windows) {
  const auto at = [&](std::size_t i) { return static_cast<double>(window.row[i]); };
  return logistic(-0.5 + kWeights[0] * clipped_logit(at(0) / 2.0 + 0.5) +
                  kWeights[1] * rule_score + kWeights[2] * at(kHidden) +
                  kWeights[3] * static_cast<double>(window.passage.evidence) +
                  kWeights[4] * at(kHidden + 3) +
                  kWeights[5] * std::log(static_cast<double>(windows)));
}

}  // namespace

TEST_CASE("score features: every forest sees the row of its window, and all evidence counts") {
  on_every_isa([] {
    std::mt19937 random(11);
    for (int repeat = 0; repeat < 150; ++repeat) {
      const Rig rig;
      const Scorer scorer(rig.parts());
      const Batch batch = random_batch(random);
      const bool with_spans = repeat % 3 != 0;
      const std::vector<TextScore> out = batch.score(scorer, with_spans);
      const std::vector<Expected> windows = describe(rig, batch, with_spans);

      REQUIRE(rig.binary->rows.size() == windows.size());
      for (std::size_t w = 0; w < windows.size(); ++w) {
        const std::vector<float>& row = windows[w].row;
        CHECK(rig.binary->rows[w] ==
              std::vector<float>(row.begin(), row.begin() + std::ptrdiff_t{kSize}));
      }
      REQUIRE(out.size() == batch.texts.size());
      std::size_t detailed = 0;
      for (std::uint32_t t = 0; t < out.size(); ++t) {
        std::vector<Expected> mine;
        std::copy_if(windows.begin(), windows.end(), std::back_inserter(mine),
                     [&](const Expected& window) { return window.text == t; });
        REQUIRE(out[t].window_scores.size() == mine.size());
        if (mine.empty()) {
          CHECK(std::isnan(out[t].linear));
          CHECK(std::isnan(out[t].passage));
          CHECK(std::isnan(out[t].lexical));
          CHECK(out[t].passage_end == 0);
          continue;
        }
        ++detailed;
        for (std::size_t w = 0; w < mine.size(); ++w) {
          CHECK(out[t].window_scores[w] ==
                doctest::Approx(calibrated(mine[w], out[t].rule_score, mine.size())));
        }
        const auto best = std::max_element(out[t].window_scores.begin(),
                                           out[t].window_scores.end());
        REQUIRE(out[t].window == best - out[t].window_scores.begin());
        const Expected& worst = mine[static_cast<std::size_t>(out[t].window)];
        CHECK(out[t].score == *best);
        CHECK(out[t].linear == worst.row[kHidden]);
        CHECK(out[t].passage == worst.passage.evidence);
        CHECK(out[t].lexical == worst.row[kHidden + 3]);
        CHECK(out[t].passage_begin == worst.passage.begin);
        CHECK(out[t].passage_end == worst.passage.end);
        const auto& rows = rig.family->rows;
        CHECK(std::find(rows.begin(), rows.end(), worst.row) != rows.end());
      }
      CHECK(rig.family->rows.size() == detailed);
      CHECK(rig.subfamily->rows == rig.family->rows);
    }
  });
}

TEST_CASE("score features: no spans mean the whole text, and a span ends with its text") {
  std::mt19937 random(12);
  for (int repeat = 0; repeat < 30; ++repeat) {
    Batch batch = random_batch(random);
    for (WindowSpan& span : batch.spans) span = {0, 0xFFFFFFFFU};
    const Rig with, without;
    batch.score(Scorer(with.parts()), true);
    batch.score(Scorer(without.parts()), false);
    CHECK(with.binary->rows == without.binary->rows);
    CHECK(with.family->rows == without.family->rows);
  }
}

TEST_CASE("score features: the number of windows is evidence") {
  const float row[] = {1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0};
  const Rig rig;
  const Scorer scorer(rig.parts());
  const TextView text{"x", 1, 1};
  const std::uint32_t window_text[] = {0, 0, 0};
  std::vector<TextScore> one, three;
  const WindowBlock single{row, 1, 1, nullptr}, triple{row, 3, 1, nullptr};
  scorer.score(&single, 1, window_text, nullptr, &text, 1, false, one);
  scorer.score(&triple, 1, window_text, nullptr, &text, 1, false, three);
  const auto logit = [](double p) { return std::log(p / (1.0 - p)); };
  for (const double score : three[0].window_scores) {
    CHECK(logit(one[0].score) - logit(score) == doctest::Approx(0.75 * std::log(3.0)));
  }
  CHECK(three[0].window == 0);
}

TEST_CASE("score features: a window that is not finite marks its text, not the others") {
  on_every_isa([] {
    // Infinity is out of the embedding's range; 3e38 is not, but twice it is out of the passage's.
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), kInf, 3e38F}) {
      const Rig rig;
      const Scorer scorer(rig.parts());
      const float rows[] = {1, 0, 0, 0, bad, 0, 0, 0, 0, 1, 0, 0};
      const WindowBlock block{rows, 3, 1, nullptr};
      const std::uint32_t window_text[] = {0, 0, 1};
      const TextView texts[] = {{"rules", 5, 1}, {"rules", 5, 1}};
      std::vector<TextScore> out;
      scorer.score(&block, 1, window_text, nullptr, texts, 2, true, out);
      CHECK_FALSE(out[0].finite);
      CHECK(std::isnan(out[0].score));
      CHECK(std::isnan(out[0].forest_probability));
      CHECK(std::isnan(out[0].linear));
      CHECK(std::isnan(out[0].passage));
      CHECK(std::isnan(out[0].lexical));
      CHECK(out[0].passage_begin == 0);
      CHECK(out[0].passage_end == 0);
      CHECK(out[0].window == 1);
      CHECK_FALSE(std::isnan(out[0].window_scores[0]));
      CHECK(std::isnan(out[0].window_scores[1]));
      CHECK(out[0].family.empty());
      CHECK(out[1].finite);
      CHECK(out[1].score > 0.0);
      CHECK(out[1].passage == -0.5F);
      CHECK(rig.binary->calls == 2);
      CHECK(rig.family->calls == 1);
      for (const auto& row : rig.binary->rows) {
        CHECK(std::all_of(row.begin(), row.end(), [](float v) { return std::isfinite(v); }));
      }
    }
  });
}

TEST_CASE("score features: parts that do not fit are refused") {
  const Rig rig;
  CHECK_NOTHROW(Scorer{rig.parts()});
  const auto broken = [&](auto change) {
    auto parts = rig.parts();
    change(parts);
    CHECK_THROWS_AS(Scorer{parts}, std::invalid_argument);
  };
  broken([](auto& p) { p.hidden = kHidden + 1; });
  broken([](auto& p) { p.features = nullptr; });
  broken([](auto& p) { p.features = make_features(2); });
  broken([](auto& p) { p.binary = std::make_shared<Probe>(2, kHidden); });
  broken([](auto& p) { p.binary = std::make_shared<Probe>(2, kSize + kLabels); });
  broken([](auto& p) { p.family = std::make_shared<Probe>(5, kSize); });
  broken([](auto& p) { p.subfamily = std::make_shared<Probe>(6, kSize); });
}
