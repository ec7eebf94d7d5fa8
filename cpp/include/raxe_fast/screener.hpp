// The screening stage: a tiny encoder reads a window first and says how sure it is that the window
// is harmless. It may only clear a window, never condemn one.
//
//   ids -> NativeEncoder -> mean_pool_l2 -> linear head          evidence 0, linear
//                        -> strongest passage                    evidence 1, passage
//   the window's text    -> n-gram model                         evidence 2, lexical
//   logit = bias + sum_i weight[i] * evidence[i]
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "raxe_fast/encoder.hpp"
#include "raxe_fast/lexical.hpp"
#include "raxe_fast/linear.hpp"
#include "raxe_fast/passage.hpp"
#include "raxe_fast/text.hpp"

namespace raxe_fast {

inline constexpr std::size_t kScreenEvidence = 3;

class Screener {
 public:
  struct Parts {
    std::shared_ptr<const NativeEncoder> encoder;
    std::shared_ptr<const LinearLayer> linear;  // one output, on the unit embedding
    std::shared_ptr<const PassageFinder> passages;
    std::shared_ptr<const LexicalModel> lexical;  // one output; nullptr: evidence 2 is 0
    std::array<double, kScreenEvidence> weights{};
    double bias = 0.0;
  };

  // Throws std::invalid_argument if encoder, linear or passages is missing, they differ in width,
  // linear or lexical has not one output, a weight is negative (no evidence of an attack counts
  // against one), a number is not finite, or lexical has a weight and is missing.
  explicit Screener(Parts parts);

  // ids: `length` token ids of one window, special ones included; the window is code points
  // [begin, end) of the text, which is not looked at without lexical. Thread-safe; scratch is per
  // thread, grows to the longest window seen and is then reused. Throws std::invalid_argument as
  // NativeEncoder::encode does.
  [[nodiscard]] std::array<float, kScreenEvidence> evidence(const std::int64_t* ids,
                                                            std::size_t length, TextView text,
                                                            std::size_t begin,
                                                            std::size_t end) const;
  // The logit of that evidence; NaN if one is not finite.
  [[nodiscard]] double operator()(const std::int64_t* ids, std::size_t length, TextView text,
                                  std::size_t begin, std::size_t end) const;

  [[nodiscard]] const Parts& parts() const noexcept { return parts_; }

 private:
  Parts parts_;
};

}  // namespace raxe_fast
