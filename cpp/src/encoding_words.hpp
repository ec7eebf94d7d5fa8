// The signs that lie in the words of a text: ciphers, leetspeak, pig Latin, words in reversed order
// and letters set apart.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "encoding_kinds.hpp"
#include "raxe_fast/encoding_signs.hpp"

namespace raxe_fast {

template <std::size_t N>
constexpr std::array<std::uint64_t, N> pack_all(const char* const (&words)[N]) noexcept {
  std::array<std::uint64_t, N> out{};
  for (std::size_t i = 0; i < N; ++i) {
    for (const char* c = words[i]; *c != '\0'; ++c) {
      out[i] = pack_letter(out[i], static_cast<unsigned char>(*c));
    }
  }
  return out;
}

// Two words in a row that English hardly ever has, as in decode_order.py: one of `first`, one of
// `second`; "do" only after "you".
inline constexpr auto kArticles = pack_all({"the", "your", "my"});
inline constexpr auto kAfterArticle = pack_all(
    {"of", "to", "in", "on", "for", "from", "with", "all", "and", "is", "as", "at", "out", "are"});
inline constexpr auto kMe = pack_all({"me"});
inline constexpr auto kAfterMe = pack_all({"tell", "give", "show", "help"});
inline constexpr auto kDo = pack_all({"do"});
inline constexpr auto kAfterDo = pack_all({"how", "what", "why"});
inline constexpr auto kYou = pack_all({"you"});
inline constexpr std::size_t kLongestFirst = 4;

template <std::size_t N>
constexpr bool is_in(const std::array<std::uint64_t, N>& words, std::uint64_t word) noexcept {
  return std::find(words.begin(), words.end(), word) != words.end();
}

constexpr char32_t to_lower(char32_t c) noexcept { return c >= U'A' && c <= U'Z' ? c + 32 : c; }

// The letter that a lower-case character stands for in leetspeak, l as i; 0: none.
constexpr char32_t unleet(char32_t c) noexcept {
  constexpr char signs[] = "0134578962@$!|+l";
  constexpr char letters[] = "oieastbggzasiiti";
  for (std::size_t i = 0; i + 1 < sizeof(signs); ++i) {
    if (c == static_cast<unsigned char>(signs[i])) return static_cast<unsigned char>(letters[i]);
  }
  return c >= U'a' && c <= U'z' ? c : 0;
}

// Looks at each token between white space once; units of the text as Python stores it.
template <typename Unit>
class WordSigns {
 public:
  WordSigns(const Unit* text, std::size_t size, const PackedWords& coded, const PackedWords& leet,
            const PackedWords& in_ay) noexcept
      : text_(text), size_(size), coded_(coded), leet_(leet), in_ay_(in_ay) {}

  // The next character of a token.
  void add(Unit c, Kind kind) noexcept {
    ++length_;
    all_ &= kind;
    any_ |= kind;
    word_ = pack_letter(word_, c);
  }

  // White space at `end`, or the end of the text.
  void space(std::size_t end) noexcept {
    if (length_ == 0) return;
    token(end - length_, end);
    length_ = 0;
    all_ = ~Kind{0};
    any_ = 0;
    word_ = 0;
  }

  [[nodiscard]] std::uint32_t signs() const noexcept {
    std::uint32_t signs = signs_;
    if (leet_words_ >= 2 && long_leet_words_ >= 1) signs |= kSignLeet;
    if (in_pig_latin_ >= 3) signs |= kSignPigLatin;
    return signs;
  }

 private:
  static constexpr std::size_t kMinSingles = 6;  // letters set apart, in a row

  void token(std::size_t begin, std::size_t end) noexcept {
    const std::size_t length = end - begin;
    singles_ = length == 1 ? singles_ + 1 : 0;
    if (singles_ >= kMinSingles) signs_ |= kSignSpacing;
    const bool is_word = (all_ & kLetter) != 0 && length <= kMaxPacked;
    if (is_word) {
      if (length > 2) look_up_cipher(word_);
      if (length <= kLongestFirst) look_ahead(begin, end);
    } else if ((any_ & kLetter) != 0 && (any_ & kBeyond) == 0) {
      look_up_leet(begin, end);
    }
    look_up_pig_latin(begin, end);
    before_ = is_word ? word_ : 0;
  }

