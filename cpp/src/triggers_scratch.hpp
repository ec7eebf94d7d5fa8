// What matching remembers within one text, and what it does with words and literals once they are
// read. Written by triggers_scratch.cpp; triggers.cpp reads the text.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "raxe_fast/model_memory.hpp"
#include "raxe_fast/normalize.hpp"
#include "raxe_fast/triggers.hpp"
#include "triggers_impl.hpp"

namespace raxe_fast {

struct TriggerScratch::State {
  // The latest match of a phrase up to some element: where its word stands and where it began.
  // Later words can only do better, so one is enough. Written before it is ever read in a pass:
  // `awaited` says so.
  struct Progress {
    std::uint64_t word = 0;
    std::uint32_t begin = 0;
  };

  // An element that the current word matches, and where its phrase began.
  struct Step {
    std::uint32_t element = 0;
    std::uint32_t begin = 0;
  };

  // The matches of one trigger in one text with the smallest (end, begin), ascending.
  struct Kept {
    std::uint32_t text = 0;  // pass number of the first pass over the text
    std::uint32_t count = 0;
    std::array<std::pair<std::uint32_t, std::uint32_t>, kMaxMatchesPerTrigger> spans{};
  };

  // A normalised character and where it comes from.
  struct Recent {
    std::uint32_t origin = 0;
    char32_t c = 0;
  };

  // A key to look up for a word: of a beginning of it that may be a prefix, or of all of it.
  struct Probe {
    std::uint64_t key = 0;
    std::uint32_t spelling = 0;  // bytes of it, twice; plus 1 for a prefix
    std::uint32_t bucket = 0;    // once located
  };

  // A word that waits for its lookup.
  struct Pending {
    std::uint64_t number = 0;  // from 1
    std::uint32_t begin = 0, end = 0;
    std::uint32_t spelling = 0;    // index into `spelling`
    std::uint32_t probes_end = 0;  // its probes end here; they begin where the last word's end
  };

  // Words are looked up together, so that their cache lines travel together.
  static constexpr std::size_t kBatch = 48, kBatchProbes = 2 * kBatch, kBatchSpelling = 1024;

  std::uint64_t owner = 0;               // id of the set the rest is sized for
  std::uint32_t pass = 0;                // stamp of the latest reading
  std::uint32_t first_pass = 0;          // over the current text
  ModelVector<std::uint64_t> awaited;    // a bit per element: the one before it has matched
  ModelVector<Progress> progress;        // by element
  ModelVector<Step> reached;             // as many as elements, and one
  ModelVector<Kept> kept;                // by trigger
  std::vector<std::uint32_t> touched;    // triggers with matches in this text
  ModelVector<Recent> recent;            // a ring, no shorter than the longest literal
  ModelVector<std::uint32_t> counted;    // by trigger, for rule_score
  ModelVector<Pending> pending;          // kBatch
  ModelVector<Probe> probes;             // kBatchProbes and those of one more word
  ModelVector<std::uint8_t> spelling;    // likewise

  // Asks for what every text writes to: a store that waits for memory holds up all later ones.
  void prefetch(const CompiledTriggers& set) noexcept;

  // Ready for the next text. The first stamp of its passes will be pass + 1.
  void prepare(const CompiledTriggers& set);
  void begin_pass(const CompiledTriggers& set);

  void keep(std::uint32_t trigger, std::uint32_t begin, std::uint32_t end);
  void look_up(const CompiledTriggers& set, std::size_t words);
  void end_word(const CompiledTriggers& set, WordTable::Entries entries, const Pending& word);
  // The literals that end in `state`, with the character fed as number `fed`, of origin `end` - 1.
  void end_literal(const CompiledTriggers& set, LiteralAutomaton::State state, std::size_t fed,
                   std::uint32_t end);

  // One reading of the text; true if it holds ignorable characters.
  bool read(const CompiledTriggers& set, TextView text, Ignorables mode);
  template <bool kLiterals, class Unit>
  bool read(const CompiledTriggers& set, const Unit* text, std::size_t length, Ignorables mode);
};

}  // namespace raxe_fast
