// Literals: Aho-Corasick over normalised code points, behind a filter.
//
// Nearly all of nearly every text is no beginning of a literal. So the automaton sleeps: while it
// does, a character costs two tests in a 4 KiB table that says whether the last few characters may
// begin a literal. Only then does the automaton read them again and go on, until nothing
// that could become a match is left. Work stays linear: a hit costs kGram steps at most.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

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
    return test(recent << (64 - 8 * kGram)) || test(recent << short_shift_ | 1);
  }

  [[nodiscard]] State step(State state, char32_t c) const noexcept;
  [[nodiscard]] bool reports(State state) const noexcept { return states_[state].reports; }
  // False: no literal that the filter has let pass is under way.
  [[nodiscard]] bool deep(State state) const noexcept { return states_[state].deep; }

  void prefetch() const noexcept;  // the filter
  [[nodiscard]] std::size_t bytes() const noexcept;

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
  // A Bloom filter of two bits that share a word: one load.
  struct Place {
    std::size_t word;
    std::uint64_t bits;
  };
  static constexpr unsigned kWordBits = 9;

  static constexpr Place place(std::uint64_t gram) noexcept {
    const std::uint64_t hash = (gram ^ gram >> 29) * 0x9E3779B97F4A7C15;
    return {hash >> (64 - kWordBits),
            std::uint64_t{1} << (hash >> 40 & 63) | std::uint64_t{1} << (hash >> 46 & 63)};
  }
  [[nodiscard]] bool test(std::uint64_t gram) const noexcept {
    const Place at = place(gram);
    return (filter_[at.word] & at.bits) == at.bits;
  }

  unsigned short_shift_ = 8;
  std::vector<std::uint64_t> filter_ = std::vector<std::uint64_t>(std::size_t{1} << kWordBits);
  std::vector<Record> states_ = std::vector<Record>(1);
  std::vector<Edge> edges_;  // by state, sorted
};

}  // namespace raxe_fast
