// Linear-time matching of many trigger patterns, streaming: no buffer grows with the text.
//
// A trigger owns phrases and literals, all written in normalised text (normalize.hpp).
//   literal: a substring, matched without word boundaries (Aho-Corasick over code points).
//   phrase:  an ordered list of elements; an element is a set of words and word prefixes. Element
//            i+1 must be a word that follows element i with at most `max_gap` other words between.
// A word is a maximal run of CharClass::word characters; each `unspaced` character is a word of
// its own.
//
// For each phrase and each end position, the reported match is the one that starts latest.
// Both readings of ignorable characters are searched (dropped, and as separators) when the text
// holds any, and the union is reported without repeats.
//
// A span runs from the original of a match's first character to that of its last, so marks and
// zero-width characters after the last one stay outside, and a ligature that holds either end lies
// wholly inside. A match may begin and end within one original character.
//
// Bounds: work is O(length x phrases that share a word); at most kMaxMatchesPerTrigger matches are
// kept per trigger and text (those with the smallest end, of equal ends those with the smallest
// begin).
// Malformed input: any sequence of code points, lone surrogates included, is legal.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "raxe_fast/text.hpp"

namespace raxe_fast {

inline constexpr std::uint32_t kMaxMatchesPerTrigger = 8;

struct PhraseElement {
  std::vector<std::u32string> words;     // exact words, normalised
  std::vector<std::u32string> prefixes;  // a word that starts with one of these also matches
  std::uint32_t max_gap = 0;             // words allowed between the previous element and this one
};

struct TriggerSpec {
  std::vector<std::vector<PhraseElement>> phrases;
  std::vector<std::u32string> literals;
  double weight = 0.0;  // P(attack | this trigger fired), in [0, 1); for the rule score
};

struct TriggerMatch {
  std::uint32_t trigger;     // index into the specs
  std::uint32_t begin, end;  // code points of the original text, half open
  friend bool operator==(const TriggerMatch&, const TriggerMatch&) = default;
};

// Per-thread state; reused from text to text, sized by the trigger set alone.
class TriggerScratch {
 public:
  TriggerScratch();
  ~TriggerScratch();
  TriggerScratch(TriggerScratch&&) noexcept;
  TriggerScratch& operator=(TriggerScratch&&) noexcept;

 private:
  friend class TriggerSet;
  struct State;
  std::unique_ptr<State> state_;
};

class TriggerSet {
 public:
  // Throws std::invalid_argument for an empty pattern (an element without words, a phrase without
  // elements), a pattern that is not in normalised form, a word or prefix that could never match
  // (it holds a separator, or an `unspaced` character beside others), a word of over 13,000
  // characters, or a weight outside [0, 1).
  explicit TriggerSet(const std::vector<TriggerSpec>& specs);
  ~TriggerSet();
  TriggerSet(TriggerSet&&) noexcept;
  TriggerSet& operator=(TriggerSet&&) noexcept;

  [[nodiscard]] std::size_t size() const noexcept;

  // Asks for the memory that every text needs (some 25 KiB), so that it arrives while the caller
  // does something else. Changes no result.
  void prefetch(TriggerScratch& scratch) const noexcept;

  // Appends the matches of `text` to `out`, sorted by (begin, end, trigger). A scratch serves any
  // number of sets, one at a time. Throws std::length_error for 2^32 - 1 code points or more.
  void match(TextView text, TriggerScratch& scratch, std::vector<TriggerMatch>& out) const;

  // Noisy-or of the weights of the distinct triggers in matches[0, n): the rule (L1) score. Throws
  // std::invalid_argument if a match names a trigger >= size().
  [[nodiscard]] double rule_score(const TriggerMatch* matches, std::size_t n,
                                  TriggerScratch& scratch) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace raxe_fast
