// The compiled form of a trigger set. Written by triggers_compile.cpp, read by triggers.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "raxe_fast/triggers.hpp"
#include "triggers_automaton.hpp"

namespace raxe_fast {

inline constexpr std::uint32_t kNoElement = 0xFFFFFFFF;

// Phrases form a forest: those that begin with equal elements share them, so that a word common to
// many phrases is worked out once. A parent's index is smaller than its children's.
struct CompiledElement {
  std::uint32_t parent = kNoElement;
  std::uint32_t max_gap = 0;
  std::uint32_t fires_begin = 0, fires_end = 0;  // in CompiledTriggers::fires
};

struct CompiledLiteral {
  std::uint32_t trigger = 0;
  std::uint32_t length = 0;
};

struct Range {
  std::uint32_t begin = 0, end = 0;
};

struct CompiledTriggers {
  explicit CompiledTriggers(const std::vector<TriggerSpec>& specs);

  std::uint64_t id;  // unique in the process: tells a scratch whose state it holds
  std::vector<double> weights;

  // Words: each state of the automaton is an answer, the elements that the word read so far
  // matches, in descending order (so that an element is worked out before its parent changes).
  Automaton words;
  std::vector<std::uint32_t> answer_of;  // by state; index into answers
  std::vector<Range> answers;            // [0] is empty; ranges of `matched`
  std::vector<std::uint32_t> matched;    // element indices
  std::vector<CompiledElement> elements;
  std::vector<std::uint32_t> fires;  // triggers whose phrase ends with an element

  // Literals: the ones that end in a state, then those of output_link, and so on up to state 0.
  Automaton literals;
  std::vector<std::uint8_t> has_output;    // by state: own or linked
  std::vector<Range> own_output;           // by state; ranges of `literal`
  std::vector<std::uint32_t> output_link;  // by state; 0 ends the chain
  std::vector<CompiledLiteral> literal;
  std::size_t longest_literal = 0;  // 0: no literals

 private:
  void compile_literals(const std::vector<TriggerSpec>& specs);
  void compile_phrases(const std::vector<TriggerSpec>& specs);
};

struct TriggerSet::Impl : CompiledTriggers {
  using CompiledTriggers::CompiledTriggers;
};

}  // namespace raxe_fast
