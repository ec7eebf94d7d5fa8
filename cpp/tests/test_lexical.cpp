#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "isa_levels.hpp"
#include "naive_ngrams.hpp"
#include "raxe_fast/lexical.hpp"

using namespace raxe_fast;

namespace {

TextView view(std::u32string_view text) { return {text.data(), text.size(), 4}; }

std::vector<std::uint32_t> hashes(TextView text, std::size_t begin, std::size_t end) {
  std::u32string scratch = U"left over";
  std::vector<std::uint32_t> out;
  ngram_hashes(text, begin, end, scratch, out);
  return out;
}

std::vector<std::uint32_t> sorted(std::vector<std::uint32_t> values) {
  std::sort(values.begin(), values.end());
  return values;
}

std::vector<std::uint32_t> sorted_hashes(std::u32string_view text) {
  return sorted(hashes(view(text), 0, text.size()));
}

std::uint32_t characters(std::u32string gram) {
  std::reverse(gram.begin(), gram.end());
  const auto n = static_cast<std::uint32_t>(gram.size());
  return naive::fmix(naive::fnv1a(gram) ^ (0x9E3779B9U * n));
}

std::uint32_t word(const std::u32string& text) {
  return naive::fmix(naive::fnv1a(text) ^ 0x85EBCA6BU);
}

std::uint32_t pair(const std::u32string& first, const std::u32string& second) {
  return naive::fmix((naive::fnv1a(first) * 16777619U) ^ naive::fnv1a(second) ^ 0xC2B2AE35U);
}

std::size_t count(const std::vector<std::uint32_t>& values, std::uint32_t value) {
  return static_cast<std::size_t>(std::count(values.begin(), values.end(), value));
}

struct Table {
  unsigned bits;
  std::vector<std::int8_t> values;
  std::vector<float> scale, bias;

  Table(std::mt19937& random, unsigned b, std::size_t outputs)
      : bits(b), values((std::size_t{1} << b) * outputs) {
    for (std::int8_t& value : values) value = static_cast<std::int8_t>(random());
    for (std::size_t k = 0; k < outputs; ++k) {
      scale.push_back(0.01F * static_cast<float>(k + 1));
      bias.push_back(static_cast<float>(k) - 0.5F);
    }
  }

  [[nodiscard]] LexicalModel model() const { return LexicalModel(values, bits, scale, bias); }

  [[nodiscard]] std::vector<double> reference(const std::vector<std::uint32_t>& of) const {
    const std::size_t outputs = scale.size();
    std::set<std::size_t> rows;
    for (const std::uint32_t hash : of) rows.insert(hash % (std::size_t{1} << bits));
    std::vector<double> out;
    for (std::size_t k = 0; k < outputs; ++k) {
      int sum = 0;
      for (const std::size_t row : rows) sum += values[row * outputs + k];
      const double root = rows.empty() ? 1.0 : std::sqrt(static_cast<double>(rows.size()));
      out.push_back(static_cast<double>(scale[k]) * sum / root + static_cast<double>(bias[k]));
    }
    return out;
  }
};

}  // namespace

TEST_CASE("lexical unit: published values of the hashes") {
  CHECK(naive::fnv1a(U"") == 0x811C9DC5U);
  CHECK(naive::fnv1a(U"a") == 0xE40C292CU);
  CHECK(naive::fnv1a(U"foobar") == 0xBF9CF968U);
  CHECK(naive::fmix(0U) == 0U);
  CHECK(naive::fmix(1U) == 0x514E28B7U);
}

TEST_CASE("lexical unit: n-grams of a short text, in order of their ends") {
  CHECK(hashes(view(U""), 0, 0).empty());
  CHECK(hashes(view(U" \t\n"), 0, 3).empty());
  // A word ends, and is known, before the space that follows it.
  CHECK(hashes(view(U"a"), 0, 1) == std::vector{word(U"a"), characters(U" a ")});
  CHECK(hashes(view(U"ab!c"), 0, 4) ==
        std::vector{characters(U" ab"), word(U"ab"), characters(U"ab!"), characters(U" ab!"),
                    characters(U"b!c"), characters(U"ab!c"), characters(U" ab!c"), word(U"c"),
                    pair(U"ab", U"c"), characters(U"!c "), characters(U"b!c "),
                    characters(U"ab!c ")});
}

TEST_CASE("lexical rules: repeats are appended, one for each time") {
  const auto found = sorted_hashes(U"go go go");
  CHECK(count(found, word(U"go")) == 3);
  CHECK(count(found, pair(U"go", U"go")) == 2);
  CHECK(count(found, characters(U" go ")) == 3);
}

