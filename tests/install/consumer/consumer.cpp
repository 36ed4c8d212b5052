// Merges two small models through the installed libraries: config, plan, schedule, execution and verification, without MPI.
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "moeweld/base/peers.h"
#include "moeweld/exec/execute.h"
#include "moeweld/formats/safetensors.h"
#include "moeweld/merge/method.h"
#include "moeweld/plan/planner.h"
#include "moeweld/plan/schedule.h"
#include "moeweld/verify/verify.h"

namespace {

namespace fs = std::filesystem;

void write_model(const fs::path& directory, float value) {
  fs::create_directories(directory);
  std::ofstream(directory / "config.json") << R"({"architectures": ["ConsumerModel"], "model_type": "consumer"})";
  const moeweld::formats::TensorLayout tensor{"layers.0.weight", moeweld::DType::kF32, {4, 8}};
  std::ofstream file(directory / "model.safetensors", std::ios::binary);
  file << moeweld::formats::serialize_safetensors_header({&tensor, 1});
  for (int i = 0; i < 32; ++i) file.write(reinterpret_cast<const char*>(&value), sizeof value);
}

std::vector<moeweld::config::MethodInfo> known_methods() {
  std::vector<moeweld::config::MethodInfo> result;
  for (const moeweld::merge::MethodRow& row : moeweld::merge::method_table()) {
    moeweld::config::MethodInfo info;
    info.name = row.name;
    for (const auto& parameter : row.shared_parameters) info.parameters.push_back({std::string(parameter.name), false});
    for (const auto& parameter : row.model_parameters) info.parameters.push_back({std::string(parameter.name), true});
    result.push_back(info);
  }
  return result;
}

float first_value(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::uint64_t header_length = 0;
  file.read(reinterpret_cast<char*>(&header_length), sizeof header_length);
  file.seekg(static_cast<std::streamoff>(8 + header_length));
  float value = 0;
  file.read(reinterpret_cast<char*>(&value), sizeof value);
  return value;
}

}  // namespace

int main() try {
  const fs::path work = fs::temp_directory_path() / ("moeweld-consumer-" + std::to_string(::getpid()));
  fs::remove_all(work);
  write_model(work / "a", 1.0F);
  write_model(work / "b", 4.0F);
  const std::string yaml = "merge_method: linear\nmodels:\n  - model: " + (work / "a").string() +
                           "\n    parameters: {weight: 2}\n  - model: " + (work / "b").string() + "\n    parameters: {weight: 1}\n";

  const auto config = moeweld::config::parse_config(yaml, "consumer.yml", known_methods(), {});
  const auto storage = moeweld::make_posix_storage();
  moeweld::plan::ModelSource models(*storage, {});
  const auto plan = moeweld::plan::make_plan(config, models, {});
  const auto schedule = moeweld::plan::make_schedule(plan, 1);
  const auto peers = moeweld::make_single_peer();
  const std::string out = (work / "out").string();
  moeweld::exec::execute(*peers, *storage, plan, schedule, out, {}, {});
  const auto report = moeweld::verify::verify(*peers, *storage, out, 1, {});
  const float value = first_value(work / "out" / "model.safetensors");
  fs::remove_all(work);
  std::cout << report.num_tensors << " tensor, value " << value << "\n";
  return report.num_tensors == 1 && value == 2.0F ? 0 : 1;  // (2 * 1 + 1 * 4) / 3
} catch (const std::exception& error) {
  std::cerr << error.what() << "\n";
  return 1;
}
