// What a text looks like, whatever it says: ten statistics of its code points.
#pragma once

#include <cstddef>

#include "raxe_fast/text.hpp"

namespace raxe_fast {

// In this order:
//   0 log(1 + length)                        5 share of ASCII punctuation
//   1 share of capitals among ASCII letters  6 share of control, format and ignorable characters
//   2 share of decimal digits (ASCII)        7 entropy of the code points' low 7 bits, in bits
//   3 share of non-ASCII characters          8 log(1 + longest run without white space)
//   4 share of white space                   9 mean length of such runs
inline constexpr std::size_t kSurface = 10;

// Of code points [begin, end) of the text; out: kSurface finite floats, overwritten. All zeros for
// an empty range.
void surface_statistics(TextView text, std::size_t begin, std::size_t end, float* out) noexcept;

}  // namespace raxe_fast
