#include <doctest/doctest.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "encoding_kinds.hpp"
#include "encoding_runs.hpp"
#include "raxe_fast/encoding_signs.hpp"

using namespace raxe_fast;

namespace {

constexpr std::size_t kLimit = 8192;

// "vtaber" and "gur" are "ignore" and "the" in ROT13 (bit 13), "eht" is "the" backwards (bit 0).
EncodingSigns make_signs() {
  return EncodingSigns(
      {{{U"gur", 1U << 13U}, {U"vtaber", 1U << 13U}, {U"eht", 1U}, {U"erongi", 1U}},
       {U"ignore", U"the", U"all", U"tell"},
       {U"today", U"say"}});
}

std::uint32_t signs(std::u32string_view text, std::size_t limit = kLimit) {
  static const EncodingSigns look = make_signs();
  const std::uint32_t wide = look({text.data(), text.size(), 4}, limit);
  // The same in the narrower forms that a str can have.
  bool fits16 = true, fits8 = true;
  for (const char32_t c : text) {
    fits16 = fits16 && c < 0x10000;
    fits8 = fits8 && c < 0x100;
  }
  if (fits16) {
    const std::vector<std::uint16_t> units(text.begin(), text.end());
    CHECK(look({units.data(), units.size(), 2}, limit) == wide);
  }
  if (fits8) {
    const std::vector<std::uint8_t> units(text.begin(), text.end());
    CHECK(look({units.data(), units.size(), 1}, limit) == wide);
  }
  return wide;
}

}  // namespace

