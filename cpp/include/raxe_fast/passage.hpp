// Which tokens of a window speak of an attack: the strongest short passage.
//
// A linear head scores every token embedding; a passage is kEvidenceSpan tokens in a row (all of
// them where there are fewer), and its evidence the mean of theirs. Mean pooling lets a short
// payload drown in a long harmless document; the strongest passage does not, and says where it is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "raxe_fast/model_memory.hpp"

namespace raxe_fast {

inline constexpr std::size_t kEvidenceSpan = 8;

struct Passage {
  float evidence = 0.0F;           // logit; NaN if a token is not finite
  std::size_t begin = 0, end = 0;  // tokens of the window, half open; begin == end: no token
};

class PassageFinder {
 public:
  // Throws std::invalid_argument if there is no weight or a value is not finite.
  PassageFinder(const std::vector<float>& weights, float bias);

  [[nodiscard]] std::size_t hidden() const noexcept { return weights_.size(); }

  // tokens: (count, hidden()) float32, row-major. mask: `count` bytes, tokens whose byte is 0 take
  // no part; nullptr: all do. Padding stands at either end: behind a hole in the mask, begin and
  // end count from the first token without the hole. scratch: resized, its content is of no
  // interest. Of equal passages the first. Without tokens: evidence 0.
  [[nodiscard]] Passage operator()(const float* tokens, std::size_t count, const std::uint8_t* mask,
                                   std::vector<float>& scratch) const;

 private:
  ModelVector<float> weights_;
  float bias_;
};

}  // namespace raxe_fast
