// Literals: Aho-Corasick over normalised code points, behind a filter.
//
// Nearly all of nearly every text is no beginning of a literal. So the automaton sleeps: while it
// does, a character costs two tests in a 4 KiB table that says whether the last few characters may
// begin a literal. Only then does the automaton start, at the state that these characters lead to,
// and goes on until nothing that could become a match is left. Work stays linear: to wake up costs
// kGram steps at most.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "raxe_fast/model_memory.hpp"

namespace raxe_fast {

class LiteralAutomaton {
 public:
  using State = std::uint32_t;  // 0 is the root

  struct Node {
    std::map<char32_t, State> edges;
    State fallback = 0;
    bool reports = false;  // a literal ends here
    std::size_t depth = 0;
  };

  LiteralAutomaton() = default;
  // shortest: length of the shortest literal.
  LiteralAutomaton(const std::vector<Node>& nodes, const std::vector<std::u32string>& literals,
                   std::size_t shortest);

  // Characters that the filter looks back on; fewer for literals that are shorter.
  static constexpr std::size_t kGram = 6;

  // The last eight characters, eight bits each; equal characters give equal bits.
  static constexpr std::uint64_t remember(std::uint64_t recent, char32_t c) noexcept {
    return recent << 8 | (c < 128 ? c : 128 | ((c ^ c >> 7) & 127));
  }

  // False: no literal begins with the last characters.
  [[nodiscard]] bool may_begin(std::uint64_t recent) const noexcept {
    return test(recent << kLongShift) || test(recent << short_shift_ | 1);
  }

  // The state after the last characters where may_begin() holds. read(k) is the character k places
  // back, from 1; there are `count` at least.
  template <class Read>
  [[nodiscard]] State wake(std::uint64_t recent, std::size_t count, Read&& read) const noexcept {
    // Straight to the state: one cache line instead of one or two for each step. Only ASCII is told
    // apart by its eight bits.
    const std::uint64_t gram = recent << kLongShift;
    if ((gram & kNotAscii) == 0) {
      for (std::size_t at = slot(gram); grams_[at].state != 0; at = (at + 1) & gram_mask_) {
        if (grams_[at].gram == gram) {
          return grams_[at].state;
        }
      }
      if (!test(recent << short_shift_ | 1)) {
        return 0;  // no literal longer than the shortest begins here
      }
    }
    State state = 0;
    for (std::size_t k = count < kGram ? count : kGram; k > 0; --k) {
      state = step(state, read(k));
    }
    return state;
  }

  [[nodiscard]] State step(State state, char32_t c) const noexcept;
  [[nodiscard]] bool reports(State state) const noexcept { return states_[state].reports; }
  // False: no literal that the filter has let pass is under way.
  [[nodiscard]] bool deep(State state) const noexcept { return states_[state].deep; }

  void prefetch() const noexcept;  // the filter

 private:
  struct Edge {
    char32_t c;
    State target;
  };
  struct Record {
    std::uint32_t edge_begin = 0;
    State fallback = 0;
    std::uint32_t edges = 0;
    bool deep = false, reports = false;
  };
  struct Gram {
    std::uint64_t gram = 0;
    State state = 0;  // 0: empty
  };
  // A Bloom filter of three bits that share a word: one load.
  struct Place {
    std::size_t word;
    std::uint64_t bits;
  };
  static constexpr unsigned kWordBits = 9;
  static constexpr unsigned kLongShift = 64 - 8 * kGram;
  static constexpr std::uint64_t kNotAscii = 0x8080808080808080;

  static constexpr Place place(std::uint64_t gram) noexcept {
    const std::uint64_t hash = (gram ^ gram >> 29) * 0x9E3779B97F4A7C15;
    return {hash >> (64 - kWordBits), std::uint64_t{1} << (hash >> 34 & 63) |
                                          std::uint64_t{1} << (hash >> 40 & 63) |
                                          std::uint64_t{1} << (hash >> 46 & 63)};
  }
  [[nodiscard]] bool test(std::uint64_t gram) const noexcept {
    const Place at = place(gram);
    return (filter_[at.word] & at.bits) == at.bits;
  }

  [[nodiscard]] std::size_t slot(std::uint64_t gram) const noexcept {
    return ((gram ^ gram >> 29) * 0x9E3779B97F4A7C15 >> 40) & gram_mask_;
  }

  unsigned short_shift_ = 8;
  std::size_t gram_mask_ = 0;
  ModelVector<Gram> grams_;  // first kGram characters of literals, ASCII
  std::array<State, 128> from_root_{};
  ModelVector<std::uint64_t> filter_;
  ModelVector<Record> states_;
  ModelVector<Edge> edges_;  // by state, sorted
};

}  // namespace raxe_fast
