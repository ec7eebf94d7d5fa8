#include "raxe_fast/normalize.hpp"

#include <array>
#include <cstdint>
#include <stdexcept>

#include "unicode_tables.hpp"

namespace raxe_fast {
namespace {

constexpr char32_t kSpace = U' ';

constexpr std::array<char32_t, 128> make_ascii_map() {
  std::array<char32_t, 128> map{};
  for (char32_t c = 0; c < 128; ++c) {
    if (c < 0x20 || c == 0x7F) {
      map[c] = kSpace;
    } else {
      map[c] = c >= U'A' && c <= U'Z' ? c + 32 : c;
    }
  }
  return map;
}

constexpr std::array<char32_t, 128> kAscii = make_ascii_map();

// Hangul syllables are regular, so their 11,172 decompositions are worked out instead of stored:
// once, on the first syllable seen, into memory that a process without Korean text never touches.
constexpr char32_t kSyllableBase = 0xAC00, kLeadBase = 0x1100, kVowelBase = 0x1161,
                   kTrailBase = 0x11A7;
constexpr std::size_t kVowels = 21, kTrails = 28, kSyllables = 11172;

using Syllables = std::array<std::array<char32_t, 3>, kSyllables>;

void fill(Syllables& table) noexcept {
  for (std::size_t i = 0; i < kSyllables; ++i) {
    table[i] = {kLeadBase + static_cast<char32_t>(i / (kVowels * kTrails)),
                kVowelBase + static_cast<char32_t>(i / kTrails % kVowels),
                kTrailBase + static_cast<char32_t>(i % kTrails)};
  }
}

Mapped map_syllable(char32_t c) noexcept {
  static Syllables table;
  static const bool filled = (fill(table), true);
  static_cast<void>(filled);
  const std::size_t index = c - kSyllableBase;
  const bool has_trail = index % kTrails != 0;
  return {table[index].data(), static_cast<std::uint8_t>(has_trail ? 3 : 2), false};
}

}  // namespace

Mapped map_code_point(char32_t c) noexcept {
  if (c < 128) {
    return {&kAscii[c], 1, false};
  }
  if (c >= unicode::kLimit) {
    if (c >= unicode::kTagsBegin && c < unicode::kTagsEnd) {
      return {nullptr, 0, true};
    }
    return {nullptr, 1, false};
  }
  const std::size_t block = unicode::kMapIndex[c / 64];
  const std::uint16_t entry = unicode::kMapBlocks[block * 64 + c % 64];
  switch (entry) {
    case unicode::kSelf:
      return {nullptr, 1, false};
    case unicode::kDropped:
      return {nullptr, 0, false};
    case unicode::kIgnorable:
      return {nullptr, 0, true};
    case unicode::kSyllable:
      return map_syllable(c);
    default: {
      const std::uint32_t span = unicode::kSequences[entry - unicode::kFirstSequence];
      return {unicode::kPool + (span >> 5), static_cast<std::uint8_t>(span & 31), false};
    }
  }
}

CharClass char_class(char32_t c) noexcept {
  if (c >= unicode::kLimit) {
    return CharClass::separator;
  }
  const std::size_t block = unicode::kClassIndex[c / 64];
  const unsigned four = unicode::kClassBlocks[block * 16 + c % 64 / 4];
  return static_cast<CharClass>(four >> (c % 4 * 2) & 3);
}

NormalizedText normalize(TextView text, Ignorables mode) {
  if (text.length > UINT32_MAX) throw std::length_error("a text of 2^32 code points or more");
  NormalizedText out;
  out.chars.reserve(text.length);
  out.origin.reserve(text.length);
  for (std::size_t i = 0; i < text.length; ++i) {
    const char32_t c = text[i];
    const auto origin = static_cast<std::uint32_t>(i);
    const Mapped mapped = map_code_point(c);
    if (mapped.ignorable) {
      out.had_ignorable = true;
      if (mode == Ignorables::separate) {
        out.chars.push_back(kSpace);
        out.origin.push_back(origin);
      }
      continue;
    }
    for (std::size_t k = 0; k < mapped.count; ++k) {
      out.chars.push_back(mapped.chars == nullptr ? c : mapped.chars[k]);
      out.origin.push_back(origin);
    }
  }
  return out;
}

}  // namespace raxe_fast
