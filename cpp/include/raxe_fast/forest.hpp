// A forest of decision trees over one row of float32 features: the mean of the leaf vectors.
//
// Two implementations with equal results:
//   compiled: Treelite model -> tl2cgen C, linked into this library (compiled_heads.hpp);
//   packed:   nodes in arrays, for models trained later where no compiler is at hand.
// Sums run in double, tree by tree in model order, then divide once by the number of trees, as
// scikit-learn and GTIL do, so results agree with them to rounding of the last place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

namespace raxe_fast {

class Forest {
 public:
  virtual ~Forest() = default;
  [[nodiscard]] virtual std::size_t n_features() const noexcept = 0;
  [[nodiscard]] virtual std::size_t n_outputs() const noexcept = 0;
  [[nodiscard]] virtual std::size_t n_trees() const noexcept = 0;
  [[nodiscard]] virtual std::string_view kind() const noexcept = 0;  // "compiled" or "packed"
  // features: n_features() finite float32 (checked by the caller). out: n_outputs() doubles,
  // overwritten. Thread-safe; allocates nothing that grows.
  virtual void predict(const float* features, double* out) const noexcept = 0;
  // Asks for the memory that every prediction begins with, so that it arrives while the caller does
  // something else. Changes no result.
  virtual void prefetch() const noexcept {}
};

// The forest as flat arrays, trees one after another. Node i of tree t stands at
// tree_offset[t] + i. Inner node: feature[i] >= 0, go left if x[feature] <= threshold, else right;
// children are tree-relative. Leaf: feature[i] < 0, its values are leaf_values[leaf_index[i] *
// n_outputs ...].
struct ForestArrays {
  std::size_t n_features = 0;
  std::size_t n_outputs = 0;
  std::vector<std::int64_t> tree_offset;  // n_trees + 1
  std::vector<std::int32_t> feature;
  std::vector<double> threshold;  // rounded down to float32 by the constructor: same routing
  std::vector<std::int32_t> left;
  std::vector<std::int32_t> right;
  std::vector<std::int32_t> leaf_index;
  std::vector<double> leaf_values;
};

// Throws std::invalid_argument if any index is out of range, a tree is not a tree (a cycle, a
// node reached twice), a threshold or leaf value is NaN, or an array has the wrong length.
[[nodiscard]] std::unique_ptr<Forest> make_packed_forest(const ForestArrays& arrays);

// The compiled forest whose Treelite file has this SHA-256 (64 hex digits), or nullptr if this
// build holds none.
[[nodiscard]] std::unique_ptr<Forest> make_compiled_forest(std::string_view sha256);

// SHA-256 of every Treelite file compiled into this build.
[[nodiscard]] std::vector<std::string_view> compiled_heads();

}  // namespace raxe_fast
