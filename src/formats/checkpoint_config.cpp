#include "checkpoint_config.h"

#include <array>

#include "moeweld/base/error.h"
#include "moeweld/base/text.h"

namespace moeweld::formats {
namespace {

constexpr std::uint64_t kMaxConfigBytes = 16'000'000;

struct QuantisationAdvice {
  std::string_view method;
  std::string_view advice;
};

constexpr std::array<QuantisationAdvice, 7> kAdvice{{
    {"gptq", "merge the model that it was quantised from, then quantise the result"},
    {"awq", "merge the model that it was quantised from, then quantise the result"},
    {"compressed-tensors", "merge the model that it was quantised from, then compress the result"},
    {"bitsandbytes", "load it in transformers, call dequantize() and save it in bfloat16 first"},
    {"mxfp4", "load it in transformers with Mxfp4Config(dequantize=True) and save it in bfloat16 first"},
    {"fbgemm_fp8", "use the bfloat16 release of the model"},
    {"modelopt", "use the bfloat16 release of the model"},
}};

void refuse_quantisation_in(const Json& object, const char* key, const std::string& config_path) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return;
  if (!found->is_object()) {
    throw Error(ErrorCode::kInvalidInput, std::string(key) + " is of JSON type " + found->type_name() + ", not an object", config_path);
  }
  std::string method = "of a method that it does not name";
  std::string advice = "use the bfloat16 or float32 version of the model";
  if (const auto name = found->find("quant_method"); name != found->end() && name->is_string()) {
    const auto& text = name->get_ref<const std::string&>();
    // Block-scaled FP8 is read; the catalog pairs its scales.
    if (text == "fp8") return;
    method = "with quant_method '" + printable(text) + "'";
    for (const QuantisationAdvice& row : kAdvice) {
      if (row.method == text) advice = row.advice;
    }
  }
  throw Error(ErrorCode::kUnsupported, "the model is quantised " + method + " (" + key + "), which this version does not merge: " + advice,
              config_path);
}

}  // namespace

Json read_model_config(Storage& storage, const std::string& directory) {
  const std::string path = directory + "/config.json";
  if (!storage.exists(path)) {
    if (storage.exists(directory + "/adapter_config.json")) {
      throw Error(ErrorCode::kUnsupported,
                  "this is a LoRA adapter (adapter_config.json), not a model; merge it into its base model first, for instance with peft",
                  directory);
    }
    throw Error(ErrorCode::kInvalidInput, "config.json is missing; a model directory has one", path);
  }
  Json config = parse_json(storage.read_text(path, kMaxConfigBytes), path, {.max_bytes = kMaxConfigBytes, .max_depth = 64});
  if (!config.is_object()) {
    throw Error(ErrorCode::kInvalidInput, std::string("config.json is of JSON type ") + config.type_name() + ", not an object", path);
  }
  return config;
}

void refuse_quantisation(const Json& config, const std::string& config_path) {
  constexpr std::array<const char*, 2> kKeys = {"quantization_config", "compression_config"};
  for (const char* key : kKeys) {
    refuse_quantisation_in(config, key, config_path);
    // Models of several modalities keep the language model's settings one level down.
    if (const auto text = config.find("text_config"); text != config.end() && text->is_object()) {
      refuse_quantisation_in(*text, key, config_path);
    }
  }
}

}  // namespace moeweld::formats
