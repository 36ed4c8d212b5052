#pragma once
/// Every output tensor: operation, parameters, sources, exact place in the output files. Pure data: same inputs, same plan, whatever the
/// number of ranks. Made by rank 0, broadcast, never changed.

#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "moeweld/base/archive.h"
#include "moeweld/base/digest.h"
#include "moeweld/base/dtype.h"
#include "moeweld/base/shape.h"
#include "moeweld/config/align_experts.h"
#include "moeweld/merge/task.h"
#include "moeweld/model/transformer.h"
#include "moeweld/storage/storage.h"

namespace moeweld::plan {

constexpr int kPlanSchemaVersion = 4;

struct PlannedInputFile {
  std::string path;
  FileIdentity identity;    ///< checked again before reading
  std::uint32_t model = 0;  ///< index into MergePlan::models
};

struct PlannedModel {
  std::string reference;  ///< as the config writes it
  std::string directory;
};

/// How one logical input matrix is obtained: a small expression tree whose leaves are runs of bytes. Every node yields its elements in
/// row-major order and in its own dtype; a child of another (narrower) type is converted. Nodes know nothing of each other, so that later
/// ones (permuted rows, block scales, LoRA) compose with these. exec/view_reader.h evaluates them.
struct SourceView {
  enum class Kind : std::uint8_t {
    kBytes,            ///< a leaf: num_elements from byte `begin` of `file`
    kRows,             ///< children one after the other: matrices of equal width, or vectors
    kColumns,          ///< children side by side: matrices of equal height
    kRowSlice,         ///< num_elements / columns rows of children[0], from row `first` on
    kColumnSlice,      ///< `columns` columns of children[0], from column `first` on
    kPermutedRows,     ///< row r is row orders[first + r] of children[0], a vector being one column: MergePlan::orders
    kPermutedColumns,  ///< column c is column orders[first + c] of children[0]
    /// Block-scaled FP8 as F32: codes children[0] times scales children[1], one for kScaleBlock rows and columns. Row 0 of the codes is row
    /// `first` of the matrix that the scales belong to.
    kBlockScaled,
    kZeros,  ///< a leaf without a file: num_elements zeros
  };
  Kind kind = Kind::kBytes;
  DType dtype{};
  std::uint32_t file = 0;   ///< index into MergePlan::input_files
  std::uint64_t begin = 0;  ///< first byte in the file
  std::uint64_t num_elements = 0;
  std::uint64_t columns = 0;  ///< length of a row; 0 for a leaf that is the whole source
  std::uint64_t first = 0;    ///< of a slice and of kBlockScaled, or into MergePlan::orders
  std::vector<SourceView> children;
};

/// What evaluating the view reads from files: a slice of columns reads whole rows.
std::uint64_t read_bytes(const SourceView& view);
/// The leaf that holds the view's first element: what messages name.
const SourceView& first_leaf(const SourceView& view);

/// One logical matrix of the output and how its bytes come about.
struct Operation {
  enum class Kind : std::uint8_t {
    kMerge,        ///< a method over sources[0..K)
    kCopy,         ///< the bytes of sources[0]; sources[1..] must hold the same bytes (non-arithmetic dtypes), else the merge fails by name
    kRandomFill,   ///< random numbers (router rows): fill
    kConstant,     ///< every element is `constant` (biases that an output family has and a source has not)
    kSlot,         ///< rows of a slot that prepare fills
    kBlockScales,  ///< the scales of operation `codes`, which is block-scaled: its task, no sources of its own
  };
  Kind kind = Kind::kMerge;
  std::string name;                ///< per-expert tensor name
  std::uint32_t tensor = 0;        ///< index into MergePlan::tensors: the physical tensor this is (a part of)
  std::uint64_t offset_bytes = 0;  ///< within that tensor
  std::uint32_t method = 0;        ///< index into merge::method_table(), for kMerge
  merge::Task task;                ///< shape, dtypes, parameters; for all kinds the shape and output dtype
  std::vector<SourceView> sources;

