#include "moeweld/plan/site_rates.h"

#include <cmath>

#include "moeweld/base/error.h"
#include "moeweld/base/text.h"
#include "moeweld/formats/json.h"

namespace moeweld::plan {

namespace {

constexpr const char* kSchema = "moeweld.site/1";

class Reader {
 public:
  Reader(const formats::Json& json, std::string path) : json_(json), path_(std::move(path)) {}

  double positive(const formats::Json& object, const std::string& key) {
    const auto found = object.find(key);
    if (found == object.end()) {
      fail("has no \"" + printable(key, 60) + "\"");
      return 1;
    }
    if (!found->is_number() || !std::isfinite(found->get<double>()) || found->get<double>() <= 0) {
      fail("\"" + printable(key, 60) + "\" is " + printable(found->dump(), 60) + ", not a positive number");
      return 1;
    }
    return found->get<double>();
  }
  double positive(const std::string& key) { return positive(json_, key); }
  std::string text(const std::string& key) {
    const auto found = json_.find(key);
    return found != json_.end() && found->is_string() ? printable(found->get<std::string>(), 80) : "";
  }
  void fail(const std::string& message) { problems_.add({ErrorCode::kInvalidInput, message, path_, 0, {}}); }
  void finish() { problems_.throw_if_any(); }

 private:
  const formats::Json& json_;
  const std::string path_;
  ProblemList problems_;
};

}  // namespace

SiteRates stated_rates() {
  SiteRates rates;
  rates.source =
      "stated ones, not measured here: 1 GB/s read and 0.5 GB/s written by a node, 10 GB/s by the file system; nodes of 32 cores";
  rates.cores_per_node = 32;
  rates.memory_per_node_bytes = 128e9;
  rates.read_bytes_per_second = 1e9;
  rates.write_bytes_per_second = 0.5e9;
  rates.file_system_bytes_per_second = 10e9;
  rates.forward_flops_per_second_per_core = 20e9;
  rates.combine_bytes_per_second_per_core = 0.3e9;
  return rates;
}

SiteRates parse_site_rates(const std::string& text, const std::string& path) {
  const formats::Json json = formats::parse_json(text, path);
  if (!json.is_object()) throw Error(ErrorCode::kInvalidInput, "is not a JSON object", path);
  Reader reader(json, path);
  if (const std::string schema = reader.text("schema"); schema != kSchema) {
    throw Error(
        ErrorCode::kInvalidInput,
        "has schema \"" + schema + "\", and this version of moeweld reads \"" + kSchema + "\"; measure again with bench/measure_site.py",
        path);
  }
  SiteRates rates;
  rates.source = "measured, " + path + " (" + reader.text("site") + ", " + reader.text("measured") + ")";
  if (json.value("file_system_is_assumed", formats::Json()) == true) rates.source += "; the file system's ceiling is assumed";
  rates.cores_per_node = static_cast<std::uint64_t>(std::max(1.0, std::floor(reader.positive("cores_per_node"))));
  rates.memory_per_node_bytes = reader.positive("memory_per_node_bytes");
  rates.read_bytes_per_second = reader.positive("read_bytes_per_second_per_node");
  rates.write_bytes_per_second = reader.positive("write_bytes_per_second_per_node");
  rates.file_system_bytes_per_second = reader.positive("file_system_bytes_per_second");
  rates.forward_flops_per_second_per_core = reader.positive("forward_flops_per_second_per_core");
  const auto combine = json.find("combine_bytes_per_second_per_core");
  if (combine == json.end() || !combine->is_object()) {
    reader.fail("has no object \"combine_bytes_per_second_per_core\" of rates by method");
  } else {
    rates.combine_bytes_per_second_per_core = reader.positive(*combine, "default");
    for (const auto& [method, rate] : combine->items()) rates.combine_of[method] = reader.positive(*combine, method);
  }
  reader.finish();
  return rates;
}

}  // namespace moeweld::plan
