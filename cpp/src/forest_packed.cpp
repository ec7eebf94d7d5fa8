// Packed nodes, eight bytes each, all trees walked side by side, level by level.
//
// After an encoder call nothing of the forest is in the near caches, and a walk is a chain of
// dependent loads. So: the loop has no branch but its end, the chains of up to 64 trees overlap,
// roots and leaf vectors are prefetched, and nodes lie so that a 64-byte line holds several levels
// of a path.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>

#include "forest_rows.hpp"
#include "raxe_fast/forest.hpp"
#include "raxe_fast/model_memory.hpp"

namespace raxe_fast {
namespace {

// Go to this + step if x[feature] <= threshold, else to this + step + 1.
// Leaf: step 0, feature 0, threshold a quiet NaN whose payload is the row of the leaf vector. No
// value is greater than a NaN, so a leaf is its own successor, and a walk may run too long.
struct Node {
  float threshold;
  std::uint16_t feature;
  std::uint16_t step;
};
static_assert(sizeof(Node) == 8);

constexpr std::size_t kLineBytes = 64;
constexpr std::size_t kLineNodes = kLineBytes / sizeof(Node);
constexpr std::size_t kChunk = 64;        // trees walked side by side
constexpr std::size_t kMaxFeatures = 65536;
constexpr std::uint32_t kQuietNan = 0x7FC00000U;
constexpr std::uint32_t kPayload = 0x003FFFFFU;

Node leaf_node(std::uint32_t row) { return {std::bit_cast<float>(kQuietNan | row), 0, 0}; }

[[noreturn]] void bad(const std::string& what) { throw std::invalid_argument("forest: " + what); }

[[noreturn]] void bad_tree(std::size_t tree, const std::string& what) {
  bad("tree " + std::to_string(tree) + ": " + what);
}

// The greatest float not above t: for a float x, x <= t holds exactly when x <= floor_float(t).
float floor_float(double t) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  // A double beyond float's range has no defined conversion.
  if (t > static_cast<double>(std::numeric_limits<float>::max())) {
    return std::isinf(t) ? kInfinity : std::numeric_limits<float>::max();
  }
  if (t < static_cast<double>(std::numeric_limits<float>::lowest())) return -kInfinity;
  const float nearest = static_cast<float>(t);
  return static_cast<double>(nearest) > t ? std::nextafter(nearest, -kInfinity) : nearest;
}

// Checks one tree and counts the leaves under each node. One pass in order of discovery, so that
// neither a cycle nor a deep tree can hang it or overflow the stack.
std::vector<std::uint32_t> leaves_below(const ForestArrays& a, std::size_t tree, std::size_t begin,
                                        std::size_t n, std::size_t n_rows) {
  std::vector<std::uint32_t> order{0};
  std::vector<bool> seen(n, false);
  order.reserve(n);
  seen[0] = true;
  for (std::size_t at = 0; at < order.size(); ++at) {
    const std::size_t node = order[at];
    const std::size_t i = begin + node;
    if (a.feature[i] < 0) {
      if (a.leaf_index[i] < 0 || static_cast<std::size_t>(a.leaf_index[i]) >= n_rows) {
        bad_tree(tree, "leaf index out of range at node " + std::to_string(node));
      }
      continue;
    }
    if (static_cast<std::size_t>(a.feature[i]) >= a.n_features) {
      bad_tree(tree, "feature out of range at node " + std::to_string(node));
    }
    if (std::isnan(a.threshold[i])) {
      bad_tree(tree, "threshold is NaN at node " + std::to_string(node));
    }
    for (const std::int32_t child : {a.left[i], a.right[i]}) {
      if (child < 0 || static_cast<std::size_t>(child) >= n) {
        bad_tree(tree, "child out of range at node " + std::to_string(node));
      }
      if (seen[static_cast<std::size_t>(child)]) {
        bad_tree(tree, "node " + std::to_string(child) + " is reached twice");
      }
      seen[static_cast<std::size_t>(child)] = true;
      order.push_back(static_cast<std::uint32_t>(child));
    }
  }
  if (order.size() != n) bad_tree(tree, "a node cannot be reached from the root");
  std::vector<std::uint32_t> leaves(n, 1);
  for (std::size_t at = n; at-- > 0;) {
    const std::size_t i = begin + order[at];
    if (a.feature[i] >= 0) {
      leaves[order[at]] = leaves[static_cast<std::size_t>(a.left[i])] +
                          leaves[static_cast<std::size_t>(a.right[i])];
    }
  }
  return leaves;
}

void check_shapes(const ForestArrays& a) {
  if (a.n_features == 0 || a.n_features > kMaxFeatures) {
    bad("n_features must be 1 to " + std::to_string(kMaxFeatures));
  }
  if (a.n_outputs == 0) bad("n_outputs is 0");
  if (a.tree_offset.size() < 2) bad("no trees");
  const std::size_t n = a.feature.size();
  if (a.threshold.size() != n || a.left.size() != n || a.right.size() != n ||
      a.leaf_index.size() != n) {
    bad("the node arrays differ in length");
  }
  if (a.tree_offset.front() != 0 || a.tree_offset.back() < 0 ||
      static_cast<std::uint64_t>(a.tree_offset.back()) != n) {
    bad("tree_offset does not span the node arrays");
  }
  for (std::size_t t = 1; t < a.tree_offset.size(); ++t) {
    if (a.tree_offset[t] <= a.tree_offset[t - 1]) bad("tree_offset does not increase");
  }
  if (a.leaf_values.empty() || a.leaf_values.size() % a.n_outputs != 0) {
    bad("leaf_values is not a whole number of leaf vectors");
  }
  for (const double value : a.leaf_values) {
    if (!std::isfinite(value)) bad("a leaf value is not finite");
  }
}

class PackedForest final : public Forest {
 public:
  explicit PackedForest(const ForestArrays& a)
      : n_features_(a.n_features), n_outputs_(a.n_outputs), n_trees_(a.tree_offset.size() - 1) {
    const std::vector<std::uint32_t> row_of = pack_leaf_vectors(a);
    for (std::size_t t = 0; t < n_trees_; ++t) pack_tree(a, t, row_of);
    lines_ = settle(building_.lines);
    root_ = settle(building_.root);
    leaf_values_ = settle(building_.leaf_values);
    building_ = {};
  }