  struct RandomFill {
    enum class Distribution : std::uint8_t { kNormal, kUniform };
    Distribution distribution = Distribution::kNormal;
    double scale = 1.0;  ///< N(0, scale²) or uniform in ±scale
    std::uint64_t stream = 0;
    std::uint64_t first_index = 0;  ///< element i takes random number (or, for kSlot, element of the slot) first_index + i
  } fill;
  std::uint64_t repeat_rows = 1;  ///< kRandomFill and kSlot: each row that is made stands so many times, one below the other
  double constant = 0;            ///< for kConstant
  std::uint32_t slot = 0;         ///< index into MergePlan::slots, for kSlot
  /// kMerge of a matrix whose result, task.output_dtype F32, is written as codes of block-scaled FP8. All rows of a block decide its scale,
  /// so it is computed in bands of kScaleBlock rows.
  bool block_scaled = false;
  std::uint32_t codes = 0;  ///< index into MergePlan::operations, for kBlockScales

  /// Elements that are written, and their type.
  std::uint64_t result_elements() const;
  DType result_dtype() const { return block_scaled ? DType::kF8E4M3 : task.output_dtype; }
  std::uint64_t result_bytes() const { return result_elements() * size_bytes(result_dtype()); }
  /// Whether it is computed in bands of rows.
  bool is_banded() const { return block_scaled || kind == Kind::kBlockScales; }
};

/// Router rows, or weights of experts, that only tensor data, or all rows together, can tell; filled by the collective prepare stage before
/// the first item.
struct Slot {
  enum class Kind : std::uint8_t {
    kCheapEmbedRouter,  ///< sums of token embeddings
    kExpertWeights,     ///< how much weight each layer's router rows give its experts
    kHiddenRouter,      ///< what the base's forward pass over the prompts holds in each layer
    kOrthogonalRouter,  ///< random orthonormal rows, other ones in each layer
  };
  /// What a hidden router's rows are made of.
  enum class State : std::uint8_t {
    kLastToken,     ///< the residual stream that enters the layer, at the last token
    kMeanOfTokens,  ///< the same, mean over the tokens
    kRouterInput,   ///< the stream after attention and the norm that follows it, at the last token
  };
  Kind kind = Kind::kCheapEmbedRouter;
  State state = State::kLastToken;
  std::string name;  ///< "router rows (cheap_embed)"
  /// Of the result, float64 row-major: [experts, hidden], for each of `layers` one below the other; with a gated shared expert each layer
  /// has one more row: its gate's.
  Shape shape;
  std::vector<std::uint32_t> layers;  ///< ascending; empty: one group of rows, for all layers
  SourceView embedding;               ///< kCheapEmbedRouter: [vocabulary, hidden]
  Shape embedding_shape;
  std::vector<SourceView> routers;  ///< kExpertWeights: [experts, hidden] of each of `layers`; the shape is [layers, experts]
  model::Transformer base;          ///< kHiddenRouter
  std::uint32_t num_shared = 0;     ///< the last of the experts below; the gate's row is the normalised mean of theirs
  std::vector<std::vector<std::vector<std::int64_t>>> positive_ids;  ///< [expert][prompt][id]
  std::vector<std::vector<std::vector<std::int64_t>>> negative_ids;

  std::uint64_t rows_per_layer() const { return shape.at(0) / (layers.empty() ? 1 : layers.size()); }
  std::uint64_t size_bytes() const { return num_elements(shape) * sizeof(double); }
};

constexpr std::uint32_t kNoOperation = std::numeric_limits<std::uint32_t>::max();

/// One layer's experts, and the neurons in them, which some models have in another order than the one they are merged with. The orders are
/// open until prepare; the operations' sources are planned as if experts kept their places, with views that have neurons in order.
struct Alignment {
  int layer = 0;  ///< of the output
  config::AlignExperts::Match match = config::AlignExperts::Match::kBoth;
  bool neurons = true;
  std::uint32_t num_experts = 0;
  std::uint32_t num_groups = 1;  ///< of routing: only whole groups change places
  std::uint64_t num_neurons = 0;
  std::uint64_t hidden = 0;
  std::uint32_t reference = 0;        ///< index into Operation::sources, of all operations below
  std::vector<std::uint32_t> models;  ///< likewise: those that are brought into the reference's order
  std::uint32_t router = kNoOperation;
  std::uint32_t correction_bias = kNoOperation;  ///< one number per expert; not every family has it
  std::vector<std::uint32_t> gate;               ///< operations by expert
  std::vector<std::uint32_t> up;
  std::vector<std::uint32_t> down;
  /// Into MergePlan::orders. For each of `models`: num_experts numbers, expert e of the output is expert order[e] of the model; then, if
  /// neurons are ordered, num_neurons for each expert e: its neuron n is neuron order[n] of that expert.
  std::uint64_t first_order = 0;

