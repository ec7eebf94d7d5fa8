#include <doctest/doctest.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "raxe_fast/normalize.hpp"

using namespace raxe_fast;

namespace {

TextView view(std::u32string_view text) { return {text.data(), text.size(), 4}; }

std::u32string norm(std::u32string_view text, Ignorables mode = Ignorables::drop) {
  return normalize(view(text), mode).chars;
}

std::u32string mapped(char32_t c) {
  const Mapped m = map_code_point(c);
  return m.chars == nullptr ? std::u32string(m.count, c) : std::u32string(m.chars, m.count);
}

}  // namespace

TEST_CASE("ASCII: lower case, controls to spaces, the rest untouched") {
  CHECK(norm(U"Ignore ALL previous_instructions, 100%!") ==
        U"ignore all previous_instructions, 100%!");
  CHECK(norm(std::u32string_view(U"a\0b\tc\r\nd\x7F", 9)) == U"a b c  d ");
  for (char32_t c = 0; c < 128; ++c) {
    CHECK(mapped(c).size() == 1);
  }
}

TEST_CASE("compatibility forms") {
  CHECK(norm(U"\uFF29\uFF47\uFF4E\uFF4F\uFF52\uFF45") == U"ignore");            // fullwidth
  CHECK(norm(U"\U0001D408\U0001D420\U0001D427\U0001D428") == U"igno");          // math bold
  CHECK(norm(U"\u24BE\u24D6\u24DD") == U"ign");                                 // circled
  CHECK(norm(U"\U0001F130\U0001F150\U0001F170\U0001F1E6") == U"aaaa");          // squared, flags
  CHECK(norm(U"o\uFB03ce") == U"office");                                       // ligature
  CHECK(norm(U"\u2460\u2776\u00B2\uFF13") == U"1123");                          // numbers
  CHECK(norm(U"\uFF76\uFF9E \u304C") == U"\u30AB \u304B");                      // kana
  CHECK(norm(U"\u2026\u2100") == U"...a/c");
  CHECK(norm(U"\uFDFA").size() == kMaxExpansion);
}

TEST_CASE("case folding") {
  CHECK(norm(U"Stra\u00DFe STRA\u1E9EE") == U"strasse strasse");
  CHECK(norm(U"\u0130\u0131\u017F") == U"iis");        // dotted capital, dotless, long s
  CHECK(norm(U"\u0416\u042B") == U"\u0436\u044B");     // Cyrillic that resembles nothing
  CHECK(norm(U"\u03A6\u03C6\u03A8\u03C8") == U"\u03C6\u03C6\u03C8\u03C8");
}

TEST_CASE("marks go, whatever their order or composition") {
  CHECK(norm(U"\u00EFgn\u00F6r\u00E9") == U"ignore");
  CHECK(norm(U"i\u0308gno\u0301\u0327re\u0335") == U"ignore");
  CHECK(norm(U"Z\u0351\u036B\u0343a\u0489lgo") == U"zalgo");
  CHECK(norm(U"\u1112\u1161\u11AB") == norm(U"\uD55C"));  // jamo and the syllable they make
}

TEST_CASE("confusables") {
  CHECK(norm(U"\u0456gn\u043Er\u0435") == U"ignore");                  // Cyrillic small
  CHECK(norm(U"\u0406G\u039D\u041ER\u0415") == U"ignore");             // Cyrillic, Greek capitals
  CHECK(norm(U"\u03C1r\u0435v\u03B9\u03BFus") == U"previous");         // Greek small
  CHECK(norm(U"\u13A5\u13C0\u13BB\u13AC\uAB7C") == U"ighee");  // Cherokee
  CHECK(norm(U"\u1D0F\u1D18\u1D07\u0274") == U"open");                 // small capitals
  CHECK(norm(U"\u00F8\u0142\u0111\u0127\u0131\u0167\u0268") == U"oldhiti");  // strokes
  CHECK(norm(U"\u057D\u0585") == U"uo");                               // Armenian
  CHECK(norm(U"\u0432\u043A\u043C\u043D\u0442") == norm(U"\u0412\u041A\u041C\u041D\u0422"));
  CHECK(norm(U"\u0661\u0968\u0E53") == U"123");                        // digits by value
  CHECK(norm(U"\u4E00\u53E3\u3078") == U"\u4E00\u53E3\u3078");         // never from Han or Kana
  CHECK(norm(U"\u00D7\u20AC\u2228") == U"\u00D7\u20AC\u2228");         // nor from symbols
}