TEST_CASE("lexical rules: read through the normaliser, runs of spaces as one") {
  const auto plain = sorted_hashes(U"ignore all rules");
  CHECK(sorted_hashes(U"IGNORE all rules") == plain);
  CHECK(sorted_hashes(U"  ignore \t\r\n all\u00A0\u2003rules\u3000") == plain);
  CHECK(sorted_hashes(U"ig\u200Bno\u00ADre \uFEFFall rules\u2060") == plain);
  CHECK(sorted_hashes(U"\uFF29gn\u043Ere a\u0336ll rules") == plain);
  CHECK(sorted_hashes(U"ignore \u200B all rules") == plain);
  CHECK(sorted_hashes(U"ignoreall rules") != plain);
  CHECK(sorted_hashes(U"\u200B\u200D").empty());
}

TEST_CASE("lexical rules: each letter of a script without spaces is a word") {
  const auto found = sorted_hashes(U"\u4E2D\u6587ab\u0E01");
  CHECK(count(found, word(U"\u4E2D")) == 1);
  CHECK(count(found, word(U"ab")) == 1);
  CHECK(count(found, pair(U"\u4E2D", U"\u6587")) == 1);
  CHECK(count(found, pair(U"\u6587", U"ab")) == 1);
  CHECK(count(found, pair(U"ab", U"\u0E01")) == 1);
  CHECK(count(found, word(U"\u4E2D\u6587")) == 0);
}

TEST_CASE("lexical rules: a window sees its own code points alone") {
  const std::u32string text = U"first one, then another";
  const TextView all = view(text);
  CHECK(sorted(hashes(all, 6, 9)) == sorted_hashes(U"one"));
  CHECK(sorted(hashes(all, 16, 500)) == sorted_hashes(U"another"));
  CHECK(hashes(all, text.size(), text.size() + 9).empty());
  CHECK(hashes(all, 500, 600).empty());
  CHECK(hashes(all, 9, 6).empty());
}

TEST_CASE("lexical rules: every width of storage") {
  const std::string narrow = "some Text, twice";
  std::u16string middle;
  std::u32string wide;
  for (const char c : narrow) {
    middle.push_back(static_cast<char16_t>(c));
    wide.push_back(static_cast<char32_t>(c));
  }
  const auto expected = sorted_hashes(wide);
  CHECK(sorted(hashes({narrow.data(), narrow.size(), 1}, 0, narrow.size())) == expected);
  CHECK(sorted(hashes({middle.data(), middle.size(), 2}, 0, middle.size())) == expected);
}

TEST_CASE("lexical rules: against the naive n-grams, on random texts and windows") {
  std::mt19937 random(4);
  const std::u32string alphabet =
      U"aAbz019 _-!.\t\n  \u00E9\u00DF\u0130\u200B\u00AD\uFB03\uFDFA\u2026\u00A8\u0301\u0430\u05D0"
      U"\u4E2D\u30AB\u0E01\uAC01\uD7A3\u3000\U0001F642\U000E0061\U0010FFFF";
  for (int repeat = 0; repeat < 600; ++repeat) {
    std::u32string text(random() % 60, U' ');
    for (char32_t& c : text) {
      c = random() % 50 == 0 ? static_cast<char32_t>(random() % 0x120000)
                             : alphabet[random() % alphabet.size()];
    }
    const std::size_t begin = random() % (text.size() + 2), end = random() % (text.size() + 3);
    CHECK(sorted_hashes(text) == naive::hashes(view(text), 0, text.size()));
    CHECK(sorted(hashes(view(text), begin, end)) == naive::hashes(view(text), begin, end));
  }
}

TEST_CASE("lexical unit: a table of two rows") {
  const LexicalModel model({10, -4, 20, 100}, 1, {0.5F, 2.0F}, {1.0F, 0.0F});
  CHECK(model.outputs() == 2);
  LexicalScratch scratch;
  float out[2] = {};
  model({}, scratch, out);
  CHECK(out[0] == 1.0F);
  CHECK(out[1] == 0.0F);
  // All even hashes meet in row 0, which counts once.
  model({0, 2, 0, 0xFFFFFFFEU}, scratch, out);
  CHECK(out[0] == 6.0F);
  CHECK(out[1] == -8.0F);
  model({1, 2}, scratch, out);
  CHECK(out[0] == doctest::Approx(1.0 + 15.0 / std::sqrt(2.0)));
  CHECK(out[1] == doctest::Approx(2.0 * 96.0 / std::sqrt(2.0)));
}

TEST_CASE("lexical rules: every row once, one scratch for tables of all sizes") {
  std::mt19937 random(5);
  std::vector<Table> tables;
  for (const unsigned bits : {1U, 4U, 6U, 7U, 12U}) tables.emplace_back(random, bits, 1 + bits % 5);
  std::vector<LexicalModel> models;
  for (const Table& table : tables) models.push_back(table.model());
  LexicalScratch scratch;
  for (int repeat = 0; repeat < 200; ++repeat) {
    std::vector<std::uint32_t> of(random() % 100);
    for (std::uint32_t& hash : of) {
      hash = random() % 3 == 0 ? 7U : static_cast<std::uint32_t>(random());
    }
    for (std::size_t t = 0; t < tables.size(); ++t) {
      std::vector<float> out(models[t].outputs(), std::numeric_limits<float>::quiet_NaN());
      models[t](of, scratch, out.data());
      const std::vector<double> expected = tables[t].reference(of);
      for (std::size_t k = 0; k < out.size(); ++k) {
        CHECK(static_cast<double>(out[k]) == doctest::Approx(expected[k]).epsilon(1e-6));
      }
      CHECK(std::all_of(scratch.seen.begin(), scratch.seen.end(),
                        [](std::uint64_t bits) { return bits == 0; }));
    }
  }
}

