#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <map>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <vector>

#include "raxe_fast/wordpiece.hpp"
#include "wordpiece_trie.hpp"

using namespace raxe_fast;

namespace {

using Found = std::vector<std::tuple<std::uint32_t, std::uint32_t, std::uint32_t>>;

// Ids in this order: 0 is [UNK].
const std::vector<std::u32string> kVocabulary{
    U"[UNK]", U"un",  U"##aff", U"##able", U"hello", U"world", U",",    U"!",
    U"a",     U"##a", U"e",     U"##e",    U"\u4E2D", U"##\u1161", U"\u1100", U"##\u11A8",
    U"\u08D4", U"##\u08D4", U"caf", U"##x", U"x", U"##\uFE20"};

Found found(const std::vector<Token>& tokens) {
  Found out;
  for (const Token& t : tokens) out.emplace_back(t.id, t.begin, t.end);
  return out;
}

// At every width that holds the text, with one result.
Found encode(const WordPiece& pieces, std::u32string_view text) {
  const Found wide = found(pieces.encode({text.data(), text.size(), 4}));
  const char32_t top = text.empty() ? 0 : *std::max_element(text.begin(), text.end());
  if (top < 0x10000) {
    const std::vector<std::uint16_t> units(text.begin(), text.end());
    CHECK(found(pieces.encode({units.data(), units.size(), 2})) == wide);
  }
  if (top < 0x100) {
    const std::vector<std::uint8_t> units(text.begin(), text.end());
    CHECK(found(pieces.encode({units.data(), units.size(), 1})) == wide);
  }
  return wide;
}

WordPiece make(std::size_t max_word = 100, std::size_t chunk = 0,
               const std::vector<std::u32string>& left_out = {}) {
  return WordPiece(kVocabulary, 0, max_word, chunk, left_out);
}

double seconds(const WordPiece& pieces, const std::u32string& text) {
  const auto begun = std::chrono::steady_clock::now();
  static_cast<void>(pieces.encode({text.data(), text.size(), 4}));
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
}

}  // namespace

TEST_CASE("the longest token first, then the longest that continues") {
  const WordPiece pieces = make();
  CHECK(encode(pieces, U"unaffable") == Found{{1, 0, 2}, {2, 2, 5}, {3, 5, 9}});
  CHECK(encode(pieces, U"  Hello,\tWORLD!!") ==
        Found{{4, 2, 7}, {6, 7, 8}, {5, 9, 14}, {7, 14, 15}, {7, 15, 16}});
  CHECK(encode(pieces, U"").empty());
  CHECK(encode(pieces, U" \n\u3000\u200B\U000E0041\uFFFD").empty());
}

TEST_CASE("a word that cannot be covered is one unknown token") {
  const WordPiece pieces = make();
  CHECK(encode(pieces, U"unaffablez a") == Found{{0, 0, 10}, {8, 11, 12}});
  CHECK(encode(pieces, U"q") == Found{{0, 0, 1}});
  CHECK(encode(pieces, U"?") == Found{{0, 0, 1}});
  // "##x" is a piece, not what a text can say.
  CHECK(encode(pieces, U"##x") == Found{{0, 0, 1}, {0, 1, 2}, {20, 2, 3}});
  CHECK(encode(pieces, U"[UNK]") == Found{{0, 0, 1}, {0, 1, 4}, {0, 4, 5}});
}

TEST_CASE("long words: unknown, or cut") {
  const std::u32string word(10, U'a');
  CHECK(encode(make(9), word) == Found{{0, 0, 10}});
  CHECK(encode(make(10), word).size() == 10);
  CHECK(encode(make(10, 4), U"aaaaaaaaaa") ==
        Found{{8, 0, 1}, {9, 1, 2}, {9, 2, 3}, {9, 3, 4}, {8, 4, 5}, {9, 5, 6}, {9, 6, 7},
              {9, 7, 8}, {8, 8, 9}, {9, 9, 10}});
  CHECK(encode(make(3, 4), U"aaaaaaa") == Found{{0, 0, 4}, {8, 4, 5}, {9, 5, 6}, {9, 6, 7}});
  CHECK(encode(make(0), U"a, \u4E2D") == Found{{0, 0, 1}, {0, 1, 2}, {0, 3, 4}});
  // Characters count after normalisation, wherever the word began to be more than ASCII.
  CHECK(encode(make(10, 2), U"a\u0301\u00E1a") == Found{{8, 0, 1}, {9, 2, 3}, {8, 3, 4}});
  CHECK(encode(make(10, 3), U"aa\u00E1aa") ==
        Found{{8, 0, 1}, {9, 1, 2}, {9, 2, 3}, {8, 3, 4}, {9, 4, 5}});
}

