// The fused call: token embeddings and texts in, verdict material out, for a whole batch.
//
//   per window: mean_pool_l2 -> features of window and text -> binary forest
//   per text:   triggers (once, over the whole text) -> calibrate each window's evidence with the
//               text's rule score -> the worst window stands for the text
//               -> family and subfamily forests and nearest clusters of that window
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "raxe_fast/calibration.hpp"
#include "raxe_fast/clusters.hpp"
#include "raxe_fast/features.hpp"
#include "raxe_fast/forest.hpp"
#include "raxe_fast/text.hpp"
#include "raxe_fast/triggers.hpp"

namespace raxe_fast {

// Windows of equal token count, straight from the encoder's output buffer (borrowed, not copied).
struct WindowBlock {
  const float* tokens = nullptr;       // (windows, length, hidden) float32, row-major
  std::size_t windows = 0;
  std::size_t length = 0;              // tokens per window, padding included
  const std::uint8_t* mask = nullptr;  // (windows, length), or nullptr: no padding
};

// The code points [begin, end) of its text that a window covers.
struct WindowSpan {
  std::uint32_t begin, end;
};

struct StageTimes {  // nanoseconds, steady clock
  std::uint64_t pooling = 0, forests = 0, clusters = 0, triggers = 0;
};

struct TextScore {
  double score = 0.0;                // calibrated P(attack) of the worst window
  float linear = 0.0F;               // evidence of that window, see calibration.hpp; NaN: none
  float passage = 0.0F;
  float lexical = 0.0F;
  std::uint32_t passage_begin = 0;   // its strongest passage: tokens of the window, half open
  std::uint32_t passage_end = 0;
  double forest_probability = 0.0;   // binary forest of that window, uncalibrated; NaN: no window
  double rule_score = 0.0;           // noisy-or of the triggers (L1)
  std::int32_t window = -1;          // index of the worst window within this text; -1: none
  std::vector<double> window_scores; // calibrated, one per window of this text
  std::vector<double> family;        // empty unless score >= detail_threshold or all_details
  std::vector<double> subfamily;     // likewise
  Neighbour nearest[kNearest];       // valid if window >= 0
  float novelty = 1.0F;
  std::vector<TriggerMatch> matches; // sorted by (begin, end, trigger)
  bool finite = true;                // false: what a forest sees held NaN or infinity; score is NaN
  StageTimes times;
};

class Scorer {
 public:
  struct Parts {
    std::shared_ptr<const Forest> binary, family, subfamily;
    std::shared_ptr<const Calibration> calibration;
    std::shared_ptr<const Clusters> clusters;
    std::shared_ptr<const TriggerSet> triggers;
    std::shared_ptr<const Features> features;  // nullptr: forests see the embedding alone
    std::size_t hidden = 0;
    double detail_threshold = 0.0;
  };
  // Throws std::invalid_argument if a part is missing, binary has not 2 outputs, or a forest's
  // n_features differs from what it will be given: hidden, or with features their size, and their
  // full size for the family and subfamily forests.
  explicit Scorer(Parts parts);

  // window_text: for each window, over all blocks in order, the index of its text. The windows of
  // one text keep their order. A text without windows gets rules only (window = -1, score =
  // rule_score, forest_probability NaN): the caller decides what that means.
  // spans: for each window what it covers of its text; nullptr: all of it.
  // out: one per text, overwritten. Thread-safe; scratch is per thread and does not grow with the
  // batch.
  // window_counts: how many windows each text has in all, where not all of them are given (those
  // left out are evidence, too: see calibration.hpp); nullptr: those given.
  // known: for each text what an earlier call said of it; its triggers are taken from there instead
  // of being matched again. nullptr: matched here.
  // Throws std::invalid_argument if window_text holds an index >= n_texts, or a text has more
  // windows than window_counts says.
  void score(const WindowBlock* blocks, std::size_t n_blocks, const std::uint32_t* window_text,
             const WindowSpan* spans, const TextView* texts, std::size_t n_texts, bool all_details,
             std::vector<TextScore>& out, const std::uint32_t* window_counts = nullptr,
             const TextScore* const* known = nullptr) const;

  [[nodiscard]] const Parts& parts() const noexcept { return parts_; }

 private:
  Parts parts_;
};

}  // namespace raxe_fast
