#include "moeweld/base/error.h"
#include "moeweld/base/text.h"
#include "moeweld/tokenizer/tokenizer.h"
#include "tokenizer/json_tokenizer.h"
#include "tokenizer/sentence_piece_tokenizer.h"
#include "tokenizer/special_tokens.h"

namespace moeweld::tokenizer {
namespace {

constexpr std::uint64_t kMaxFileBytes = std::uint64_t{256} << 20;

/// The tokens that transformers' classes have when no file says otherwise.
struct ClassDefault {
  std::string_view name, bos, eos;
};
constexpr ClassDefault kClassDefaults[] = {
    {"LlamaTokenizer", "<s>", "</s>"},
    {"LlamaTokenizerFast", "<s>", "</s>"},
    {"CodeLlamaTokenizer", "<s>", "</s>"},
    {"CodeLlamaTokenizerFast", "<s>", "</s>"},
    {"GemmaTokenizer", "<bos>", "<eos>"},
    {"GemmaTokenizerFast", "<bos>", "<eos>"},
    {"GPT2Tokenizer", "<|endoftext|>", "<|endoftext|>"},
    {"GPT2TokenizerFast", "<|endoftext|>", "<|endoftext|>"},
};

std::optional<std::int64_t> find_token(const Tokenizer& tokenizer, const std::optional<std::optional<std::string>>& named,
                                       std::string_view otherwise, const std::string& path) {
  if (!named) return otherwise.empty() ? std::nullopt : tokenizer.token_to_id(otherwise);
  if (!*named) return std::nullopt;
  const auto id = tokenizer.token_to_id(**named);
  if (!id)
    throw Error(ErrorCode::kInvalidInput,
                "the token '" + printable(**named, 60) + "' is not in the vocabulary of tokenizer.json beside this file", path);
  return id;
}

void name_special_tokens(JsonTokenizer& tokenizer, const SpecialTokens& special) {
  ClassDefault defaults{};
  for (const ClassDefault& row : kClassDefaults) {
    if (row.name == special.tokenizer_class) defaults = row;
  }
  tokenizer.set_bos(find_token(tokenizer, special.bos, defaults.bos, special.bos_path));
  tokenizer.set_eos(find_token(tokenizer, special.eos, defaults.eos, special.eos_path));
}

}  // namespace

std::vector<std::int64_t> Tokenizer::encode_with_bos(std::string_view text) const {
  std::vector<std::int64_t> ids = encode(text);
  if (bos_id_) ids.insert(ids.begin(), *bos_id_);
  return ids;
}

std::shared_ptr<const Tokenizer> load_tokenizer(Storage& storage, const std::string& model_directory) {
  const std::string json_path = model_directory + "/tokenizer.json";
  const std::string model_path = model_directory + "/tokenizer.model";
  if (storage.exists(json_path)) {
    auto tokenizer = std::make_shared<JsonTokenizer>(storage.read_text(json_path, kMaxFileBytes), json_path);
    name_special_tokens(*tokenizer, read_special_tokens(storage, model_directory));
    return tokenizer;
  }
  if (storage.exists(model_path))
    return make_sentence_piece_tokenizer(storage.read_text(model_path, kMaxFileBytes), model_path,
                                         read_special_tokens(storage, model_directory));
  if (!storage.is_directory(model_directory)) throw Error(ErrorCode::kInvalidInput, "there is no such model directory", model_directory);
  for (const char* other : {"vocab.json", "tekken.json", "vocab.txt", "sentencepiece.bpe.model", "spiece.model", "tiktoken.model"}) {
    if (!storage.exists(model_directory + "/" + other)) continue;
    throw Error(ErrorCode::kUnsupported,
                "the directory has no tokenizer.json and no tokenizer.model, and '" + std::string(other) +
                    "' is not read. Make a tokenizer.json with transformers: AutoTokenizer.from_pretrained(…).save_pretrained(…)",
                model_directory);
  }
  throw Error(
      ErrorCode::kInvalidInput,
      "the directory has neither tokenizer.json nor tokenizer.model. Download the model's tokenizer, or give token ids instead of text",
      model_directory);
}

}  // namespace moeweld::tokenizer
