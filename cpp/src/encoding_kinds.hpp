// What the decoders of encoded parts take a code point for.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace raxe_fast {

using Kind = std::uint32_t;

inline constexpr Kind kLetter = 1U << 0U;      // A-Z a-z
inline constexpr Kind kDigit = 1U << 1U;       // 0-9
inline constexpr Kind kAlphabet = 1U << 2U;    // of base64, url-safe or not, without =
inline constexpr Kind kListed = 1U << 3U;      // what lists of character codes are made of
inline constexpr Kind kSpace = 1U << 4U;       // what str.split() takes for white space
inline constexpr Kind kSeparator = 1U << 5U;   // -._*|/~+,
inline constexpr Kind kLeetSign = 1U << 6U;    // 0-9@$!
inline constexpr Kind kDot = 1U << 7U;         // of Morse code, look-alikes included
inline constexpr Kind kDash = 1U << 8U;
inline constexpr Kind kEscape = 1U << 9U;      // %&\ and that is it
inline constexpr Kind kEdge = 1U << 10U;       // punctuation around words
inline constexpr Kind kIgnorable = 1U << 11U;  // invisible
inline constexpr Kind kStyled = 1U << 12U;     // letters in fancy styles
inline constexpr Kind kMark = 1U << 13U;       // strokes through letters and the like
inline constexpr Kind kCombining = 1U << 14U;  // U+0300 to U+036F
inline constexpr Kind kForeign = 1U << 15U;    // scripts with letters that look like Latin ones
inline constexpr Kind kTag = 1U << 16U;        // tag characters that stand for ASCII
inline constexpr Kind kSelector = 1U << 17U;   // variation selectors
inline constexpr Kind kBeyond = 1U << 18U;     // beyond ASCII
inline constexpr Kind kKelvin = 1U << 19U;     // the one such whose lower case is ASCII: k
inline constexpr Kind kMorseGap = 1U << 20U;   // what parts letters and words in Morse code
inline constexpr Kind kListGap = 1U << 21U;    // what parts codes in lists
inline constexpr Kind kSpaces = kSpace | kListed | kListGap | kMorseGap;

constexpr bool is_one_of(char32_t c, const char* chars) noexcept {
  for (; *chars != '\0'; ++chars) {
    if (c == static_cast<unsigned char>(*chars)) return true;
  }
  return false;
}

constexpr Kind make_kind(char32_t c) noexcept {
  Kind kind = c < 128 ? 0 : kBeyond;
  const bool digit = c >= '0' && c <= '9';
  const bool letter = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
  const bool space =
      (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0;
  if (letter) kind |= kLetter;
  if (digit) kind |= kDigit | kLeetSign;
  if (letter || digit || is_one_of(c, "+/_-")) kind |= kAlphabet;
  if (space) kind |= kSpaces;
  if (digit || is_one_of(c, "abcdefABCDEFxXoO\\,;:-")) kind |= kListed;
  if (is_one_of(c, ",;:-")) kind |= kListGap;
  if (is_one_of(c, "-._*|/~+,")) kind |= kSeparator;
  if (is_one_of(c, "@$!")) kind |= kLeetSign;
  if (is_one_of(c, "%&\\")) kind |= kEscape;
  if (is_one_of(c, "\"'`.,;:!?()[]{}<>*#~")) kind |= kEdge;
  if (is_one_of(c, "/|'\"?!,:;()")) kind |= kMorseGap;
  if (c == '.' || c == 0xB7) kind |= kDot;
  if (c == '-') kind |= kDash;
  if (c == 0xAD) kind |= kIgnorable;
  return kind;
}

constexpr std::array<Kind, 256> make_kinds() noexcept {
  std::array<Kind, 256> kinds{};
  for (std::size_t c = 0; c < kinds.size(); ++c) kinds[c] = make_kind(static_cast<char32_t>(c));
  return kinds;
}

inline constexpr std::array<Kind, 256> kKinds = make_kinds();

// Of code points from 256 on.
[[nodiscard]] Kind wide_kind(char32_t c) noexcept;

template <typename Unit>
[[nodiscard]] inline Kind kind_of(Unit unit) noexcept {
  if constexpr (sizeof(Unit) == 1) {
    return kKinds[unit];
  } else {
    return unit < 256 ? kKinds[unit] : wide_kind(static_cast<char32_t>(unit));
  }
}

}  // namespace raxe_fast