  std::size_t n_features() const noexcept override { return n_features_; }
  std::size_t n_outputs() const noexcept override { return n_outputs_; }
  std::size_t n_trees() const noexcept override { return n_trees_; }
  std::string_view kind() const noexcept override { return "packed"; }

  void prefetch() const noexcept override {
    for (const std::uint32_t root : root_) __builtin_prefetch(lines_.data() + root / kLineNodes);
  }

  void predict(const float* features, double* out) const noexcept override {
    prefetch();
    std::fill_n(out, n_outputs_, 0.0);
    std::uint32_t row[kChunk];
    for (std::size_t first = 0; first < n_trees_; first += kChunk) {
      const std::size_t count = std::min(kChunk, n_trees_ - first);
      walk(features, root_.data() + first, count, row);
      add_leaf_rows(leaf_values_.data(), row, count, n_outputs_, out);
    }
    const double trees = static_cast<double>(n_trees_);
    for (std::size_t k = 0; k < n_outputs_; ++k) out[k] /= trees;
  }

 private:
  struct alignas(kLineBytes) Line {
    Node node[kLineNodes];
  };

  const Node* nodes() const noexcept { return lines_.data()->node; }

  void walk(const float* x, const std::uint32_t* root, std::size_t count,
            std::uint32_t* row) const noexcept {
    const Node* const first = nodes();
    std::uint32_t at[kChunk];
    std::copy_n(root, count, at);
    std::uint32_t moving = 1;
    while (moving != 0) {
      moving = 0;
#pragma GCC unroll 4
      for (std::size_t t = 0; t < count; ++t) {
        const Node& node = first[at[t]];
        moving |= node.step;
        at[t] += node.step + static_cast<unsigned>(x[node.feature] > node.threshold);
      }
    }
    for (std::size_t t = 0; t < count; ++t) {
      row[t] = std::bit_cast<std::uint32_t>(first[at[t]].threshold) & kPayload;
      const double* const values = leaf_values_.data() + row[t] * n_outputs_;
      for (std::size_t k = 0; k < n_outputs_; k += kLineBytes / sizeof(double)) {
        __builtin_prefetch(values + k);
      }
    }
  }