TEST_CASE("accents, case, controls, ideographs, Hangul") {
  const WordPiece pieces = make();
  CHECK(encode(pieces, U"CAF\u00C9") == Found{{18, 0, 3}, {11, 3, 4}});
  CHECK(encode(pieces, U"cafe\u0301\u0301 a") == Found{{18, 0, 3}, {11, 3, 4}, {8, 7, 8}});
  CHECK(encode(pieces, U"\u0301a") == Found{{8, 1, 2}});
  CHECK(encode(pieces, U"hel\u200Blo wo\u00ADrld") == Found{{4, 0, 6}, {5, 7, 13}});
  CHECK(encode(pieces, std::u32string_view(U"a\0a", 3)) == Found{{8, 0, 1}, {9, 2, 3}});
  CHECK(encode(pieces, U"a\u4E2Da") == Found{{8, 0, 1}, {12, 1, 2}, {8, 2, 3}});
  CHECK(encode(pieces, U"\uAC01") == Found{{14, 0, 1}, {13, 0, 1}, {15, 0, 1}});
  CHECK(encode(pieces, U"\uAC00") == Found{{14, 0, 1}, {13, 0, 1}});
}

TEST_CASE("lone surrogates are left out") {
  const std::vector<std::uint16_t> units{U'h', U'e', 0xD800, U'l', U'l', 0xDFFF, U'o'};
  CHECK(found(make().encode({units.data(), units.size(), 2})) == Found{{4, 0, 7}});
}

TEST_CASE("marks that stay are put in order; spans are those of their places") {
  const WordPiece pieces = make();
  // U+08D4 (class 230) came after the library's list of marks, so it stays; U+0323 (220) goes.
  CHECK(encode(pieces, U"a\u08D4") == Found{{8, 0, 1}, {17, 1, 2}});
  CHECK(encode(pieces, U"a\u08D4\u0323") == Found{{8, 0, 1}, {17, 2, 3}});
  CHECK(encode(pieces, U"a\u0323\u08D4") == Found{{8, 0, 1}, {17, 2, 3}});
  // The mark of a decomposition takes no place of its own.
  CHECK(encode(pieces, U"\u1EA1\u08D4") == Found{{8, 0, 1}, {17, 1, 2}});
}

TEST_CASE("words that are left out, whole ones only") {
  // In the vocabulary (hello, ','), in pieces (caf ##e), with a character that it lacks (q, %).
  const WordPiece pieces = make(100, 0, {U"hello", U",", U"cafe", U"aq", U"%", U"a"});
  CHECK(encode(pieces, U"Hello, w\u00F6rld, hello!") == Found{{5, 7, 12}, {7, 19, 20}});
  CHECK(encode(pieces, U"CAF\u00C9 cafe\u0301 caf cafee") ==
        Found{{18, 11, 14}, {18, 15, 18}, {11, 18, 19}, {11, 19, 20}});
  CHECK(encode(pieces, U"aq %a a%a").empty());
  CHECK(encode(pieces, U"aa aqa a\u4E2Da") == Found{{8, 0, 1}, {9, 1, 2}, {0, 3, 6}, {12, 8, 9}});
  CHECK(encode(pieces, U"hel\u200Blo \u0301hello hello\u0301\U000E0041").empty());
  // A mark that stays belongs to its word, whichever side it is on.
  CHECK(encode(pieces, U"a\u08D4 \u08D4a") == Found{{8, 0, 1}, {17, 1, 2}, {16, 3, 4}, {9, 4, 5}});
  // The order of the words and their prefixes do not matter.
  CHECK(encode(make(100, 0, {U"worlds", U"wo", U"world"}), U"world wo w!") ==
        Found{{0, 9, 10}, {7, 10, 11}});
}

TEST_CASE("the pieces of a cut word are no words to leave out") {
  for (const std::u32string accent : {U"a", U"\u00E1"}) {
    const WordPiece pieces = make(100, 2, {U"aa", U"a"});
    CHECK(encode(pieces, accent + U"a").empty());
    CHECK(encode(pieces, accent + U"aa a") == Found{{8, 0, 1}, {9, 1, 2}, {8, 2, 3}});
    CHECK(encode(pieces, accent + U"aaa aa") ==
          Found{{8, 0, 1}, {9, 1, 2}, {8, 2, 3}, {9, 3, 4}});
    CHECK(encode(pieces, accent + U"aaa\u0301!" + accent) ==
          Found{{8, 0, 1}, {9, 1, 2}, {8, 2, 3}, {9, 3, 4}, {7, 5, 6}});
    // Unknown, not cut: more characters than the word has.
    CHECK(encode(make(2, 0, {U"aa"}), accent + U"aa aa") == Found{{0, 0, 3}});
    CHECK(encode(make(2, 5, {U"aa"}), accent + U"aaaaaa") ==
          Found{{0, 0, 5}, {8, 5, 6}, {9, 6, 7}});
  }
}

