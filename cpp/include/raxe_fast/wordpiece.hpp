// WordPiece tokens of a text, as the `tokenizers` library finds them for an uncased BERT.
//
// The steps, all of them in one pass over the code points:
//   1. BertNormalizer: control, format, private-use and replacement characters go, white space
//      becomes a space, ideographs get a space on either side; then canonical decomposition with
//      reordering, marks (Mn) go, lower case. The tables (cpp/tools/generate_wordpiece_tables.py)
//      were asked of the library, whose Unicode versions differ from step to step.
//   2. BertPreTokenizer: words end at white space, every punctuation character is a word.
//   3. Split with "Removed", where words are left out: a word that is one of them makes no token.
//   4. FixedLength, where `chunk` is not 0: words are cut into pieces of that many characters.
//   5. WordPiece: the longest token of the vocabulary that the word starts with, then the longest
//      that continues it, to its end. A word that cannot be covered so, or of more than
//      `max_word` characters, is one unknown token.
// Texts are data: "[SEP]" in one is read as three words. Lone surrogates are left out, as U+FFFD is.
//
// Spans are code points [begin, end) of the original text, aligned as the library aligns them. Where
// reordering exchanges marks that stay, its spans are those of the marks' places, not of the marks.
//
// Time is O(length * longest token), whatever the text. Memory beyond the result: scratch of the
// calling thread, kept for the next call where it is below a megabyte.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "raxe_fast/text.hpp"

namespace raxe_fast {
namespace wordpiece {
class Trie;
}

struct Token {
  std::uint32_t id;
  std::uint32_t begin;
  std::uint32_t end;
};

// Immutable and thread-safe.
class WordPiece {
 public:
  static constexpr std::size_t kMaxVocabulary = 65535;
  static constexpr std::size_t kMaxWord = 1000;

  // vocabulary[i] is the token of id i; those that begin with "##" continue a word. `left_out`: words
  // that make no token, in the vocabulary or not, compared with what step 2 makes of a text. Throws
  // std::invalid_argument for an empty or too large vocabulary, `unknown` outside of it, `max_word`
  // above kMaxWord, a word to leave out that appears twice, is empty, or is longer than `max_word` or
  // `chunk`.
  WordPiece(const std::vector<std::u32string>& vocabulary, std::size_t unknown,
            std::size_t max_word, std::size_t chunk,
            const std::vector<std::u32string>& left_out = {});
  // With the vocabulary of another, which is shared. Throws std::invalid_argument for words to leave
  // out as above, and for one with a character that is in no token.
  WordPiece(const WordPiece& other, std::size_t chunk,
            const std::vector<std::u32string>& left_out);
  ~WordPiece();
  WordPiece(const WordPiece&) = delete;
  WordPiece& operator=(const WordPiece&) = delete;

  // The tokens in text order, special ones not added. Throws std::length_error for a text of 2^32
  // code points or more.
  [[nodiscard]] std::vector<Token> encode(TextView text) const;

  [[nodiscard]] std::size_t vocabulary_size() const noexcept;
  // Of the tries and the tables made from the vocabulary, shared or not.
  [[nodiscard]] std::size_t bytes() const noexcept;

 private:
  struct Vocabulary;
  void leave_out(const std::vector<std::u32string>& words);

  std::shared_ptr<const Vocabulary> vocabulary_;
  std::size_t chunk_ = 0;                            // 0: none
  std::unique_ptr<const wordpiece::Trie> left_out_;  // words that make no token
  std::size_t longest_left_out_ = 0;                 // characters; 0: there are none
};

}  // namespace raxe_fast
