// Writes a synthetic bf16 checkpoint of a given family and size: a base with normally distributed weights, and fine-tunes of it.
//   bench_checkpoint OUT --family llama --size-gb 2 --variant 1        variant 0 is the base
#include <CLI/CLI.hpp>
#include <bit>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "moeweld/base/shape.h"
#include "moeweld/formats/json.h"
#include "moeweld/formats/safetensors.h"
#include "moeweld/formats/shard_index.h"

namespace {

using moeweld::formats::TensorLayout;
namespace fs = std::filesystem;

constexpr std::uint64_t kHidden = 2048;
constexpr std::uint64_t kIntermediate = 5632;
constexpr std::uint64_t kHeads = 32;
constexpr std::uint64_t kKeyValueHeads = 4;
constexpr std::uint64_t kHeadSize = 64;
constexpr std::uint64_t kVocabulary = 32000;
constexpr std::uint64_t kExperts = 8;
constexpr std::uint64_t kFileBytes = 5'000'000'000;

struct Options {
  std::string directory;
  std::string family = "llama";
  double size_gb = 2.0;
  std::uint32_t variant = 0;
};

std::uint64_t size_bytes(const TensorLayout& tensor) { return 2 * moeweld::num_elements(tensor.shape); }

std::vector<TensorLayout> layer_tensors(const std::string& family, std::uint64_t layer) {
  const std::string prefix = "model.layers." + std::to_string(layer) + ".";
  std::vector<TensorLayout> result;
  const auto add = [&](const std::string& name, moeweld::Shape shape) {
    result.push_back({prefix + name, moeweld::DType::kBF16, std::move(shape)});
  };
  add("input_layernorm.weight", {kHidden});
  for (const auto& [name, heads] : {std::pair{"q", kHeads}, std::pair{"k", kKeyValueHeads}, std::pair{"v", kKeyValueHeads}}) {
    add(std::string("self_attn.") + name + "_proj.weight", {heads * kHeadSize, kHidden});
    if (family == "qwen2") add(std::string("self_attn.") + name + "_proj.bias", {heads * kHeadSize});
  }
  add("self_attn.o_proj.weight", {kHidden, kHeads * kHeadSize});
  if (family == "qwen3") {
    add("self_attn.q_norm.weight", {kHeadSize});
    add("self_attn.k_norm.weight", {kHeadSize});
  }
  add("post_attention_layernorm.weight", {kHidden});
  if (family != "mixtral") {
    add("mlp.gate_proj.weight", {kIntermediate, kHidden});
    add("mlp.up_proj.weight", {kIntermediate, kHidden});
    add("mlp.down_proj.weight", {kHidden, kIntermediate});
    return result;
  }
  add("block_sparse_moe.gate.weight", {kExperts, kHidden});
  for (std::uint64_t expert = 0; expert < kExperts; ++expert) {
    const std::string name = "block_sparse_moe.experts." + std::to_string(expert);
    add(name + ".w1.weight", {kIntermediate, kHidden});
    add(name + ".w2.weight", {kHidden, kIntermediate});
    add(name + ".w3.weight", {kIntermediate, kHidden});
  }
  return result;
}

std::uint64_t total_bytes(const std::vector<TensorLayout>& tensors) {
  std::uint64_t sum = 0;
  for (const TensorLayout& tensor : tensors) sum += size_bytes(tensor);
  return sum;
}

/// As many layers as come nearest to the size, at least one.
std::pair<std::vector<TensorLayout>, std::uint64_t> model_tensors(const Options& options) {
  std::vector<TensorLayout> tensors{{"model.embed_tokens.weight", moeweld::DType::kBF16, {kVocabulary, kHidden}}};
  const double outside = 2.0 * static_cast<double>(size_bytes(tensors.front()));
  const double layer = static_cast<double>(total_bytes(layer_tensors(options.family, 0)));
  const auto layers = static_cast<std::uint64_t>(std::max(1.0, std::round((options.size_gb * 1e9 - outside) / layer)));
  for (std::uint64_t i = 0; i < layers; ++i) {
    for (TensorLayout& tensor : layer_tensors(options.family, i)) tensors.push_back(std::move(tensor));
  }
  tensors.push_back({"model.norm.weight", moeweld::DType::kBF16, {kHidden}});
  tensors.push_back({"lm_head.weight", moeweld::DType::kBF16, {kVocabulary, kHidden}});
  return {std::move(tensors), layers};
}

void write_config(const Options& options, std::uint64_t layers) {
  const std::string architecture = options.family == "llama"     ? "LlamaForCausalLM"
                                   : options.family == "mistral" ? "MistralForCausalLM"
                                   : options.family == "qwen2"   ? "Qwen2ForCausalLM"
                                   : options.family == "qwen3"   ? "Qwen3ForCausalLM"
                                                                 : "MixtralForCausalLM";
  moeweld::formats::Json config;
  config["architectures"] = {architecture};
  config["model_type"] = options.family;
  config["hidden_act"] = "silu";
  config["hidden_size"] = kHidden;
  config["intermediate_size"] = kIntermediate;
  config["num_hidden_layers"] = layers;
  config["num_attention_heads"] = kHeads;
  config["num_key_value_heads"] = kKeyValueHeads;
  config["head_dim"] = kHeadSize;
  config["max_position_embeddings"] = 2048;
  config["rms_norm_eps"] = 1e-5;
  config["rope_theta"] = 10000.0;
  config["vocab_size"] = kVocabulary;
  config["tie_word_embeddings"] = false;
  config["torch_dtype"] = "bfloat16";
  if (options.family == "mixtral") {
    config["num_local_experts"] = kExperts;
    config["num_experts_per_tok"] = 2;
  }
  std::ofstream(fs::path(options.directory) / "config.json") << config.dump(2) << "\n";
}

/// A table of the normal distribution's quantiles in random order: a uniform index gives a normal value in one step.
std::vector<float> normal_table(double deviation) {
  std::mt19937 generator(1);
  std::normal_distribution<double> normal(0.0, deviation);
  std::vector<float> table(std::size_t{1} << 16);
  for (float& value : table) value = static_cast<float>(normal(generator));
  return table;
}

std::uint64_t mixed(std::uint64_t value) {  // splitmix64
  value += 0x9E3779B97F4A7C15U;
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9U;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EBU;
  return value ^ (value >> 31);
}

std::uint16_t to_bfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return static_cast<std::uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16);
}

