// The compiled form of a trigger set. Written by triggers_compile.cpp, read by triggers.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "raxe_fast/model_memory.hpp"
#include "raxe_fast/triggers.hpp"
#include "triggers_literals.hpp"
#include "triggers_words.hpp"

namespace raxe_fast {

struct Range {
  std::uint32_t begin = 0, end = 0;
};

// How an element that does not begin a phrase follows the one before it.
struct CompiledStep {
  std::uint32_t parent = 0;
  std::uint32_t max_gap = 0;
};

struct CompiledLiteral {
  std::uint32_t trigger = 0;
  std::uint32_t length = 0;
};

struct CompiledTriggers {
  explicit CompiledTriggers(const std::vector<TriggerSpec>& specs);

  std::uint64_t id;  // unique in the process: tells a scratch whose state it holds
  std::vector<double> weights;

  // Phrases form a forest: those that begin with equal elements share them, so that a word common
  // to many phrases is worked out once. Elements stand in order of depth, siblings side by side: a
  // parent's index is smaller than its children's, and "its children are awaited" is one run of
  // bits. What each word needs of the elements that begin a phrase takes 4 bytes an element.
  WordTable words;  // the entries are elements
  std::size_t elements = 0;
  std::size_t roots = 0;                   // elements [0, roots) begin a phrase
  ModelVector<std::uint32_t> child_begin;  // by element, and the end: its children
  ModelVector<CompiledStep> steps;         // by element
  ModelVector<std::uint32_t> fires_begin;  // by element, and the end; in fires
  ModelVector<std::uint32_t> fires;        // triggers whose phrase ends with an element

  // Literals: the ones that end in a state, then those of output_link, and so on up to state 0.
  LiteralAutomaton literals;
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
