// What the forests see of a window besides its embedding, in one float32 row:
//
//   embedding  hidden     mean-pooled, unit length
//   linear     linear     logits of the linear heads on the embedding; the first one is P(attack)'s
//   passage    1          evidence of the strongest passage
//   lexical    1          n-gram score of the window's text
//   rules      families   noisy-or of the triggers of each family, over the whole text
//   surface    kSurface   statistics of the window's text
//   labels     labels     n-gram scores by label: seen by the family and subfamily forests alone
//
// The order is a contract with the manifest's "features".
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "raxe_fast/lexical.hpp"
#include "raxe_fast/linear.hpp"
#include "raxe_fast/passage.hpp"
#include "raxe_fast/surface.hpp"
#include "raxe_fast/triggers.hpp"

namespace raxe_fast {

struct FeatureScratch {
  std::u32string text;
  LexicalScratch lexical;
  std::vector<std::uint32_t> hashes;

  // Gives back what an unusually long window has taken.
  void trim();
};

class Features {
 public:
  struct Parts {
    std::shared_ptr<const LinearLayer> linear;
    std::shared_ptr<const PassageFinder> passages;
    std::shared_ptr<const LexicalModel> lexical;  // one output
    std::shared_ptr<const LexicalModel> labels;
    std::vector<std::uint32_t> trigger_family;  // for each trigger the number of its family
    std::vector<double> trigger_weight;         // as TriggerSpec::weight
    std::size_t families = 0;
  };
  // Throws std::invalid_argument if a part is missing, lexical has not one output, linear and
  // passages differ in width, a trigger's family is out of range or its weight outside [0, 1).
  explicit Features(Parts parts);

  [[nodiscard]] std::size_t hidden() const noexcept { return parts_.linear->inputs(); }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }  // without `labels`
  [[nodiscard]] std::size_t full_size() const noexcept { return size_ + parts_.labels->outputs(); }
  [[nodiscard]] std::size_t triggers() const noexcept { return parts_.trigger_family.size(); }
  [[nodiscard]] const PassageFinder& passages() const noexcept { return *parts_.passages; }
  [[nodiscard]] const std::shared_ptr<const LexicalModel>& lexical() const noexcept {
    return parts_.lexical;
  }

  // Where the blocks begin.
  [[nodiscard]] std::size_t linear_at() const noexcept { return hidden(); }
  [[nodiscard]] std::size_t passage_at() const noexcept {
    return linear_at() + parts_.linear->outputs();
  }
  [[nodiscard]] std::size_t lexical_at() const noexcept { return passage_at() + 1; }
  [[nodiscard]] std::size_t rules_at() const noexcept { return lexical_at() + 1; }
  [[nodiscard]] std::size_t surface_at() const noexcept { return rules_at() + parts_.families; }

  // out: families floats, noisy-or by family of the distinct triggers among matches[0, n).
  void rules(const TriggerMatch* matches, std::size_t n, std::vector<bool>& seen,
             float* out) const;

  // row: full_size() floats with the embedding in place and the rules filled in; the rest but
  // `labels` is written. The window is code points [begin, end) of the text. The n-grams stay in
  // `scratch` for `labels`.
  void fill(float evidence, TextView text, std::size_t begin, std::size_t end,
            FeatureScratch& scratch, float* row) const;

  // Writes `labels` from the n-grams of the window that was filled last.
  void fill_labels(FeatureScratch& scratch, float* row) const;

 private:
  Parts parts_;
  std::size_t size_;
};

}  // namespace raxe_fast
