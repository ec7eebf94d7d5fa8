#include "raxe_fast/treelite.hpp"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace raxe_fast {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

constexpr std::uint8_t kFloat64 = 3;  // TypeInfo
constexpr std::int8_t kLeaf = 0;      // TreeNodeType
constexpr std::int8_t kNumerical = 1;
constexpr std::int8_t kLessEqual = 3;  // Operator
constexpr std::int32_t kMinMinor = 1;  // 4.0 had another layout
// A tree of one leaf takes more than this; it bounds the number of trees a file can claim.
constexpr std::size_t kMinTreeBytes = 100;
constexpr std::string_view kPostprocessor = "identity_multiclass";

// The message comes in parts, which are only put together once it is needed.
void require(bool condition, std::string_view message, std::string_view rest = {}) {
  if (condition) return;
  throw std::invalid_argument("Treelite file: " + std::string(message) + std::string(rest));
}

// A stretch of the data as an array of T, which need not be aligned.
template <typename T>
class Items {
 public:
  Items() = default;
  Items(const char* at, std::size_t count) : at_(at), count_(count) {}

  std::size_t size() const noexcept { return count_; }
  T operator[](std::size_t i) const noexcept {
    T value;
    std::memcpy(&value, at_ + i * sizeof(T), sizeof(T));
    return value;
  }

 private:
  const char* at_ = nullptr;
  std::size_t count_ = 0;
};

// Reads from the front of the data and never past its end. `what` names the place in errors.
class Cursor {
 public:
  explicit Cursor(std::string_view data) : data_(data) {}

  std::size_t left() const noexcept { return data_.size(); }

  template <typename T>
  Items<T> take(std::uint64_t count, std::string_view what) {
    static_assert(std::is_trivially_copyable_v<T>);
    if (count > data_.size() / sizeof(T)) {
      throw std::invalid_argument("Treelite file is truncated or corrupt at " + std::string(what));
    }
    const Items<T> items(data_.data(), count);
    data_.remove_prefix(count * sizeof(T));
    return items;
  }

  template <typename T>
  T value(std::string_view what) {
    return take<T>(1, what)[0];
  }

  // An array with its length before it.
  template <typename T>
  Items<T> array(std::string_view what) {
    const auto count = value<std::uint64_t>(what);
    return take<T>(count, what);
  }

  // The same, where only one length is allowed.
  template <typename T>
  Items<T> array(std::string_view what, std::uint64_t expected) {
    const auto count = value<std::uint64_t>(what);
    if (count != expected) {
      require(false, what, " has " + std::to_string(count) + " items, not " +
                               std::to_string(expected));
    }
    return take<T>(count, what);
  }

  void no_extension(std::string_view what) {
    require(value<std::int32_t>(what) == 0, what, " are not supported");
  }

 private:
  std::string_view data_;
};

std::string text(Cursor& cursor, std::string_view what) {
  const Items<char> items = cursor.array<char>(what);
  std::string found(items.size(), '\0');
  for (std::size_t i = 0; i < found.size(); ++i) found[i] = items[i];
  return found;
}

// The first 64 characters between quotes, for a message: what is not printable becomes a dot.
std::string quoted(std::string_view what) {
  std::string found(what.substr(0, 64));
  for (char& c : found) {
    if (c < 0x20 || c > 0x7e) c = '.';
  }
  return "'" + found + "'";
}

struct Header {
  std::size_t n_trees;
  std::size_t n_features;
  std::size_t n_outputs;
};

Header read_header(Cursor& cursor) {
  const auto major = cursor.value<std::int32_t>("the version");
  const auto minor = cursor.value<std::int32_t>("the version");
  cursor.value<std::int32_t>("the version");  // patch
  require(major == 4 && minor >= kMinMinor,
          "format version " + std::to_string(major) + "." + std::to_string(minor) +
              " is not supported (4.1 or a later 4.x is)");
  const auto threshold_type = cursor.value<std::uint8_t>("the threshold type");
  const auto leaf_type = cursor.value<std::uint8_t>("the leaf type");
  require(threshold_type == kFloat64 && leaf_type == kFloat64,
          "only float64 thresholds and leaves are supported");
  const auto n_trees = cursor.value<std::uint64_t>("the number of trees");
  const auto n_features = cursor.value<std::int32_t>("the number of features");
  cursor.value<std::uint8_t>("the task type");  // says nothing that the fields below do not
  const auto average = cursor.value<std::uint8_t>("average_tree_output");
  const auto n_targets = cursor.value<std::uint32_t>("the number of targets");
  require(n_features > 0, std::to_string(n_features) + " features");
  require(average == 1, "only forests that average their trees are supported");
  require(n_targets == 1, std::to_string(n_targets) + " targets; only one is supported");
  const auto n_outputs = cursor.array<std::uint32_t>("num_class", 1)[0];
  const auto shape = cursor.array<std::uint32_t>("leaf_vector_shape", 2);
  require(n_outputs > 0 && shape[0] == 1 && shape[1] == n_outputs,
          "leaf shape (" + std::to_string(shape[0]) + ", " + std::to_string(shape[1]) +
              ") is not supported");
  // A crafted count must not make the loop over trees long or a vector large.
  require(n_trees > 0 && n_trees <= cursor.left() / kMinTreeBytes,
          "truncated, or no forest: " + std::to_string(n_trees) + " trees");
  const auto target_id = cursor.array<std::int32_t>("target_id", n_trees);
  const auto class_id = cursor.array<std::int32_t>("class_id", n_trees);
  for (std::size_t t = 0; t < n_trees; ++t) {
    // -1: the tree speaks for all targets, or classes. A model with one class says 0.
    require(target_id[t] == -1 || target_id[t] == 0, "a tree for another target");
    require(class_id[t] == -1 || (n_outputs == 1 && class_id[t] == 0),
            "only trees with leaf vectors are supported");
  }
  const std::string postprocessor = text(cursor, "the postprocessor");
  require(postprocessor == kPostprocessor,
          "postprocessor " + quoted(postprocessor) + " is not supported");
  cursor.take<float>(2, "sigmoid_alpha and ratio_c");  // unused without a postprocessor
  const auto base_scores = cursor.array<double>("base_scores", n_outputs);
  for (std::size_t k = 0; k < n_outputs; ++k) {
    require(base_scores[k] == 0.0, "base scores are not supported");
  }
  cursor.array<char>("attributes");  // free text
  cursor.no_extension("per-model extensions");
  return {static_cast<std::size_t>(n_trees), static_cast<std::size_t>(n_features), n_outputs};
}

