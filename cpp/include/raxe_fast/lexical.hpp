// A linear model over hashed word and character n-grams of normalised text.
//
// The text is read through normalize.hpp (ignorable characters dropped), runs of spaces become one,
// and a space is put before and after it. Its n-grams are:
//   - characters: every 3, 4 and 5 in a row, punctuation and spaces included;
//   - words: every one, and every two in a row. A word is a maximal run of CharClass::word
//     characters; each `unspaced` character is a word of its own.
// The n-gram's hash (32 bits, FNV-1a over code points, salted by kind, finalised) picks a row of
// the table by its low bits. Output k = scale[k] * (sum of the rows' column k) / sqrt(n) + bias[k],
// where every row counts once, however often its n-grams occur, and n is the number of rows;
// without any, bias[k]. (Counting occurrences instead costs 11 points of recall at 1 % false
// positives.)
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "raxe_fast/model_memory.hpp"
#include "raxe_fast/text.hpp"

namespace raxe_fast {

// Appends the hash of every n-gram of code points [begin, end) of the text, in order of their
// ends. scratch: reused; its content is of no interest.
void ngram_hashes(TextView text, std::size_t begin, std::size_t end, std::u32string& scratch,
                  std::vector<std::uint32_t>& out);

struct LexicalScratch {
  std::vector<std::uint64_t> seen;  // which rows have been met; between calls all clear
  std::vector<std::uint32_t> rows;  // those met, each once
};

class LexicalModel {
 public:
  // table: (2^bits, outputs) int8, row-major. Throws std::invalid_argument if the sizes do not fit,
  // bits is not in [1, 24], there is no output, or a scale or bias is not finite.
  LexicalModel(const std::vector<std::int8_t>& table, unsigned bits,
               const std::vector<float>& scale, const std::vector<float>& bias);

  [[nodiscard]] std::size_t outputs() const noexcept { return scale_.size(); }
  // hashes: of all n-grams of the text. out: outputs() floats, overwritten.
  void operator()(const std::vector<std::uint32_t>& hashes, LexicalScratch& scratch,
                  float* out) const;

 private:
  std::size_t stride_;  // of a row in memory: wide rows fill cache lines of their own
  ModelVector<std::int8_t> table_;
  std::vector<float> scale_, bias_;
  std::uint32_t mask_;
};

}  // namespace raxe_fast