TEST_CASE("leaving words out is the same as reading without them") {
  std::mt19937 random(11);
  const std::vector<std::u32string> words{U"hello", U",", U"a", U"unaffable", U"q", U"x\u0434"};
  const WordPiece all = make(20, 7), some = make(20, 7, {U"hello", U",", U"a", U"x\u0434"});
  for (int i = 0; i < 2000; ++i) {
    std::u32string text;
    Found expected;
    for (int k = 0; k < 8; ++k) {
      const std::size_t chosen = random() % words.size();
      const auto at = static_cast<std::uint32_t>(text.size());
      if (chosen == 3 || chosen == 4) {
        for (const auto& [id, begin, end] : encode(all, words[chosen])) {
          expected.emplace_back(id, at + begin, at + end);
        }
      }
      text += words[chosen] + U"  ";
    }
    CHECK(encode(some, text) == expected);
  }
}

TEST_CASE("a trie agrees with a map") {
  using wordpiece::Symbol;
  using wordpiece::Trie;
  std::mt19937 random(7);
  for (const Symbol symbols : {Symbol{2}, Symbol{5}, Symbol{400}}) {
    std::map<std::u16string, std::uint16_t> expected;
    for (std::uint16_t value = 0; value < 500; ++value) {
      std::u16string key(1 + random() % 6, u'\0');
      for (Symbol& s : key) s = static_cast<Symbol>(1 + random() % (symbols - 1U));
      expected.emplace(std::move(key), value);
    }
    const Trie trie({expected.begin(), expected.end()}, symbols);
    const auto get = [&trie](const std::u16string& key) {
      Trie::Node node = Trie::kRoot;
      for (const Symbol s : key) {
        node = trie.step(node, s);
        if (node == Trie::kRoot) return Trie::kNoValue;
      }
      return trie.value(node);
    };
    for (const auto& [key, value] : expected) CHECK(get(key) == value);
    for (int i = 0; i < 5000; ++i) {
      std::u16string key(1 + random() % 7, u'\0');
      for (Symbol& s : key) s = static_cast<Symbol>(random() % symbols);
      const auto it = expected.find(key);
      CHECK(get(key) == (it == expected.end() ? Trie::kNoValue : it->second));
    }
  }
  const Trie empty({}, 9);
  for (Symbol s = 0; s < 9; ++s) CHECK(empty.step(Trie::kRoot, s) == Trie::kRoot);
}

TEST_CASE("pieces agree with a plain search") {
  std::vector<std::u32string> vocabulary{U"[UNK]"};
  std::mt19937 random(3);
  const auto word = [&random](std::size_t longest) {
    std::u32string out(1 + random() % longest, U'a');
    for (char32_t& c : out) c = U"abc\u0434"[random() % 4];
    return out;
  };
  std::map<std::u32string, std::uint32_t> ids{{U"[UNK]", 0}};
  while (vocabulary.size() < 60) {
    std::u32string token = (random() % 2 != 0 ? U"##" : U"") + word(4);
    if (ids.emplace(token, static_cast<std::uint32_t>(vocabulary.size())).second) {
      vocabulary.push_back(token);
    }
  }
  const WordPiece pieces(vocabulary, 0, 20, 0);
  for (int i = 0; i < 3000; ++i) {
    const std::u32string text = word(12);
    Found expected;
    for (std::size_t begin = 0; begin < text.size();) {
      std::size_t end = text.size();
      while (end > begin &&
             ids.count((begin != 0 ? U"##" : U"") + text.substr(begin, end - begin)) == 0) {
        --end;
      }
      if (end == begin) {
        expected = {{0, 0, static_cast<std::uint32_t>(text.size())}};
        break;
      }
      expected.emplace_back(ids.at((begin != 0 ? U"##" : U"") + text.substr(begin, end - begin)),
                            static_cast<std::uint32_t>(begin), static_cast<std::uint32_t>(end));
      begin = end;
    }
    CHECK(encode(pieces, text) == expected);
  }
}

TEST_CASE("any code point, any value") {
  const WordPiece pieces = make(3, 2);
  for (char32_t c = 0; c < 0x110000; ++c) {
    const char32_t text[] = {U'a', c, U'a'};
    std::uint32_t reached = 0;
    for (const Token& t : pieces.encode({text, 3, 4})) {
      REQUIRE(t.id < kVocabulary.size());
      REQUIRE(t.begin >= reached);
      REQUIRE(t.end > t.begin);
      REQUIRE(t.end <= 3);
      reached = t.begin;
    }
  }
}