/// Four elements per random number; a fine-tune is the base plus noise a hundredth of its size, as real ones are.
void fill(std::uint64_t tensor, std::uint32_t variant, const std::vector<float>& weights, const std::vector<float>& noise,
          std::vector<std::uint16_t>& values) {
#pragma omp parallel for
  for (std::size_t begin = 0; begin < values.size(); begin += 4) {
    const std::uint64_t base = mixed((tensor << 40) + begin);
    const std::uint64_t change = mixed(base ^ (std::uint64_t{variant} << 48));
    for (std::size_t i = 0; i < 4 && begin + i < values.size(); ++i) {
      float value = weights[(base >> (16 * i)) & 0xFFFFU];
      if (variant != 0) value += noise[(change >> (16 * i)) & 0xFFFFU];
      values[begin + i] = to_bfloat16(value);
    }
  }
}

void write(const Options& options) {
  fs::create_directories(options.directory);
  const auto [tensors, layers] = model_tensors(options);
  write_config(options, layers);
  std::vector<std::vector<std::size_t>> files(1);
  std::uint64_t in_file = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (in_file > 0 && in_file + size_bytes(tensors[i]) > kFileBytes) {
      files.emplace_back();
      in_file = 0;
    }
    files.back().push_back(i);
    in_file += size_bytes(tensors[i]);
  }
  const std::vector<float> weights = normal_table(0.02);
  const std::vector<float> noise = normal_table(0.0002);
  moeweld::formats::ShardIndex index;
  std::vector<std::uint16_t> values;
  for (std::size_t file = 0; file < files.size(); ++file) {
    char name[64] = "model.safetensors";
    if (files.size() > 1) std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", file + 1, files.size());
    std::vector<TensorLayout> layout;
    for (const std::size_t i : files[file]) {
      layout.push_back(tensors[i]);
      index.weight_map[tensors[i].name] = name;
    }
    std::ofstream stream(fs::path(options.directory) / name, std::ios::binary);
    stream << moeweld::formats::serialize_safetensors_header(layout);
    for (const std::size_t i : files[file]) {
      values.resize(moeweld::num_elements(tensors[i].shape));
      fill(i, options.variant, weights, noise, values);
      stream.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(2 * values.size()));
    }
    if (!stream.flush()) throw std::runtime_error("cannot write " + options.directory + "/" + name);
  }
  if (files.size() > 1) {
    std::ofstream(fs::path(options.directory) / "model.safetensors.index.json")
        << moeweld::formats::serialize_shard_index(index, total_bytes(tensors));
  }
  std::cout << options.directory << ": " << layers << " layers, " << total_bytes(tensors) << " bytes\n";
}

}  // namespace

int main(int argc, char** argv) try {
  Options options;
  CLI::App app("Writes a synthetic bf16 checkpoint");
  app.add_option("out", options.directory, "Directory")->required();
  app.add_option("--family", options.family)->check(CLI::IsMember({"llama", "mistral", "qwen2", "qwen3", "mixtral"}));
  app.add_option("--size-gb", options.size_gb, "Size in 10^9 bytes, met to within half a layer");
  app.add_option("--variant", options.variant, "0: the base; n: the n-th fine-tune of it");
  CLI11_PARSE(app, argc, argv);
  write(options);
  return 0;
} catch (const std::exception& error) {
  std::cerr << "bench_checkpoint: " << error.what() << "\n";
  return 1;
}