  // Two different words that common ones become in the same cipher are a sign.
  void look_up_cipher(std::uint64_t word) noexcept {
    if ((signs_ & kSignCipher) != 0) return;
    const std::size_t place = coded_.find(word);
    if (place == PackedWords::kNone) return;
    const auto known = found_.begin() + static_cast<std::ptrdiff_t>(n_found_);
    if (std::find(found_.begin(), known, place) != known) return;
    const std::uint32_t ciphers = coded_.value(place);
    if ((ciphers & ciphers_) != 0 || n_found_ == found_.size()) {
      signs_ |= kSignCipher;
      return;
    }
    ciphers_ |= ciphers;
    found_[n_found_++] = place;
  }

  // The token, between single spaces, and the word after it in reversed order.
  void look_ahead(std::size_t begin, std::size_t end) noexcept {
    const bool articles = is_in(kArticles, word_);
    const bool me = is_in(kMe, word_);
    if (!articles && !me && !(is_in(kDo, word_) && is_in(kYou, before_))) return;
    if (begin == 0 || text_[begin - 1] != ' ' || end == size_ || text_[end] != ' ') return;
    std::uint64_t next = 0;
    std::size_t i = end + 1;
    for (; i < size_ && i <= end + kLongestFirst && is_letter(i); ++i) {
      next = pack_letter(next, text_[i]);
    }
    // More of the same word?
    if (i < size_ && (is_letter(i) || is_digit(i) || is_one_of(text_[i], "_'-"))) return;
    const bool found = articles ? is_in(kAfterArticle, next)
                       : me     ? is_in(kAfterMe, next)
                                : is_in(kAfterDo, next);
    if (found) signs_ |= kSignWordOrder;
  }

  // Common words with figures and signs for letters.
  void look_up_leet(std::size_t begin, std::size_t end) noexcept {
    while (begin < end && is_leet_edge(text_[begin])) ++begin;
    while (begin < end && is_leet_edge(text_[end - 1])) --end;
    if (end - begin > kMaxPacked) return;
    std::uint64_t word = 0;
    bool is_plain = true;
    for (std::size_t i = begin; i < end; ++i) {
      const char32_t c = to_lower(text_[i]);
      const char32_t letter = unleet(c);
      if (letter == 0) return;
      is_plain = is_plain && c >= U'a' && c <= U'z';
      word = pack_letter(word, letter);
    }
    if (is_plain || leet_.find(word) == PackedWords::kNone) return;
    ++leet_words_;
    long_leet_words_ += end - begin > 2;
  }

  // Words in "ay" that English has not.
  void look_up_pig_latin(std::size_t begin, std::size_t end) noexcept {
    while (begin < end && is_edge(end - 1)) --end;
    if (end - begin < 3 || to_lower(text_[end - 1]) != U'y' || to_lower(text_[end - 2]) != U'a') {
      return;
    }
    while (is_edge(begin)) ++begin;
    // Lower case can be longer only beyond ASCII.
    if (end - begin < 4 && (any_ & kBeyond) == 0) return;
    std::uint64_t word = 0;
    std::size_t i = begin;
    for (; i < end && i < begin + kMaxPacked && is_letter(i); ++i) {
      word = pack_letter(word, text_[i]);
    }
    in_pig_latin_ += i < end || in_ay_.find(word) == PackedWords::kNone;
  }

  [[nodiscard]] bool is_letter(std::size_t i) const noexcept {
    return (kind_of(text_[i]) & kLetter) != 0;
  }
  [[nodiscard]] bool is_digit(std::size_t i) const noexcept {
    return (kind_of(text_[i]) & kDigit) != 0;
  }
  [[nodiscard]] bool is_edge(std::size_t i) const noexcept {
    return (kind_of(text_[i]) & kEdge) != 0;
  }
  [[nodiscard]] static bool is_leet_edge(char32_t c) noexcept {
    return c != U'!' && c < 128 && (kKinds[c] & kEdge) != 0;
  }

  const Unit* text_;
  std::size_t size_;
  const PackedWords& coded_;
  const PackedWords& leet_;
  const PackedWords& in_ay_;

  // The token so far.
  std::size_t length_ = 0;
  Kind all_ = ~Kind{0};
  Kind any_ = 0;
  std::uint64_t word_ = 0;

  std::uint64_t before_ = 0;  // the token before, where it is a word
  std::size_t singles_ = 0;
  std::size_t leet_words_ = 0, long_leet_words_ = 0;
  std::size_t in_pig_latin_ = 0;
  std::array<std::size_t, 16> found_{};
  std::size_t n_found_ = 0;
  std::uint32_t ciphers_ = 0;
  std::uint32_t signs_ = 0;
};

}  // namespace raxe_fast
