#include "encoding_kinds.hpp"

#include <algorithm>
#include <iterator>

namespace raxe_fast {
namespace {

struct Range {
  char32_t first, last;
  Kind kind;
};

constexpr Kind kSelecting = kIgnorable | kSelector;
constexpr Kind kTagging = kIgnorable | kTag;

// By code point, disjoint: as the classes of decode_folding.py, decode_escapes.py (look-alikes in
// Morse code) and white space have it; a test of the Python package compares all code points.
constexpr Range kRanges[] = {
    {0x0261, 0x0262, kStyled},
    {0x026A, 0x026A, kStyled},
    {0x0274, 0x0274, kStyled},
    {0x0280, 0x0280, kStyled},
    {0x028F, 0x028F, kStyled},
    {0x0299, 0x0299, kStyled},
    {0x029C, 0x029C, kStyled},
    {0x029F, 0x029F, kStyled},
    {0x02B0, 0x02B8, kStyled},
    {0x02E1, 0x02E3, kStyled},
    {0x0300, 0x0333, kCombining},
    {0x0334, 0x0338, kCombining | kMark},
    {0x0339, 0x034E, kCombining},
    {0x034F, 0x034F, kCombining | kIgnorable},
    {0x0350, 0x036F, kCombining},
    {0x0370, 0x03FF, kForeign},
    {0x0400, 0x0487, kForeign},
    {0x0488, 0x0489, kForeign | kMark},
    {0x048A, 0x052F, kForeign},
    {0x0531, 0x0587, kForeign},
    {0x061C, 0x061C, kIgnorable},
    {0x115F, 0x1160, kIgnorable},
    {0x13A0, 0x13FD, kForeign},
    {0x1680, 0x1680, kSpaces},
    {0x17B4, 0x17B5, kIgnorable},
    {0x180B, 0x180E, kIgnorable},
    {0x1D00, 0x1DBF, kStyled},
    {0x2000, 0x200A, kSpaces},
    {0x200B, 0x200F, kIgnorable},
    {0x2010, 0x2011, kDash},
    {0x2013, 0x2014, kDash},
    {0x2022, 0x2022, kDot},
    {0x2028, 0x2029, kSpaces},
    {0x202A, 0x202E, kIgnorable},
    {0x202F, 0x202F, kSpaces},
    {0x205F, 0x205F, kSpaces},
    {0x2060, 0x206F, kIgnorable},
    {0x2070, 0x209C, kStyled},
    {0x20D0, 0x20E2, kMark},
    {0x20E4, 0x20F0, kMark},
    {0x2102, 0x2129, kStyled},
    {0x212A, 0x212A, kStyled | kKelvin},
    {0x212B, 0x2149, kStyled},
    {0x2160, 0x217F, kStyled},
    {0x2212, 0x2212, kDash},
    {0x2219, 0x2219, kDot},
    {0x22C5, 0x22C5, kDot},
    {0x2460, 0x24FF, kStyled},
    {0x3000, 0x3000, kSpaces},
    {0x3164, 0x3164, kIgnorable},
    {0xA4D0, 0xA4F7, kForeign},
    {0xA730, 0xA7FF, kStyled},
    {0xFE00, 0xFE0F, kSelecting},
    {0xFEFF, 0xFEFF, kIgnorable},
    {0xFF21, 0xFF3A, kStyled},
    {0xFF41, 0xFF5A, kStyled},
    {0xFFA0, 0xFFA0, kIgnorable},
    {0x1D400, 0x1D7FF, kStyled},
    {0x1F110, 0x1F189, kStyled},
    {0xE0000, 0xE001F, kIgnorable},
    {0xE0020, 0xE007E, kTagging},
    {0xE007F, 0xE00FF, kIgnorable},
    {0xE0100, 0xE01EF, kSelecting},
};

constexpr bool in_order() {
  char32_t reached = 255;
  for (const Range& range : kRanges) {
    if (range.first <= reached || range.last < range.first) return false;
    reached = range.last;
  }
  return true;
}
static_assert(in_order());

}  // namespace

Kind wide_kind(char32_t c) noexcept {
  // Whole scripts first: Cyrillic, then Kana, Han and Yi, then Hangul.
  if (c >= 0x048A && c <= 0x052F) return kBeyond | kForeign;
  if (c >= 0x0400 && c <= 0x0487) return kBeyond | kForeign;
  if (c > 0x3164 && c < 0xA4D0) return kBeyond;
  if (c > 0x3000 && c < 0x3164) return kBeyond;
  if (c >= 0xAC00 && c < 0xFE00) return kBeyond;
  const Range* const found = std::lower_bound(
      std::begin(kRanges), std::end(kRanges), c,
      [](const Range& range, char32_t value) { return range.last < value; });
  return found != std::end(kRanges) && c >= found->first ? found->kind | kBeyond : kBeyond;
}

}  // namespace raxe_fast