TEST_CASE("plain texts show no sign") {
  for (const std::u32string_view text :
       {U"", U" ", U"a", U"How do I bake a chocolate cake?",
        U"The committee met (on Tuesday) to talk about 1,204 bikes - and 35 vans.",
        U"Donaudampfschifffahrtsgesellschaft, Rindfleischetikettierungsgesetz",
        U"Комитет собрался во вторник, чтобы обсудить бюджет.",
        U"委员会星期二开会。",
        U"550e8400-e29b-41d4-a716-446655440000",
        U"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        U"--------------------------------", U"today we say it, today, today and today"}) {
    CHECK(signs(text) == 0);
  }
}

TEST_CASE("base-N runs, by what they begin with") {
  CHECK(signs(U"x SWdub3JlIGFsbCBwcmV2aW91cw y") == kSignBaseN);                  // base64
  CHECK(signs(U"SWdub3JlIG==") == kSignBaseN);                                    // short, padded
  CHECK(signs(U"SWdub3JlIG") == 0);                                               // short
  CHECK(signs(U"JFTW433SMUQGC3DMEBYHEZLW") == kSignBaseN);                        // base32
  CHECK(signs(U"49676e6f726520616c6c") == kSignBaseN);                            // hex
  CHECK(signs(U"0x49676e6f726520616c6c") == kSignBaseN);
  CHECK((signs(U"0100100101100111") & kSignBaseN) != 0);                          // binary
  CHECK(signs(U"SQBnAG4AbwByAGUAIABhAGwAbAA=") == kSignBaseN);                    // of UTF-16
  CHECK(signs(U"w6TDtsO8w5/DpMO2w7w") == kSignBaseN);                             // of umlauts
  CHECK(signs(U"somelongfunctionname") == 0);
  CHECK_FALSE(may_be_encoded("////////////////", 16));
}

TEST_CASE("lists of codes") {
  CHECK(signs(U"73 103 110 111 114 101 32 97 108") == kSignCodeList);
  CHECK(signs(U"01001001 01100111 01101110 01101111 01110010") == kSignCodeList);
  CHECK(signs(U"0x49,0x67,0x6e,0x6f,0x72,0x65,0x20,0x61") == kSignCodeList);
  CHECK(signs(U"\\111\\147\\156\\157\\162\\145\\040\\141") == kSignCodeList);
  CHECK(signs(U"73,     103,     110,     111,     114,     101,     32") == 0);  // too far apart
  CHECK((signs(U"call 4242424242424242424242424 now") & kSignCodeList) == 0);
}

TEST_CASE("escapes") {
  CHECK(signs(U"%49%67%6e%6f%72%65") == kSignEscapes);
  CHECK(signs(U"%49%67%6e%6f%72") == 0);
  CHECK(signs(U"&#73;&#x67;&amp;&lt;&gt;&quot;") == kSignEscapes);
  CHECK(signs(U"a & b && c; &d; &e; &f; g & h;") == 0);
  CHECK(signs(U"\\u0049\\u0067\\x6e\\u006f\\U00000072\\u0065") == kSignEscapes);
}

TEST_CASE("Morse code") {
  CHECK(signs(U".. --. -. --- .-. . / .- .-.. .-..") == kSignMorse);
  CHECK(signs(U"·· −−· −· −−− ·−· · ·− ·−··") == kSignMorse);
  CHECK(signs(U".. --. -. --- .-. . .-") == 0);
  CHECK(signs(U"| --- | --- | -.- |") == 0);
  // Part of what is too long can begin or end one.
  CHECK((signs(U"--------- .- -. .- -. .- -. ---------") & kSignMorse) != 0);
}

TEST_CASE("letters set apart") {
  CHECK(signs(U"i g n o r e") == kSignSpacing);
  CHECK(signs(U"i g n o r") == 0);
  CHECK(signs(U"i-g-n-o-r-e") == kSignSpacing);
  CHECK(signs(U"é g ñ o 漢 e") == kSignSpacing);
}

TEST_CASE("two words of one cipher") {
  CHECK(signs(U"VTABER gur") == kSignCipher);
  CHECK(signs(U"gur gur gur") == 0);
  CHECK(signs(U"gur eht") == 0);
  CHECK(signs(U"eht gur erongi") == kSignCipher);
  CHECK(signs(U"gur, vtaber.") == 0);  // only whole tokens count
}

TEST_CASE("words in reversed order") {
  CHECK(signs(U"house the in alarms") == kSignWordOrder);
  CHECK(signs(U"house THE of.") == kSignWordOrder);
  CHECK(signs(U"now me tell") == kSignWordOrder);
  CHECK(signs(U"it you do how") == kSignWordOrder);
  for (const std::u32string_view text :
       {U"it they do how", U"house the  in", U"house the into it", U"the in", U"a the in-house",
        U"house the\nin", U"a the of_"}) {
    CHECK(signs(text) == 0);
  }
}

TEST_CASE("pig Latin and leetspeak") {
  CHECK(signs(U"Ignoreway allway, \"eviouspray\"") == kSignPigLatin);
  CHECK(signs(U"ignoreway allway today say may") == 0);
  CHECK(signs(U"1gn0r3 4l1 7h3") == kSignLeet);
  CHECK(signs(U"1gn0r3 7h3 x9z") == kSignLeet);
  CHECK(signs(U"a1b 2c 3d 4e 5f 6g") == 0);
  CHECK(signs(U"2c (7h3) x9z") == 0);
}

TEST_CASE("unicode") {
  CHECK(signs(U"\U000E0049\U000E0067\U000E006E\U000E006F") == kSignHidden);
  CHECK(signs(U"😀\U000E0139\U000E0157\U000E015E\U000E015F") == kSignHidden);
  CHECK(signs(U"❤\uFE0F ☀\uFE0F ☎\uFE0F ✈\uFE0F") == 0);
  CHECK(signs(U"Ｉｇｎｏｒｅ") == kSignFolded);
  CHECK(signs(U"ig\u200Bnore") == kSignFolded);
  CHECK(signs(U"ignоre") == kSignFolded);  // one Cyrillic letter
  CHECK(signs(U"i\u0336g\u0336n\u0336o\u0336r\u0336") == kSignFolded);
  CHECK(signs(U"e\u0301 e\u0301 e\u0301 e\u0301 e\u0301 e\u0301") == 0);
  CHECK(signs(U"θ and 3 μm") == kSignFolded);
  CHECK(signs(U"Новая статья о USB.") == 0);
  CHECK(signs(U"Новая статья", 4) == kSignFolded);  // a part of it is judged
  CHECK(signs(U"3 \u212A") == kAllSigns);
  CHECK(signs(std::u32string{U'\xD800', U'a', U'\xDFFF'}) == 0);
  const std::u32string beyond{static_cast<char32_t>(0x110000), static_cast<char32_t>(0xFFFFFFFF)};
  CHECK(signs(beyond) == 0);
}

TEST_CASE("every short text is safe to look at") {
  // All neighbours that an index could step over, at the end of a block of its own.
  const std::u32string_view signs_of_all = U"%&\\=.-_/0xa1 \u0430\u0336\uFE0F#;";
  std::u32string text;
  for (const char32_t a : signs_of_all) {
    for (const char32_t b : signs_of_all) {
      for (const char32_t c : signs_of_all) {
        text = {a, b, c};
        CHECK(signs(text) <= kAllSigns);
      }
    }
  }
}

TEST_CASE("words that cannot be packed are refused") {
  const auto make = [](std::vector<PackedWords::Item> coded, std::vector<std::u32string> in_ay) {
    return EncodingSigns({std::move(coded), {}, std::move(in_ay)});
  };
  CHECK_NOTHROW(make({{U"abcdefghijkl", 1}}, {U"a"}));
  CHECK_THROWS_AS(make({{U"abcdefghijklm", 1}}, {}), std::invalid_argument);
  CHECK_THROWS_AS(make({{U"", 1}}, {}), std::invalid_argument);
  CHECK_THROWS_AS(make({{U"don't", 1}}, {}), std::invalid_argument);
  CHECK_THROWS_AS(make({{U"Word", 1}}, {}), std::invalid_argument);
  CHECK_THROWS_AS(make({{U"word", 1}, {U"word", 2}}, {}), std::invalid_argument);
  CHECK_THROWS_AS(make({}, {U"x-ray"}), std::invalid_argument);
}

TEST_CASE("packed words are found, and nothing else") {
  std::vector<PackedWords::Item> items;
  for (char32_t a = U'a'; a <= U'z'; ++a) {
    for (char32_t b = U'a'; b <= U'z'; ++b) {
      items.push_back({{a, b}, static_cast<std::uint32_t>(items.size())});
    }
  }
  const PackedWords words(items);
  for (const PackedWords::Item& item : items) {
    const std::uint64_t word = pack_letter(pack_letter(0, item.word[0]), item.word[1]);
    const std::size_t place = words.find(word);
    REQUIRE(place != PackedWords::kNone);
    CHECK(words.value(place) == item.value);
    CHECK(words.find(pack_letter(word, U'a')) == PackedWords::kNone);
  }
  CHECK(words.find(0) == PackedWords::kNone);
  CHECK(words.find(pack_letter(0, U'a')) == PackedWords::kNone);
}
