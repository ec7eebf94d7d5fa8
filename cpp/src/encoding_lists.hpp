// The signs of lists of character codes and of Morse code, in a stretch of their characters.
#pragma once

#include <cstddef>

#include "encoding_kinds.hpp"

namespace raxe_fast {

inline constexpr std::size_t kMinList = 22;  // characters from the first digit on

// Whether [begin, end), characters that lists of codes are made of and nothing else around them,
// has enough pieces in a row of the size of a code.
template <typename Unit>
[[nodiscard]] bool may_be_codes(const Unit* text, std::size_t begin, std::size_t end) noexcept {
  // A list has 5 items or more in binary and 8 of other codes; the first and the last may be part
  // of something longer.
  constexpr std::size_t min_binary = 3, min_codes = 6, max_gap = 3;
  std::size_t first = begin;
  while (first < end && (kind_of(text[first]) & kDigit) == 0) ++first;
  if (end - first < kMinList) return false;
  std::size_t binary = 0, codes = 0, piece = 0, gap = 0;
  for (std::size_t i = begin; i <= end; ++i) {
    if (i < end && (kind_of(text[i]) & kListGap) == 0) {
      if (gap > max_gap) binary = codes = 0;
      gap = 0;
      ++piece;
      continue;
    }
    if (gap++ == 0) {  // a piece ends here
      binary = piece == 7 || piece == 8 ? binary + 1 : 0;
      codes = piece >= 2 && piece <= 5 ? codes + 1 : 0;
      if (binary >= min_binary || codes >= min_codes) return true;
      piece = 0;
    }
  }
  return false;
}

// Whether some 8 symbols of dots and dashes stand in a row.
template <typename Unit>
[[nodiscard]] bool may_be_morse(const Unit* text, std::size_t size) noexcept {
  constexpr std::size_t min_symbols = 8, max_symbol = 7, max_gap = 6;
  std::size_t symbols = 0, symbol = 0, gap = 0;
  for (std::size_t i = 0; i <= size; ++i) {
    const Kind kind = i < size ? kind_of(text[i]) : 0;
    if ((kind & (kDot | kDash)) != 0) {
      if (gap > max_gap) symbols = 0;
      gap = 0;
      ++symbol;
      continue;
    }
    if (symbol != 0) {
      if (++symbols >= min_symbols) return true;
      // What is too long can be the last, in part, or the first.
      if (symbol > max_symbol) symbols = 1;
      symbol = 0;
    }
    if ((kind & kMorseGap) != 0) {
      ++gap;
    } else {
      symbols = gap = 0;
    }
  }
  return false;
}

}  // namespace raxe_fast
