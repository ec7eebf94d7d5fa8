#include "raxe_fast/score.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <utility>

#include "raxe_fast/pooling.hpp"

namespace raxe_fast {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

void require(bool condition, const char* message) {
  if (!condition) throw std::invalid_argument(message);
}

// Adds up the time between marks, so that a run of stages costs one clock reading each.
class Stopwatch {
 public:
  Stopwatch() noexcept : last_(Clock::now()) {}
  void lap(std::uint64_t& stage) noexcept {
    const auto now = Clock::now();
    const auto passed = std::chrono::duration_cast<std::chrono::nanoseconds>(now - last_);
    stage += static_cast<std::uint64_t>(passed.count());
    last_ = now;
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point last_;
};

// Per thread, sized by the model alone.
struct Scratch {
  TriggerScratch triggers;
  FeatureScratch features;
  std::vector<float> row, evidence;  // the row begins with the embedding
  std::vector<bool> seen;            // triggers
};

Scratch& thread_scratch() {
  thread_local Scratch scratch;
  return scratch;
}

// While its windows are being scored, a text's bookkeeping sits in the part of its result that is
// written last, so that nothing but the results grows with the batch.
std::int32_t& windows_left(TextScore& text) noexcept { return text.nearest[0].cluster; }
std::int32_t& worst_flat(TextScore& text) noexcept { return text.nearest[1].cluster; }

struct Window {
  const float* tokens;
  const std::uint8_t* mask;
  std::size_t length;
};

Window window_in(const WindowBlock& block, std::size_t row, std::size_t hidden) noexcept {
  return {block.tokens + row * block.length * hidden,
          block.mask == nullptr ? nullptr : block.mask + row * block.length, block.length};
}

Window window_at(const WindowBlock* blocks, std::size_t flat, std::size_t hidden) noexcept {
  while (flat >= blocks->windows) {
    flat -= blocks->windows;
    ++blocks;
  }
  return window_in(*blocks, flat, hidden);
}

bool all_finite(const float* values, std::size_t n) noexcept {
  // 0 * NaN and 0 * infinity are NaN; unlike a test of each value, this vectorises.
  float sum = 0.0F;
  for (std::size_t i = 0; i < n; ++i) sum += values[i] * 0.0F;
  return sum == 0.0F;
}

void check_forest(const std::shared_ptr<const Forest>& forest, std::size_t features) {
  require(forest != nullptr, "scorer: a forest is missing");
  require(forest->n_features() == features,
          "scorer: a forest's n_features differs from the size of its row");
}

}  // namespace

Scorer::Scorer(Parts parts) : parts_(std::move(parts)) {
  require(parts_.hidden > 0, "scorer: hidden is 0");
  const Features* const features = parts_.features.get();
  require(features == nullptr || features->hidden() == parts_.hidden,
          "scorer: the features' width differs from hidden");
  check_forest(parts_.binary, features == nullptr ? parts_.hidden : features->size());
  const std::size_t full = features == nullptr ? parts_.hidden : features->full_size();
  check_forest(parts_.family, full);
  check_forest(parts_.subfamily, full);
  require(parts_.binary->n_outputs() == 2, "scorer: the binary forest has not 2 outputs");
  require(parts_.calibration != nullptr, "scorer: the calibration is missing");
  require(parts_.clusters != nullptr, "scorer: the clusters are missing");
  require(parts_.triggers != nullptr, "scorer: the triggers are missing");
  require(features == nullptr || features->triggers() == parts_.triggers->size(),
          "scorer: features and triggers differ in number");
  require(!std::isnan(parts_.detail_threshold), "scorer: detail_threshold is NaN");
}

void Scorer::score(const WindowBlock* blocks, std::size_t n_blocks,
                   const std::uint32_t* window_text, const WindowSpan* spans,
                   const TextView* texts, std::size_t n_texts, bool all_details,
                   std::vector<TextScore>& out, const std::uint32_t* window_counts,
                   const TextScore* const* known) const {
  const std::size_t hidden = parts_.hidden;
  const Features* const features = parts_.features.get();
  std::size_t n_windows = 0;
  for (std::size_t b = 0; b < n_blocks; ++b) n_windows += blocks[b].windows;
  require(n_windows <= static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max()),
          "score: too many windows");

  out.clear();
  out.resize(n_texts);
  for (TextScore& text : out) windows_left(text) = 0;
  for (std::size_t w = 0; w < n_windows; ++w) {
    require(window_text[w] < n_texts, "score: window_text holds an index that is no text");
    ++windows_left(out[window_text[w]]);
  }
  for (std::size_t t = 0; window_counts != nullptr && t < n_texts; ++t) {
    require(static_cast<std::size_t>(windows_left(out[t])) <= window_counts[t],
            "score: a text has more windows than window_counts says");
  }

  Scratch& scratch = thread_scratch();
  scratch.row.resize(features == nullptr ? hidden : features->full_size());
  float* const embedding = scratch.row.data();

  // Everything about a window that the forests see; its embedding is in place. False if a value is
  // not finite: huge tokens may have a finite mean and overflow in the passage's evidence.
  const auto describe = [&](const Window& window, std::size_t flat, Passage& passage) {
    if (features == nullptr) return true;
    passage = features->passages()(window.tokens, window.length, window.mask, scratch.evidence);
    const std::uint32_t owner = window_text[flat];
    const TextView view = texts[owner];
    const std::vector<TriggerMatch>& matches = out[owner].matches;
    features->rules(matches.data(), matches.size(), scratch.seen,
                    embedding + features->rules_at());
    features->fill(passage.evidence, view, spans == nullptr ? 0 : spans[flat].begin,
                   spans == nullptr ? view.length : spans[flat].end, scratch.features, embedding);
    return all_finite(embedding + hidden, features->size() - hidden);
  };

