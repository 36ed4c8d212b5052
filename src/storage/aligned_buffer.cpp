#include <sys/mman.h>

#include <new>
#include <utility>

#include "moeweld/base/checked.h"
#include "moeweld/storage/storage.h"

namespace moeweld {
namespace {

constexpr std::size_t kHugePageBytes = 2 * kMiB;

std::size_t alignment_of(std::size_t size_bytes) { return size_bytes >= kHugePageBytes ? kHugePageBytes : kDirectAlignment; }

}  // namespace

AlignedBuffer::AlignedBuffer(std::size_t size_bytes) : size_(size_bytes) {
  if (size_bytes == 0) return;
  const std::size_t alignment = alignment_of(size_bytes);
  data_ = static_cast<std::byte*>(::operator new(size_bytes, std::align_val_t{alignment}));
  // Advice: without huge pages the buffer is merely slower.
  if (alignment == kHugePageBytes) static_cast<void>(madvise(data_, round_down(size_bytes, kHugePageBytes), MADV_HUGEPAGE));
}

AlignedBuffer::~AlignedBuffer() {
  if (data_ != nullptr) ::operator delete(data_, std::align_val_t{alignment_of(size_)});
}

AlignedBuffer::AlignedBuffer(AlignedBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

AlignedBuffer& AlignedBuffer::operator=(AlignedBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

}  // namespace moeweld