  std::uint64_t orders_per_model() const { return num_experts * (1 + (neurons ? num_neurons : 0)); }
  std::uint64_t expert_order(std::size_t model) const { return first_order + model * orders_per_model(); }
  std::uint64_t neuron_order(std::size_t model, std::uint64_t expert) const {
    return expert_order(model) + num_experts + expert * num_neurons;
  }
};

/// A tensor as it stands in an output file.
struct PlannedTensor {
  std::string name;
  DType dtype{};
  Shape shape;
  std::uint32_t file = 0;   ///< index into MergePlan::output_files
  std::uint64_t begin = 0;  ///< from the start of the file; naturally aligned for the dtype
  std::uint64_t size_bytes = 0;
};

struct PlannedOutputFile {
  std::string name;    ///< model-00001-of-00003.safetensors
  std::string header;  ///< everything before the data
  std::uint64_t size_bytes = 0;
  std::vector<std::string> copies;  ///< other files of the same bytes, written along with it: what models of several outputs share
  /// HDF5: the writer makes the file, and so many bytes before the data are its own. `header` is empty then.
  std::uint64_t own_metadata_bytes = 0;

  std::uint64_t num_places() const { return 1 + copies.size(); }
};

/// Every other file of the output directory, or of the base that is not carried over.
struct AuxiliaryFile {
  enum class Action : std::uint8_t { kWrite, kCopy, kDrop };
  Action action = Action::kWrite;
  std::string name;
  std::string content;  ///< kWrite
  std::string source;   ///< kCopy: path
  std::string reason;   ///< kDrop, or why it is rewritten
};

struct DroppedTensor {
  std::string model;
  std::string name;
  std::uint64_t num_elements = 0;
  std::string reason;
};

struct MergePlan {
  int schema_version = kPlanSchemaVersion;
  std::string title;  ///< "ties of 3 models onto llama-7b"
  std::string config_path;
  std::string config_text;
  std::uint64_t seed = 0;
  std::vector<PlannedModel> models;
  std::vector<PlannedInputFile> input_files;
  /// One read feeds several models (extract --all): each a directory below OUT with a manifest, index and auxiliary files of its own. The
  /// names of output files begin with "<directory>/" then. Empty: OUT itself is the model.
  std::vector<std::string> outputs;
  std::vector<PlannedOutputFile> output_files;
  std::vector<PlannedTensor> tensors;  ///< in (file, begin) order
  std::vector<Operation> operations;   ///< in (file, begin) order of their bytes; together they cover every tensor exactly once
  std::vector<Slot> slots;
  std::vector<Alignment> alignments;
  std::uint64_t num_orders = 0;                ///< numbers that the alignments need
  std::vector<std::uint32_t> orders;           ///< empty in a plan; with_orders fills them in a copy of it
  std::vector<AuxiliaryFile> auxiliary_files;  ///< config.json, tokenizer files, …; index, manifest and README are the writer's
  std::vector<DroppedTensor> dropped;
  std::vector<std::string> composition;  ///< assemblies: what comes from which model, a line each
  std::vector<std::string> about;        ///< paragraphs of the model card: what this model is and is not
  std::vector<std::string> notes;
  std::vector<std::string> warnings;
  std::vector<std::string> base_models;  ///< for the model card

  std::uint64_t output_bytes() const;  ///< of all output files, copies too
  std::uint64_t input_bytes() const;   ///< of all sources, each read once
  std::uint64_t num_files() const;     ///< of tensors, copies too
};

/// First byte of an operation's result in its output file, and its length.
struct Destination {
  std::uint32_t file = 0;
  std::uint64_t begin = 0;
  std::uint64_t size_bytes = 0;
};
Destination destination(const MergePlan& plan, const Operation& operation);

/// Digest of all that the output's bytes depend on: equal for two plans of the same work, whatever file the configuration was read from and
/// whatever is noted for the user.
Digest identity_digest(const MergePlan& plan);

std::vector<std::byte> encode(const MergePlan& plan);
MergePlan decode(std::span<const std::byte> bytes);

}  // namespace moeweld::plan
