// Matching: one pass over the text (two when it holds ignorable characters).
#include "raxe_fast/triggers.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <stdexcept>
#include <tuple>

#include "raxe_fast/normalize.hpp"
#include "triggers_scratch.hpp"

namespace raxe_fast {
namespace {

// ASCII: the normalised character, plus kWordBit for letters, digits and the underscore.
constexpr std::uint8_t kWordBit = 128;

constexpr std::array<std::uint8_t, 128> make_ascii() {
  std::array<std::uint8_t, 128> map{};
  for (std::uint8_t c = 0; c < 128; ++c) {
    const bool upper = c >= 'A' && c <= 'Z';
    const std::uint8_t lower = upper ? c | 0x20 : c;
    const bool word = (lower >= 'a' && lower <= 'z') || (c >= '0' && c <= '9') || c == '_';
    map[c] = c < 0x20 || c == 0x7F ? ' ' : static_cast<std::uint8_t>(lower | (word ? kWordBit : 0));
  }
  return map;
}

alignas(64) constexpr std::array<std::uint8_t, 128> kAscii = make_ascii();

}  // namespace

TriggerScratch::TriggerScratch() : state_(std::make_unique<State>()) {}
TriggerScratch::~TriggerScratch() = default;
TriggerScratch::TriggerScratch(TriggerScratch&&) noexcept = default;
TriggerScratch& TriggerScratch::operator=(TriggerScratch&&) noexcept = default;

template <bool kLiterals, class Unit>
bool TriggerScratch::State::read(const CompiledTriggers& set, const Unit* text, std::size_t length,
                                 Ignorables mode) {
  begin_pass(set);
  bool ignorables = false;

  // The current word. Characters beyond the longest pattern count, but need no spelling.
  const std::size_t longest = set.words.longest();
  const std::size_t longest_prefix = set.words.longest_prefix();
  std::size_t letters = 0;
  std::uint64_t hash = kEmptyWord;
  std::uint32_t begin = 0, end = 0;
  std::uint64_t words = 0;
  // The words that wait, and room taken by them and by the current one.
  std::size_t waiting = 0;
  std::uint32_t n_probes = 0, first_probe = 0, spelled = 0, first_spelled = 0;

  std::size_t fed = 0;  // characters seen by the literals
  std::uint64_t grams = 0;
  bool awake = false;
  LiteralAutomaton::State literal = 0;
  Recent* const ring = recent.data();
  const std::size_t mask = recent.size() - 1;

  const auto add_probe = [&](bool prefix) {
    const std::uint64_t key = WordTable::key(hash, prefix);
    set.words.prefetch(key);
    probes[n_probes++] = {key, 2 * (spelled - first_spelled) + (prefix ? 1 : 0), 0};
  };
  const auto flush = [&]() {
    look_up(set, waiting);
    waiting = 0;
    n_probes = first_probe = spelled = first_spelled = 0;
  };
  const auto feed_letter = [&](char32_t c, std::uint32_t at) {
    begin = letters == 0 ? at : begin;
    end = at + 1;
    if (++letters <= longest) {
      hash = hash_letter(hash, c);
      spelled += static_cast<std::uint32_t>(spell(c, spelling.data() + spelled));
      if (letters <= longest_prefix && set.words.may_be_prefix(hash)) {
        add_probe(true);
      }
    }
  };
  const auto close_word = [&]() {
    if (letters == 0) {
      return;
    }
    ++words;
    if (letters <= longest) {
      add_probe(false);
    }
    if (n_probes != first_probe) {
      pending[waiting++] = {words, begin, end, first_spelled, n_probes};
      first_probe = n_probes;
      first_spelled = spelled;
      if (waiting == kBatch || n_probes >= kBatchProbes || spelled >= kBatchSpelling) {
        flush();
      }
    } else {
      spelled = first_spelled;
    }
    letters = 0;
    hash = kEmptyWord;
  };
  const auto feed_literals = [&](char32_t c, std::uint32_t at) {
    if constexpr (kLiterals) {
      ring[fed++ & mask] = {at, c};
      grams = LiteralAutomaton::remember(grams, c);
      if (awake) [[unlikely]] {
        literal = set.literals.step(literal, c);
      } else if (set.literals.may_begin(grams)) [[unlikely]] {
        literal =
            set.literals.wake(grams, fed, [&](std::size_t k) { return ring[(fed - k) & mask].c; });
      } else {
        return;
      }
      awake = set.literals.deep(literal);
      if (set.literals.reports(literal)) {
        end_literal(set, literal, fed, at + 1);
      }
    }
  };
  const auto feed_ascii = [&](char32_t raw, std::uint32_t at) {
    const std::uint8_t folded = kAscii[raw];
    const char32_t c = folded & 127U;
    feed_literals(c, at);
    if (folded >= kWordBit) {
      feed_letter(c, at);
    } else {
      close_word();
    }
  };
  const auto feed_other = [&](char32_t c, std::uint32_t at) {
    feed_literals(c, at);
    const CharClass kind = char_class(c);
    if (kind != CharClass::word) {
      close_word();
    }
    if (kind != CharClass::separator) {
      feed_letter(c, at);
    }
    if (kind == CharClass::unspaced) {
      close_word();
    }
  };

  for (std::size_t i = 0; i < length; ++i) {
    const auto c = static_cast<char32_t>(text[i]);
    const auto at = static_cast<std::uint32_t>(i);
    if (c < 128) [[likely]] {
      feed_ascii(c, at);
      continue;
    }
    const Mapped mapped = map_code_point(c);
    if (mapped.ignorable) {
      ignorables = true;
      if (mode == Ignorables::separate) {
        feed_ascii(U' ', at);
      }
    } else if (mapped.chars == nullptr) {
      if (mapped.count != 0) {
        feed_other(c, at);
      }
    } else {
      for (std::size_t k = 0; k < mapped.count; ++k) {
        if (mapped.chars[k] < 128) {
          feed_ascii(mapped.chars[k], at);
        } else {
          feed_other(mapped.chars[k], at);
        }
      }
    }
  }
  close_word();
  flush();
  return ignorables;
}

bool TriggerScratch::State::read(const CompiledTriggers& set, TextView text, Ignorables mode) {
  const auto with_width = [&]<class Unit>(const Unit* units) {
    return set.longest_literal == 0 ? read<false>(set, units, text.length, mode)
                                    : read<true>(set, units, text.length, mode);
  };
  switch (text.width) {
    case 1:
      return with_width(static_cast<const std::uint8_t*>(text.data));
    case 2:
      return with_width(static_cast<const std::uint16_t*>(text.data));
    default:
      return with_width(static_cast<const std::uint32_t*>(text.data));
  }
}

TriggerSet::TriggerSet(const std::vector<TriggerSpec>& specs)
    : impl_(std::make_unique<Impl>(specs)) {}
TriggerSet::~TriggerSet() = default;
TriggerSet::TriggerSet(TriggerSet&&) noexcept = default;
TriggerSet& TriggerSet::operator=(TriggerSet&&) noexcept = default;

std::size_t TriggerSet::size() const noexcept { return impl_->weights.size(); }

void TriggerSet::prefetch(TriggerScratch& scratch) const noexcept {
  scratch.state_->prefetch(*impl_);
  impl_->literals.prefetch();
  impl_->words.prefetch();
  for (std::size_t i = 0; i < impl_->roots; i += 16) {
    __builtin_prefetch(impl_->child_begin.data() + i);
  }
}

void TriggerSet::match(TextView text, TriggerScratch& scratch,
                       std::vector<TriggerMatch>& out) const {
  if (text.length >= std::numeric_limits<std::uint32_t>::max()) {
    throw std::length_error("text of 2^32 - 1 code points or more");
  }
  TriggerScratch::State& state = *scratch.state_;
  state.prepare(*impl_);
  if (state.read(*impl_, text, Ignorables::drop)) {
    state.read(*impl_, text, Ignorables::separate);
  }
  const auto first = static_cast<std::ptrdiff_t>(out.size());
  for (const std::uint32_t trigger : state.touched) {
    const TriggerScratch::State::Kept& kept = state.kept[trigger];
    for (std::uint32_t i = 0; i < kept.count; ++i) {
      out.push_back({trigger, kept.spans[i].second, kept.spans[i].first});
    }
  }
  std::sort(out.begin() + first, out.end(), [](const TriggerMatch& a, const TriggerMatch& b) {
    return std::tie(a.begin, a.end, a.trigger) < std::tie(b.begin, b.end, b.trigger);
  });
}

double TriggerSet::rule_score(const TriggerMatch* matches, std::size_t n,
                              TriggerScratch& scratch) const {
  TriggerScratch::State& state = *scratch.state_;
  state.prepare(*impl_);
  ++state.pass;
  double none = 1.0;
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint32_t trigger = matches[i].trigger;
    if (trigger >= size()) {
      throw std::invalid_argument("match of a trigger that this set does not have");
    }
    if (state.counted[trigger] != state.pass) {
      state.counted[trigger] = state.pass;
      none *= 1.0 - impl_->weights[trigger];
    }
  }
  return 1.0 - none;
}

}  // namespace raxe_fast