TEST_CASE("hostile texts cost linear time") {
  const WordPiece pieces = make(100, 100);
  std::u32string marks;
  for (int i = 0; i < 500'000; ++i) marks += i % 2 != 0 ? U"\u08D4" : U"\u0323";
  std::u32string decomposed;
  for (int i = 0; i < 500'000; ++i) decomposed += U"\u1EA1\u0301";
  for (const std::u32string& text :
       {std::u32string(1'000'000, U'a'), std::u32string(1'000'000, U'\u4E2D'),
        std::u32string(1'000'000, U'\0'), std::u32string(1'000'000, U'\uAC01'), marks, decomposed}) {
    CHECK(seconds(pieces, text) < 2.0);
  }
}

TEST_CASE("many threads, one object") {
  const WordPiece pieces = make();
  const std::u32string text = U"unaffable hello, caf\u00E9! \u4E2Da";
  const Found expected = encode(pieces, text);
  std::vector<std::thread> threads;
  std::vector<int> good(4, 0);
  for (std::size_t i = 0; i < good.size(); ++i) {
    threads.emplace_back([&, i] {
      for (int n = 0; n < 1000; ++n) {
        good[i] += found(pieces.encode({text.data(), text.size(), 4})) == expected ? 1 : 0;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(good == std::vector<int>(4, 1000));
}

TEST_CASE("a shared vocabulary gives what one of its own gives, and outlives the first") {
  const std::u32string text = U"hello, unaffable world! Caf\u00e9 a \u4e2d xx hello \u0416 a, e";
  const std::vector<std::vector<std::u32string>> lists = {{}, {U"a"}, {U"xx", U","}};
  for (const auto& first : lists) {
    for (const auto& second : lists) {
      for (const std::size_t chunk : {0U, 3U, 5U}) {
        auto owner = std::make_unique<WordPiece>(kVocabulary, 0, 100, 4, first);
        const WordPiece shared(*owner, chunk, second);
        CHECK(shared.vocabulary_size() == owner->vocabulary_size());
        owner.reset();
        CHECK(encode(shared, text) == encode(make(100, chunk, second), text));
      }
    }
  }
  CHECK_THROWS_AS(WordPiece(make(), 0, {U"\u0416"}), std::invalid_argument);
  CHECK_THROWS_AS(WordPiece(make(), 2, {U"hello"}), std::invalid_argument);
  CHECK_THROWS_AS(WordPiece(make(), 0, {U"a", U"a"}), std::invalid_argument);
}

TEST_CASE("what is no vocabulary") {
  CHECK_THROWS_AS(WordPiece({}, 0, 100, 0), std::invalid_argument);
  CHECK_THROWS_AS(WordPiece({U"a"}, 1, 100, 0), std::invalid_argument);
  CHECK_THROWS_AS(WordPiece({U"a", U"a"}, 0, 100, 0), std::invalid_argument);
  CHECK_THROWS_AS(WordPiece({U"##a", U"##a"}, 0, 100, 0), std::invalid_argument);
  CHECK_THROWS_AS(WordPiece({U"a"}, 0, 1001, 0), std::invalid_argument);
  CHECK_THROWS_AS(WordPiece({std::u32string(1, 0x110000)}, 0, 100, 0), std::invalid_argument);
  CHECK_THROWS_AS(WordPiece(std::vector<std::u32string>(65536, U"a"), 0, 100, 0),
                  std::invalid_argument);
  const auto leaving = [](std::vector<std::u32string> words) { return make(10, 4, words); };
  CHECK_THROWS_AS(leaving({U"aaaaa"}), std::invalid_argument);
  CHECK_THROWS_AS(make(3, 4, {U"aaaa"}), std::invalid_argument);
  CHECK_THROWS_AS(make(0, 0, {U"a"}), std::invalid_argument);
  CHECK_THROWS_AS(leaving({U"a", U"e", U"a"}), std::invalid_argument);
  CHECK_THROWS_AS(leaving({U""}), std::invalid_argument);
  CHECK_THROWS_AS(leaving({std::u32string(1, 0x110000)}), std::invalid_argument);
  // Tokens and words that nothing can match are no trouble.
  CHECK(encode(leaving({U"A", U"a b", U"a,", U"\n"}), U"a b A a,") == encode(make(), U"a b A a,"));
  const WordPiece odd({U"", U"##", U"[X]"}, 0, 100, 0);
  CHECK(encode(odd, U"a ##") == Found{{0, 0, 1}, {0, 2, 3}, {0, 3, 4}});
}
