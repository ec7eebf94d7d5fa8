// The contract of triggers.hpp done the slow and obvious way, and random cases to hold TriggerSet
// against it. Shared by test_triggers.cpp and fuzz_triggers.cpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "raxe_fast/normalize.hpp"
#include "raxe_fast/triggers.hpp"

namespace raxe_fast::naive {

struct Word {
  std::u32string text;
  std::uint32_t begin, end;
};

inline std::vector<Word> split_words(const NormalizedText& text) {
  std::vector<Word> words;
  bool open = false;
  for (std::size_t i = 0; i < text.chars.size(); ++i) {
    const CharClass kind = char_class(text.chars[i]);
    if (kind == CharClass::separator) {
      open = false;
      continue;
    }
    if (!open || kind == CharClass::unspaced) {
      words.push_back({{}, text.origin[i], 0});
    }
    words.back().text += text.chars[i];
    words.back().end = text.origin[i] + 1;
    open = kind == CharClass::word;
  }
  return words;
}

inline bool matches(const PhraseElement& element, const std::u32string& word) {
  return std::ranges::find(element.words, word) != element.words.end() ||
         std::ranges::any_of(element.prefixes,
                             [&](const auto& prefix) { return word.starts_with(prefix); });
}

// Every way to place elements [0, last] with element `last` at word `at`: the largest index of the
// first word, or -1.
inline std::ptrdiff_t latest_start(const std::vector<PhraseElement>& phrase, std::size_t last,
                                   const std::vector<Word>& words, std::size_t at) {
  if (!matches(phrase[last], words[at].text)) {
    return -1;
  }
  if (last == 0) {
    return static_cast<std::ptrdiff_t>(at);
  }
  std::ptrdiff_t best = -1;
  for (std::size_t before = 0; before < at; ++before) {
    if (at - before - 1 <= phrase[last].max_gap) {
      best = std::max(best, latest_start(phrase, last - 1, words, before));
    }
  }
  return best;
}

inline std::vector<TriggerMatch> match(const std::vector<TriggerSpec>& specs, TextView text) {
  std::vector<TriggerMatch> out;
  std::vector<NormalizedText> readings{normalize(text, Ignorables::drop)};
  if (readings[0].had_ignorable) {
    readings.push_back(normalize(text, Ignorables::separate));
  }
  for (std::uint32_t t = 0; t < specs.size(); ++t) {
    std::set<std::pair<std::uint32_t, std::uint32_t>> spans;  // (end, begin)
    for (const NormalizedText& reading : readings) {
      for (const std::u32string& literal : specs[t].literals) {
        for (std::size_t at = reading.chars.find(literal); at != std::u32string::npos;
             at = reading.chars.find(literal, at + 1)) {
          spans.emplace(reading.origin[at + literal.size() - 1] + 1, reading.origin[at]);
        }
      }
      const std::vector<Word> words = split_words(reading);
      for (const std::vector<PhraseElement>& phrase : specs[t].phrases) {
        for (std::size_t at = 0; at < words.size(); ++at) {
          const std::ptrdiff_t start = latest_start(phrase, phrase.size() - 1, words, at);
          if (start >= 0) {
            spans.emplace(words[at].end, words[static_cast<std::size_t>(start)].begin);
          }
        }
      }
    }
    std::uint32_t count = 0;
    for (const auto& [end, begin] : spans) {
      if (count++ < kMaxMatchesPerTrigger) {
        out.push_back({t, begin, end});
      }
    }
  }
  std::ranges::sort(out, {}, [](const TriggerMatch& m) {
    return std::tuple(m.begin, m.end, m.trigger);
  });
  return out;
}

// A random case, drawn from any source of numbers: `draw(n)` gives one of 0 .. n-1.
struct Case {
  std::vector<TriggerSpec> specs;
  std::vector<std::uint32_t> text;  // as width 4
};

using Draw = std::function<std::uint32_t(std::uint32_t)>;

inline std::u32string normalised_pattern(const Draw& draw, std::u32string_view alphabet,
                                         std::uint32_t longest) {
  std::u32string pattern;
  for (std::uint32_t n = 1 + draw(longest); n > 0; --n) {
    pattern += alphabet[draw(static_cast<std::uint32_t>(alphabet.size()))];
  }
  return pattern;
}

inline Case random_case(const Draw& draw) {
  static constexpr std::u32string_view kWordLetters = U"aabbc1\u0436";
  static constexpr std::u32string_view kLiteralLetters = U"aabbc \u0436-\u4E00\u1100\u1161\u11A8/";
  static constexpr std::u32string_view kUnspaced = U"\u4E00\u53E3\u0E01\u304B";
  // Letters, look-alikes, wide, circled and expanding forms, separators, marks, ignorables,
  // unspaced scripts, Hangul, malformed values.
  static constexpr char32_t kText[] = {
      U'a',    U'a',    U'a',    U'b',    U'b',    U'b',    U'c',    U'A',    U'B',    U'1',
      U' ',    U' ',    U' ',    U' ',    U'-',    U'\n',   U'/',    0,       0x430,   0x412,
      0x441,   0x436,   0xE1,    0xFF41,  0x24D1,  0x1D41A, 0x2100,  0x249C,  0x663,   0x301,
      0x338,   0x1D165, 0x200B,  0xAD,    0xFE0F,  0xE0061, 0x202E,  0x34F,   0x4E00,  0x53E3,
      0xE01,   0xE49,   0x304C,  0xAC01,  0xAC00,  0x1100,  0x1161,  0x3000,  0xD800,  0xDFFF,
      0xFDFA,  0x10FFFF, 0x110000, 0xFFFFFFFF, 0x1F1E6, 0xA0,  0x3164,  0xFF76,  0xFF9E, U'_'};
  Case made;
  for (std::uint32_t t = 1 + draw(4); t > 0; --t) {
    TriggerSpec& spec = made.specs.emplace_back();
    spec.weight = 0.5;
    for (std::uint32_t n = draw(4); n > 0; --n) {
      spec.literals.push_back(normalised_pattern(draw, kLiteralLetters, 5));
    }
    for (std::uint32_t n = draw(4); n > 0; --n) {
      std::vector<PhraseElement>& phrase = spec.phrases.emplace_back();
      for (std::uint32_t e = 1 + draw(4); e > 0; --e) {
        PhraseElement& element = phrase.emplace_back();
        element.max_gap = draw(8) == 0 ? 0xFFFFFFFF : draw(4);
        for (std::uint32_t w = draw(3); w > 0; --w) {
          element.words.push_back(draw(5) == 0 ? normalised_pattern(draw, kUnspaced, 1)
                                               : normalised_pattern(draw, kWordLetters, 3));
        }
        for (std::uint32_t w = draw(3); w > 0; --w) {
          element.prefixes.push_back(normalised_pattern(draw, kWordLetters, 3));
        }
        if (element.words.empty() && element.prefixes.empty()) {
          element.words.push_back(U"a");
        }
      }
    }
  }
  // A narrow slice of the alphabet makes matches likely; the whole of it makes them odd.
  const std::uint32_t alphabet =
      draw(2) == 0 ? 16 : static_cast<std::uint32_t>(std::size(kText));
  for (std::uint32_t n = draw(60); n > 0; --n) {
    made.text.push_back(static_cast<std::uint32_t>(kText[draw(alphabet)]));
  }
  return made;
}

}  // namespace raxe_fast::naive