// Appends a tree to the arrays.
void read_tree(Cursor& cursor, std::size_t index, ForestArrays& to) {
  const std::string where = "tree " + std::to_string(index);
  const auto nodes = cursor.value<std::int32_t>(where);
  require(nodes > 0, where, " has no nodes");
  const auto n = static_cast<std::size_t>(nodes);
  require(cursor.value<std::uint8_t>(where) == 0, where, " has categorical splits");
  const auto node_type = cursor.array<std::int8_t>(where, n);
  const auto left = cursor.array<std::int32_t>(where, n);
  const auto right = cursor.array<std::int32_t>(where, n);
  const auto split = cursor.array<std::int32_t>(where, n);
  cursor.array<std::uint8_t>(where, n);  // default_left: no value is ever missing
  cursor.array<double>(where, n);        // scalar leaf values
  const auto threshold = cursor.array<double>(where, n);
  const auto comparison = cursor.array<std::int8_t>(where, n);
  cursor.array<std::uint8_t>(where, n);  // category_list_right_child
  const auto values = cursor.array<double>(where);
  const auto values_begin = cursor.array<std::uint64_t>(where, n);
  const auto values_end = cursor.array<std::uint64_t>(where, n);
  cursor.array<std::uint32_t>(where, 0);  // category lists
  cursor.array<std::uint64_t>(where, n);
  cursor.array<std::uint64_t>(where, n);
  for (int statistic = 0; statistic < 3; ++statistic) {  // data_count, sum_hess, gain
    const std::size_t size = statistic == 0 ? cursor.array<std::uint64_t>(where).size()
                                            : cursor.array<double>(where).size();
    const std::size_t present = cursor.array<std::uint8_t>(where).size();
    require((size == 0 || size == n) && (present == 0 || present == n),
            where, ": node statistics");
  }
  cursor.no_extension("per-tree extensions");
  cursor.no_extension("per-node extensions");

  const std::size_t outputs = to.n_outputs;
  require(values.size() % outputs == 0, where, ": incomplete leaf vector");
  const std::size_t first_row = to.leaf_values.size() / outputs;
  require(first_row + values.size() / outputs <=
              static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max()),
          "too many leaves");
  for (std::size_t i = 0; i < values.size(); ++i) {
    require(std::isfinite(values[i]), where, ": a leaf value is not finite");
    to.leaf_values.push_back(values[i]);
  }
  for (std::size_t i = 0; i < n; ++i) {
    if (node_type[i] == kLeaf) {
      require(left[i] == -1 && right[i] == -1, where, ": leaf children");
      // The begin is checked before the end is derived from it: the sum must not wrap around.
      const std::uint64_t begin = values_begin[i];
      require(begin < values.size() && begin % outputs == 0 && values_end[i] == begin + outputs,
              where, ": leaf vector out of range");
      to.feature.push_back(-1);
      to.threshold.push_back(0.0);
      to.leaf_index.push_back(static_cast<std::int32_t>(first_row + begin / outputs));
    } else {
      require(node_type[i] == kNumerical, where, " has a node of an unknown type");
      require(comparison[i] == kLessEqual, where, " has a test other than <=");
      require(split[i] >= 0, where, ": negative feature");
      require(!std::isnan(threshold[i]), where, ": a threshold is NaN");
      to.feature.push_back(split[i]);
      to.threshold.push_back(threshold[i]);
      to.leaf_index.push_back(-1);
    }
    to.left.push_back(left[i]);
    to.right.push_back(right[i]);
  }
  to.tree_offset.push_back(static_cast<std::int64_t>(to.feature.size()));
}

}  // namespace

ForestArrays read_treelite(std::string_view data) {
  Cursor cursor(data);
  const Header header = read_header(cursor);
  ForestArrays arrays;
  arrays.n_features = header.n_features;
  arrays.n_outputs = header.n_outputs;
  arrays.tree_offset.push_back(0);
  for (std::size_t tree = 0; tree < header.n_trees; ++tree) read_tree(cursor, tree, arrays);
  require(cursor.left() == 0, std::to_string(cursor.left()) + " bytes follow the last tree");
  return arrays;
}

}  // namespace raxe_fast
