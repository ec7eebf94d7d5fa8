// Text normalisation for trigger matching: a context-free map, one code point at a time.
//
// N(c) = confusables(casefold(NFKD(c))) without combining marks (Mn, Me, and the few spacing marks
// that NFKC reorders), where
//   - NFKD is the full compatibility decomposition. Hangul syllables become conjoining jamo: a
//     context-free map cannot compose jamo, and N(x) = N(NFKC(x)) has to hold for them too,
//   - casefold is Unicode full case folding,
//   - confusables maps a non-ASCII letter or number that looks like an ASCII one to it (UTS #39,
//     single-character prototypes, plus a list of our own; never from Han, Kana, Hangul, Thai, Lao,
//     Khmer or Myanmar; ASCII is left alone). A capital is taken by its own shape first: Greek Nu
//     is n although nu is v, so for Eta, Mu, Nu and Upsilon N is not blind to case,
//   - a decimal digit of any script becomes the ASCII digit of its value,
//   - every white-space and control code point becomes U+0020,
//   - format and other default-ignorable code points (zero-width, bidi controls, tags, variation
//     selectors, soft hyphen) give nothing, or a space: see `Ignorables`.
//
// Because the map is context-free, N(xy) = N(x)N(y), N(N(x)) = N(x), N(x) = N(NFKC(x)), and every
// output character has exactly one origin, so spans map back without a search.
// Worst case: 18 output characters for one code point (U+FDFA). Lone surrogates and unassigned or
// out-of-range values map to themselves. Nothing here allocates or throws, except `normalize`,
// which allocates its result. The data are generated: cpp/tools/generate_unicode_tables.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "raxe_fast/text.hpp"

namespace raxe_fast {

inline constexpr std::size_t kMaxExpansion = 18;

enum class CharClass : std::uint8_t {
  separator = 0,  // white space, punctuation, symbols, unassigned: ends a word
  word = 1,       // letter, vowel sign, number or underscore of a script with spaces between words
  unspaced = 2,   // Han, Kana, Thai, Lao, Khmer or Myanmar letter: no spaces
};

enum class Ignorables : std::uint8_t {
  drop,      // "ig<ZWSP>nore" -> "ignore"
  separate,  // "now<ZWSP>ignore" -> "now ignore"
};

struct Mapped {
  const char32_t* chars;  // static storage; nullptr: the code point itself (count is 1)
  std::uint8_t count;     // 0 for a dropped code point
  bool ignorable;         // a format / default-ignorable code point
};

// The map itself. For ASCII, call sites should take their own fast path first.
[[nodiscard]] Mapped map_code_point(char32_t c) noexcept;

// Class of a *normalised* code point (any other is a separator).
[[nodiscard]] CharClass char_class(char32_t c) noexcept;

struct NormalizedText {
  std::u32string chars;
  std::vector<std::uint32_t> origin;  // origin[i]: index in the original of chars[i]
  bool had_ignorable = false;
};

// The whole text at once (for tests, tools and short patterns; the matcher streams instead). Throws
// std::length_error for 2^32 code points or more.
[[nodiscard]] NormalizedText normalize(TextView text, Ignorables mode);

}  // namespace raxe_fast
