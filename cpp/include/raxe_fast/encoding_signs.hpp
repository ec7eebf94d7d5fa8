// Which kinds of encoded parts a text can hold at all: one pass, before any decoder looks at it.
//
// Python's decoders (raxe_fast.decode) find the parts. Most texts hold none, and each decoder would
// look through all of the text to say so. A sign is a necessary condition of what its decoder looks
// for: where it is not set the decoder finds nothing, whatever the text; where it is set it may
// still find nothing. Python's test suite holds every sign against the decoders.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "raxe_fast/text.hpp"

namespace raxe_fast {

// The bits; raxe_fast.decode_signs has the same.
enum EncodingSign : std::uint32_t {
  kSignBaseN = 1U << 0U,
  kSignCodeList = 1U << 1U,
  kSignLeet = 1U << 2U,
  kSignEscapes = 1U << 3U,
  kSignMorse = 1U << 4U,
  kSignSpacing = 1U << 5U,
  kSignCipher = 1U << 6U,
  kSignWordOrder = 1U << 7U,
  kSignPigLatin = 1U << 8U,
  kSignHidden = 1U << 9U,
  kSignFolded = 1U << 10U,
};
inline constexpr std::uint32_t kAllSigns = (1U << 11U) - 1;

// Words of 1 to 12 ASCII letters in any case as numbers: no two words have the same.
inline constexpr std::size_t kMaxPacked = 12;
[[nodiscard]] constexpr std::uint64_t pack_letter(std::uint64_t word, char32_t letter) noexcept {
  return word << 5U | (letter & 31U);
}

// A fixed map from packed words to numbers, open addressing.
class PackedWords {
 public:
  struct Item {
    std::u32string word;
    std::uint32_t value;
  };
  static constexpr std::size_t kNone = static_cast<std::size_t>(-1);

  // Throws std::invalid_argument for a word that is not 1 to 12 letters a to z, or appears twice.
  explicit PackedWords(const std::vector<Item>& items);

  // The word's place, kNone where it is not in the map; of 0, no word, too.
  [[nodiscard]] std::size_t find(std::uint64_t word) const noexcept;
  [[nodiscard]] std::uint32_t value(std::size_t place) const noexcept { return values_[place]; }

 private:
  std::vector<std::uint64_t> words_;
  std::vector<std::uint32_t> values_;
  unsigned shift_ = 0;
};

class EncodingSigns {
 public:
  struct Parts {
    // What common words become in ciphers; bits of the value: the ciphers that do so.
    std::vector<PackedWords::Item> coded;
    // Common words; any case of leetspeak that stands for one of them is a sign.
    std::vector<std::u32string> common;
    // Ordinary words in "ay": no pig Latin.
    std::vector<std::u32string> in_ay;
  };

  // Throws std::invalid_argument as PackedWords does.
  explicit EncodingSigns(const Parts& parts);

  // The signs of a text of which views of at most `limit` characters are wanted: bits of
  // EncodingSign. Any code points, lone surrogates included. Linear in the length of the text.
  [[nodiscard]] std::uint32_t operator()(TextView text, std::size_t limit) const noexcept;

 private:
  static std::vector<PackedWords::Item> listed(const std::vector<std::u32string>& words);
  static std::vector<PackedWords::Item> folded(const std::vector<std::u32string>& words);
  template <typename Unit>
  [[nodiscard]] std::uint32_t look(const Unit* text, std::size_t size,
                                   std::size_t limit) const noexcept;

  PackedWords coded_;
  PackedWords leet_;  // common words with l as i: the figure 1 stands for both
  PackedWords in_ay_;
};

}  // namespace raxe_fast
