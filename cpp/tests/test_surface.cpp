#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "naive_surface.hpp"
#include "raxe_fast/surface.hpp"

using namespace raxe_fast;

namespace {

std::vector<float> surface(TextView text, std::size_t begin, std::size_t end) {
  std::vector<float> out(kSurface, std::numeric_limits<float>::quiet_NaN());
  surface_statistics(text, begin, end, out.data());
  return out;
}

TextView view(std::u32string_view text) { return {text.data(), text.size(), 4}; }

std::vector<float> surface(std::u32string_view text) { return surface(view(text), 0, text.size()); }

void check(const std::vector<float>& got, const std::vector<double>& want) {
  REQUIRE(got.size() == want.size());
  for (std::size_t k = 0; k < got.size(); ++k) {
    CAPTURE(k);
    CHECK(static_cast<double>(got[k]) == doctest::Approx(want[k]).epsilon(1e-6));
  }
}

}  // namespace

TEST_CASE("surface unit: literals") {
  const double log3 = std::log(3.0);
  check(surface(U"aA"), {log3, 0.5, 0, 0, 0, 0, 0, 1, log3, 2});
  check(surface(U"7"), {std::log(2.0), 0, 1, 0, 0, 0, 0, 0, std::log(2.0), 1});
  check(surface(U"  "), {log3, 0, 0, 0, 1, 0, 0, 0, 0, 0});
  check(surface(U"ab c\t!?"), {std::log(8.0), 0, 0, 0, 2 / 7.0, 2 / 7.0, 0, std::log2(7.0), log3,
                               5 / 3.0});
  check(surface(std::u32string_view(U"\0\x7F", 2)), {log3, 0, 0, 0, 0, 0, 1, 1, log3, 2});
  // An accent does not make a small letter of the ASCII statistics; a zero-width space is control,
  // a no-break space white space.
  check(surface(U"\u00E9\u200B\u00A0"),
        {std::log(4.0), 0, 0, 1, 1 / 3.0, 0, 1 / 3.0, std::log2(3.0), log3, 2});
}

TEST_CASE("surface unit: nothing at all") {
  const std::vector<float> zeros(kSurface, 0.0F);
  const TextView text = view(U"abc");
  CHECK(surface(U"") == zeros);
  CHECK(surface(text, 2, 2) == zeros);
  CHECK(surface(text, 2, 1) == zeros);
  CHECK(surface(text, 3, 9) == zeros);
  CHECK(surface(text, 100, 200) == zeros);
}

TEST_CASE("surface rules: a window is a text of its own, and ends with its text") {
  const std::u32string text = U"First, 2 words\u3000and \U0001F642";
  for (std::size_t begin = 0; begin < text.size(); ++begin) {
    for (std::size_t end = begin; end <= text.size(); ++end) {
      CHECK(surface(view(text), begin, end) == surface(text.substr(begin, end - begin)));
    }
    CHECK(surface(view(text), begin, text.size() + 50) == surface(text.substr(begin)));
  }
}

TEST_CASE("surface rules: every width of storage") {
  const std::string narrow = "One of 3 widths!";
  std::u16string middle;
  std::u32string wide;
  for (const char c : narrow) {
    middle.push_back(static_cast<char16_t>(c));
    wide.push_back(static_cast<char32_t>(c));
  }
  CHECK(surface({narrow.data(), narrow.size(), 1}, 0, narrow.size()) == surface(wide));
  CHECK(surface({middle.data(), middle.size(), 2}, 0, middle.size()) == surface(wide));
}

TEST_CASE("surface rules: every code point alone, against the naive statistics") {
  for (char32_t c = 0; c < 0x30000; c += c < 0x3000 ? 1 : 37) {
    const std::u32string text(1, c);
    CAPTURE(static_cast<std::uint32_t>(c));
    check(surface(text), naive::surface(text));
  }
}

TEST_CASE("surface rules: random texts, against the naive statistics") {
  std::mt19937 random(7);
  const std::u32string alphabet =
      U"aZz0 9_-!.\t\n\r\v\f\x1F\x7F\u0085\u00A0\u00A8\u00E9\u0301\u2003\u200B\u00AD\u3000\u4E2D"
      U"\uFEFF\U0001F642\U000E0061\U0010FFFF";
  for (int repeat = 0; repeat < 500; ++repeat) {
    std::u32string text(random() % 80, U' ');
    for (char32_t& c : text) {
      c = random() % 20 == 0 ? static_cast<char32_t>(random())
                             : alphabet[random() % alphabet.size()];
    }
    const std::vector<float> got = surface(text);
    check(got, naive::surface(text));
    for (const float value : got) CHECK(std::isfinite(value));
  }
}