TEST_CASE("white space and ignorables") {
  for (const char32_t c : U"\u0009\u000A\u000B\u000C\u000D\u001F\u0085\u00A0\u1680\u2003\u2028"
                          U"\u2029\u202F\u205F\u3000") {
    CHECK(mapped(c) == U" ");
  }
  for (const char32_t c : std::u32string_view(
           U"\u00AD\u034F\u061C\u115F\u1160\u17B4\u180B\u180E\u200B\u200C\u200D\u200E\u202A\u202E"
           U"\u2060\u2064\u2066\u206F\u3164\uFE00\uFE0F\uFEFF\uFFA0\U0001D173\U000E0001\U000E0041"
           U"\U000E007F\U000E01EF")) {
    CAPTURE(static_cast<std::uint32_t>(c));
    CHECK(map_code_point(c).ignorable);
    CHECK(map_code_point(c).count == 0);
  }
  CHECK_FALSE(map_code_point(0x301).ignorable);
  CHECK(norm(U"ig\u200Bnore\uFEFF") == U"ignore");
  CHECK(norm(U"now\u200Bignore", Ignorables::separate) == U"now ignore");
  CHECK(norm(U"e\u0301", Ignorables::separate) == U"e");
  CHECK(normalize(view(U"a\u00ADb"), Ignorables::drop).had_ignorable);
  CHECK_FALSE(normalize(view(U"a\u0301b"), Ignorables::drop).had_ignorable);
}

TEST_CASE("malformed values map to themselves") {
  for (const char32_t c : {0xD800U, 0xDBFFU, 0xDC00U, 0xDFFFU, 0xFFFEU, 0xFFFFU, 0x378U, 0x10FFFFU,
                           0x110000U, 0x80000000U, 0xFFFFFFFFU}) {
    CAPTURE(c);
    CHECK(mapped(c) == std::u32string(1, c));
    CHECK(char_class(c) == CharClass::separator);
  }
}

TEST_CASE("origins") {
  const NormalizedText text = normalize(view(U"\u200B\uFB03\u0301x\u00AD"), Ignorables::separate);
  CHECK(text.chars == U" ffix ");
  CHECK(text.origin == std::vector<std::uint32_t>{0, 1, 1, 1, 3, 4});
  CHECK(normalize({nullptr, 0, 1}, Ignorables::drop).chars.empty());
}

TEST_CASE("the three widths read alike") {
  const std::uint8_t one[] = {'A', 0xE9, 0xAD, 0xBD, 0xA0};
  const std::uint16_t two[] = {'A', 0xE9, 0xAD, 0xBD, 0xA0};
  const std::uint32_t four[] = {'A', 0xE9, 0xAD, 0xBD, 0xA0};
  const std::u32string expected = U"ae1\u20442 ";
  CHECK(normalize({one, 5, 1}, Ignorables::drop).chars == expected);
  CHECK(normalize({two, 5, 2}, Ignorables::drop).chars == expected);
  CHECK(normalize({four, 5, 4}, Ignorables::drop).chars == expected);
}

TEST_CASE("classes") {
  for (const char32_t c : std::u32string_view(U"az09_\u00E6\u0436\u05D0\u0628\u0939\u093E\u1100"
                                              U"\u1161\u11A8\u10D0")) {
    CAPTURE(static_cast<std::uint32_t>(c));
    CHECK(char_class(c) == CharClass::word);
  }
  for (const char32_t c : U"\u4E00\u3007\u3005\u304B\u30AB\u30FC\u0E01\u0E32\u0E81\u1780\u1000"
                          U"\U00020000\U000323AF") {
    if (c != 0) {
      CAPTURE(static_cast<std::uint32_t>(c));
      CHECK(char_class(c) == CharClass::unspaced);
    }
  }
  for (const char32_t c : U" -.,'\"/\\$%@\u00D7\u20AC\u2014\u3001\u3002\u0964\U0001F600") {
    CAPTURE(static_cast<std::uint32_t>(c));
    CHECK(char_class(c) == CharClass::separator);
  }
}

TEST_CASE("laws, on every code point") {
  std::size_t not_idempotent = 0, too_long = 0, class_lost = 0;
  for (char32_t c = 0; c < 0x110100; ++c) {
    const std::u32string once = mapped(c);
    too_long += once.size() > kMaxExpansion;
    for (const char32_t d : once) {
      not_idempotent += mapped(d) != std::u32string(1, d);
      not_idempotent += map_code_point(d).ignorable;
      class_lost += d < 128 && (char_class(d) == CharClass::word) !=
                                   ((d >= 'a' && d <= 'z') || (d >= '0' && d <= '9') || d == '_');
    }
  }
  CHECK(not_idempotent == 0);
  CHECK(too_long == 0);
  CHECK(class_lost == 0);
}

TEST_CASE("Hangul syllables equal their canonical decomposition") {
  std::size_t wrong = 0;
  for (char32_t s = 0; s < 11172; ++s) {
    std::u32string jamo{static_cast<char32_t>(0x1100 + s / 588),
                        static_cast<char32_t>(0x1161 + s % 588 / 28)};
    if (s % 28 != 0) {
      jamo += static_cast<char32_t>(0x11A7 + s % 28);
    }
    wrong += mapped(0xAC00 + s) != jamo || norm(jamo) != jamo;
  }
  CHECK(wrong == 0);
}
