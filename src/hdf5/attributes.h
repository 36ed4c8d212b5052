#pragma once
/// Attributes that hold a text or a number.

#include <hdf5.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace moeweld::hdf5 {

/// UTF-8 of fixed length.
void write_text(hid_t object, const std::string& name, std::string_view text, const std::string& path);

/// As NAME, NAME.1, NAME.2, … where it is longer than an attribute may be; not at all where it is longer than kLongestText.
void write_long_text(hid_t object, const std::string& name, std::string_view text, const std::string& path);

/// Longer texts are only in the manifest: the metadata of a checkpoint in HDF5 has a fixed size (plan/output_layout.cpp).
constexpr std::size_t kLongestText = 128 * 1024;

void write_number(hid_t object, const std::string& name, std::int64_t number, const std::string& path);

/// Of a file that nobody vouches for. Throws Error(kInvalidInput) where there is no such attribute, or no valid UTF-8 of fixed length.
std::string read_text(hid_t object, const std::string& name, const std::string& path);
/// With its continuations; empty if there is none.
std::string read_long_text(hid_t object, const std::string& name, const std::string& path);
std::int64_t read_number(hid_t object, const std::string& name, const std::string& path);

}  // namespace moeweld::hdf5