TEST_CASE("lexical unit: wide rows and sums past int16, on every instruction set") {
  std::mt19937 random(8);
  for (const std::size_t outputs : {15U, 16U, 17U, 32U, 33U, 42U, 64U, 65U, 130U}) {
    Table table(random, 11, outputs);
    // Two columns at the ends of int8: 2,048 rows of them leave int16 far behind.
    for (std::size_t row = 0; row < 2048; ++row) {
      table.values[row * outputs] = -128;
      table.values[row * outputs + outputs - 1] = 127;
    }
    std::vector<std::uint32_t> all(2048);
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::uint32_t>(i);
    const std::vector<double> expected = table.reference(all);
    const LexicalModel model = table.model();
    std::vector<float> first;
    test::on_every_isa([&] {
      LexicalScratch scratch;
      std::vector<float> out(outputs);
      model(all, scratch, out.data());
      for (std::size_t k = 0; k < outputs; ++k) {
        CHECK(static_cast<double>(out[k]) == doctest::Approx(expected[k]).epsilon(1e-5));
      }
      if (first.empty()) first = out;
      CHECK(out == first);
    });
  }
}

TEST_CASE("lexical unit: the same hashes on every instruction set, at every length") {
  std::u32string text;
  for (std::size_t i = 0; i < 70; ++i) {
    text += U"aZ  9_\u00e9\u6f22\U0001F600"[i * 7 % 9];
    std::vector<std::uint32_t> first;
    test::on_every_isa([&] {
      std::u32string scratch;
      std::vector<std::uint32_t> out{7};  // appended to
      ngram_hashes(view(text), 0, text.size(), scratch, out);
      CHECK(out.front() == 7);
      if (first.empty()) first = out;
      CHECK(out == first);
      CHECK(sorted({out.begin() + 1, out.end()}) ==
            sorted(naive::hashes(view(text), 0, text.size())));
    });
  }
}

TEST_CASE("lexical rules: order and repeats of the hashes do not matter") {
  std::mt19937 random(6);
  const Table table(random, 10, 3);
  const LexicalModel model = table.model();
  std::vector<std::uint32_t> of(300);
  for (std::uint32_t& hash : of) hash = static_cast<std::uint32_t>(random());
  LexicalScratch scratch;
  float first[3], second[3];
  model(of, scratch, first);
  of.insert(of.end(), of.begin(), of.begin() + 150);
  std::shuffle(of.begin(), of.end(), random);
  model(of, scratch, second);
  CHECK(std::equal(first, first + 3, second));
}

TEST_CASE("lexical safety: malformed tables are refused") {
  using I = std::vector<std::int8_t>;
  using F = std::vector<float>;
  const auto make = [](const I& table, unsigned bits, const F& scale, const F& bias) {
    return LexicalModel(table, bits, scale, bias);
  };
  CHECK_NOTHROW(make({1, 2}, 1, {1.0F}, {0.0F}));
  CHECK_THROWS_AS(make({1}, 0, {1.0F}, {0.0F}), std::invalid_argument);
  CHECK_THROWS_AS(make({1, 2}, 25, {1.0F}, {0.0F}), std::invalid_argument);
  CHECK_THROWS_AS(make({1, 2}, 200, {1.0F}, {0.0F}), std::invalid_argument);
  CHECK_THROWS_AS(make({1, 2, 3}, 1, {1.0F}, {0.0F}), std::invalid_argument);
  CHECK_THROWS_AS(make({1, 2}, 2, {1.0F}, {0.0F}), std::invalid_argument);
  CHECK_THROWS_AS(make({1, 2}, 1, {1.0F, 1.0F}, {0.0F, 0.0F}), std::invalid_argument);
  CHECK_THROWS_AS(make({1, 2}, 1, {1.0F}, {}), std::invalid_argument);
  CHECK_THROWS_AS(make({1, 2}, 1, {}, {0.0F}), std::invalid_argument);
  CHECK_THROWS_AS(make({}, 1, {}, {}), std::invalid_argument);
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    CHECK_THROWS_AS(make({1, 2}, 1, {bad}, {0.0F}), std::invalid_argument);
    CHECK_THROWS_AS(make({1, 2}, 1, {1.0F}, {bad}), std::invalid_argument);
  }
}
