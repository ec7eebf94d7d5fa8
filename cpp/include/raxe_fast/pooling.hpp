// Masked mean pooling of token embeddings, then L2 normalisation (sentence-transformers' recipe).
#pragma once

#include <cstddef>
#include <cstdint>

namespace raxe_fast {

// tokens: (count, hidden) float32, row-major, not modified. mask: `count` bytes, a token takes
// part where its byte is not 0; nullptr means all do. out: `hidden` float32, not aliased.
//   out = m / max(||m||, 1e-12),  m = sum(tokens where mask) / max(#mask, 1e-9)
// With no token taking part, out is all zeros. NaN and infinity propagate into out (the caller
// checks). No alignment needed; any hidden >= 1, count >= 0. Allocates nothing.
// The variants agree within 1e-6 (the order of summation differs).
void mean_pool_l2(const float* tokens, std::size_t count, std::size_t hidden,
                  const std::uint8_t* mask, float* out) noexcept;

}  // namespace raxe_fast
