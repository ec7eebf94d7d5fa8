#include "raxe_fast/passage.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "raxe_fast/linear.hpp"

namespace raxe_fast {

PassageFinder::PassageFinder(const std::vector<float>& weights, float bias)
    : weights_(settle(weights)), bias_(bias) {
  if (weights.empty()) throw std::invalid_argument("passage finder: no weights");
  const bool finite =
      std::all_of(weights.begin(), weights.end(), [](float w) { return std::isfinite(w); });
  if (!finite || !std::isfinite(bias)) {
    throw std::invalid_argument("passage finder: a value is not finite");
  }
}

Passage PassageFinder::operator()(const float* tokens, std::size_t count, const std::uint8_t* mask,
                                  std::vector<float>& scratch) const {
  const std::size_t hidden = weights_.size();
  scratch.clear();
  std::size_t first = count;  // padding stands at either end only
  for (std::size_t i = 0; i < count;) {
    const auto kept = [&](std::size_t token) { return mask == nullptr || mask[token] != 0; };
    const std::size_t begin = i;
    while (i < count && kept(i)) ++i;
    if (i == begin) {
      ++i;
      continue;
    }
    first = std::min(first, begin);
    const std::size_t before = scratch.size();
    scratch.resize(before + (i - begin));
    dots(tokens + begin * hidden, i - begin, hidden, weights_.data(), hidden,
         scratch.data() + before);
  }
  if (scratch.empty()) return {};

  const std::size_t span = std::min(kEvidenceSpan, scratch.size());
  Passage best{-std::numeric_limits<float>::infinity(), 0, span};
  bool finite = true;
  for (std::size_t begin = 0; begin + span <= scratch.size(); ++begin) {
    // Summed anew each time: a running sum would carry rounding errors from passage to passage.
    float sum = 0.0F;
    for (std::size_t k = 0; k < span; ++k) sum += scratch[begin + k];
    finite = finite && std::isfinite(sum);
    if (sum > best.evidence) best = {sum, begin, begin + span};
  }
  if (!finite) return {std::numeric_limits<float>::quiet_NaN(), first, first + span};
  return {best.evidence / static_cast<float>(span) + bias_, first + best.begin, first + best.end};
}

}  // namespace raxe_fast