  // After an encoder call the model's tables are in no near cache. What is sure to be needed is
  // asked for first, and arrives while the first window, which the encoder has just written,
  // is pooled.
  parts_.triggers->prefetch(scratch.triggers);
  parts_.binary->prefetch();
  Stopwatch watch;
  if (n_windows > 0) {
    const Window window = window_at(blocks, 0, hidden);
    mean_pool_l2(window.tokens, window.length, hidden, window.mask, embedding);
    watch.lap(out[window_text[0]].times.pooling);
  }
  for (std::size_t t = 0; t < n_texts; ++t) {
    TextScore& text = out[t];
    if (known != nullptr) {
      text.matches = known[t]->matches;
      text.rule_score = known[t]->rule_score;
      text.times.triggers = known[t]->times.triggers;
    } else {
      parts_.triggers->match(texts[t], scratch.triggers, text.matches);
      text.rule_score =
          parts_.triggers->rule_score(text.matches.data(), text.matches.size(), scratch.triggers);
    }
    watch.lap(text.times.triggers);

    text.linear = text.passage = text.lexical = static_cast<float>(kNaN);
    text.forest_probability = kNaN;
    if (windows_left(text) == 0) {
      windows_left(text) = -1;
      text.score = text.rule_score;
    } else {
      text.window_scores.reserve(static_cast<std::size_t>(windows_left(text)));
    }
  }

  const auto finish = [&](TextScore& text, std::size_t last_flat) {
    const auto worst = static_cast<std::size_t>(worst_flat(text));
    worst_flat(text) = -1;
    if (!text.finite) {
      text.score = kNaN;
      text.forest_probability = kNaN;
      text.linear = text.passage = text.lexical = static_cast<float>(kNaN);
      text.passage_begin = text.passage_end = 0;
      return;
    }
    if (worst != last_flat) {
      const Window window = window_at(blocks, worst, hidden);
      mean_pool_l2(window.tokens, window.length, hidden, window.mask, embedding);
      watch.lap(text.times.pooling);
      Passage again;
      describe(window, worst, again);
      watch.lap(text.times.forests);
    }
    // The forests' roots arrive while the clusters, which are read in one stream, are searched.
    const bool details = all_details || text.score >= parts_.detail_threshold;
    if (details) {
      parts_.family->prefetch();
      parts_.subfamily->prefetch();
    }
    text.novelty = parts_.clusters->nearest(embedding, text.nearest);
    watch.lap(text.times.clusters);
    if (details) {
      if (features != nullptr) features->fill_labels(scratch.features, embedding);
      text.family.resize(parts_.family->n_outputs());
      parts_.family->predict(embedding, text.family.data());
      text.subfamily.resize(parts_.subfamily->n_outputs());
      parts_.subfamily->predict(embedding, text.subfamily.data());
      watch.lap(text.times.forests);
    }
  };

  std::size_t flat = 0;
  for (std::size_t b = 0; b < n_blocks; ++b) {
    for (std::size_t row = 0; row < blocks[b].windows; ++row, ++flat) {
      TextScore& text = out[window_text[flat]];
      const auto index = static_cast<std::int32_t>(text.window_scores.size());
      const Window window = window_in(blocks[b], row, hidden);
      if (flat != 0) mean_pool_l2(window.tokens, window.length, hidden, window.mask, embedding);
      bool finite = all_finite(embedding, hidden);
      watch.lap(text.times.pooling);

      Passage passage;
      finite = finite && describe(window, flat, passage);
      if (finite) {
        double probability[2];
        parts_.binary->predict(embedding, probability);
        double evidence[kEvidence] = {clipped_logit(probability[1]), text.rule_score};
        if (features != nullptr) {
          evidence[2] = static_cast<double>(embedding[features->linear_at()]);
          evidence[3] = static_cast<double>(passage.evidence);
          evidence[4] = static_cast<double>(embedding[features->lexical_at()]);
          // Windows still to come and those that were scored, or what the caller knows.
          const auto windows =
              window_counts != nullptr
                  ? static_cast<double>(window_counts[window_text[flat]])
                  : static_cast<double>(windows_left(text)) +
                        static_cast<double>(text.window_scores.size());
          evidence[5] = std::log(windows);
        }
        const double calibrated = (*parts_.calibration)(evidence);
        text.window_scores.push_back(calibrated);
        // Strictly greater: of equal windows the first stands for the text.
        if (text.finite && (text.window < 0 || calibrated > text.score)) {
          text.score = calibrated;
          text.forest_probability = probability[1];
          text.window = index;
          if (features != nullptr) {
            text.linear = static_cast<float>(evidence[2]);
            text.passage = passage.evidence;
            text.lexical = static_cast<float>(evidence[4]);
            text.passage_begin = static_cast<std::uint32_t>(passage.begin);
            text.passage_end = static_cast<std::uint32_t>(passage.end);
          }
          worst_flat(text) = static_cast<std::int32_t>(flat);
        }
      } else {
        text.window_scores.push_back(kNaN);
        if (text.finite) {
          // The window to point at is the first one that could not be judged.
          text.finite = false;
          text.window = index;
        }
      }
      watch.lap(text.times.forests);
      if (--windows_left(text) == 0) {
        windows_left(text) = -1;
        finish(text, flat);
      }
    }
  }
  scratch.features.trim();
}

}  // namespace raxe_fast