  // Keeps one copy of each distinct leaf vector: pure leaves are many, and what is not stored
  // needs no cache. Returns the row of each vector.
  std::vector<std::uint32_t> pack_leaf_vectors(const ForestArrays& a) {
    const std::size_t n = a.leaf_values.size() / n_outputs_;
    const std::size_t bytes = n_outputs_ * sizeof(double);
    std::unordered_map<std::string_view, std::uint32_t> row_of_bytes;  // keys: of a.leaf_values
    row_of_bytes.reserve(n);
    std::vector<std::uint32_t> row_of(n);
    for (std::size_t i = 0; i < n; ++i) {
      const double* const vector = a.leaf_values.data() + i * n_outputs_;
      const std::string_view key(reinterpret_cast<const char*>(vector), bytes);
      const auto next = static_cast<std::uint32_t>(row_of_bytes.size());
      const auto [found, fresh] = row_of_bytes.try_emplace(key, next);
      if (fresh) {
        if (next > kPayload) bad("more than 4194304 distinct leaf vectors");
        auto& values = building_.leaf_values;
        values.insert(values.end(), vector, vector + n_outputs_);
      }
      row_of[i] = found->second;
    }
    return row_of;
  }

  // A parent whose two children are still to be placed, side by side.
  struct Pending {
    std::uint32_t leaves;  // below the parent: how often a walk is expected to come here
    std::uint32_t node;    // in the tree
    std::uint32_t slot;    // in the forest
    bool operator<(const Pending& other) const noexcept { return leaves < other.leaves; }
  };

  // Fills line after line: a line takes a pair of siblings, then the children of its own nodes,
  // heaviest subtree first. The first line holds the root and a filler beside it, so that pairs
  // never straddle lines: the complete three top levels of the tree.
  void pack_tree(const ForestArrays& a, std::size_t tree, const std::vector<std::uint32_t>& row) {
    const auto begin = static_cast<std::size_t>(a.tree_offset[tree]);
    const std::size_t n = static_cast<std::size_t>(a.tree_offset[tree + 1]) - begin;
    const std::vector<std::uint32_t> leaves = leaves_below(a, tree, begin, n, row.size());

    // Slots are 32-bit.
    constexpr std::size_t kSlots = std::numeric_limits<std::uint32_t>::max();
    if (building_.lines.size() > (kSlots - 2 * n) / kLineNodes - 2) {
      bad("too many nodes");
    }
    auto slot = static_cast<std::uint32_t>(building_.lines.size() * kLineNodes);
    building_.root.push_back(slot);
    std::vector<Pending> later;  // a stack: what is near in the tree stays near in memory
    std::vector<Pending> line;   // a heap of what may still go into this line

    const auto place = [&](std::uint32_t node, std::uint32_t at) {
      if (at / kLineNodes == building_.lines.size()) {
        building_.lines.emplace_back();
        for (Node& filler : building_.lines.back().node) filler = leaf_node(0);
      }
      Node& target = building_.lines[at / kLineNodes].node[at % kLineNodes];
      const std::size_t i = begin + node;
      if (a.feature[i] < 0) {
        target = leaf_node(row[static_cast<std::size_t>(a.leaf_index[i])]);
      } else {
        target = {floor_float(a.threshold[i]), static_cast<std::uint16_t>(a.feature[i]), 0};
        line.push_back({leaves[node], node, at});
        std::push_heap(line.begin(), line.end());
      }
    };

    place(0, slot);
    slot += 2;
    while (!line.empty() || !later.empty()) {
      if (slot % kLineNodes == 0 || line.empty()) {
        if (slot % kLineNodes == 0) {
          later.insert(later.end(), line.begin(), line.end());
          line.clear();
        }
        line.push_back(later.back());
        later.pop_back();
      }
      std::pop_heap(line.begin(), line.end());
      const Pending parent = line.back();
      line.pop_back();
      const std::uint32_t step = slot - parent.slot;
      if (step > std::numeric_limits<std::uint16_t>::max()) {
        bad_tree(tree, std::to_string(n) + " nodes are too many; up to 65535 always fit");
      }
      building_.lines[parent.slot / kLineNodes].node[parent.slot % kLineNodes].step =
          static_cast<std::uint16_t>(step);
      place(static_cast<std::uint32_t>(a.left[begin + parent.node]), slot);
      place(static_cast<std::uint32_t>(a.right[begin + parent.node]), slot + 1);
      slot += 2;
    }
  }

  std::size_t n_features_;
  std::size_t n_outputs_;
  std::size_t n_trees_;
  ModelVector<Line> lines_;
  ModelVector<std::uint32_t> root_;   // slots
  ModelVector<double> leaf_values_;   // distinct rows of n_outputs_
  struct {
    std::vector<Line> lines;
    std::vector<std::uint32_t> root;
    std::vector<double> leaf_values;
  } building_;  // the same, while they grow
};

}  // namespace

std::unique_ptr<Forest> make_packed_forest(const ForestArrays& arrays) {
  check_shapes(arrays);
  return std::make_unique<PackedForest>(arrays);
}

}  // namespace raxe_fast
