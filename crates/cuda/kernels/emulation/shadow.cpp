#include "shadow.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "block.h"

namespace emulation::shadow {

#ifdef CANDLEWICK_SHADOW

namespace {

constexpr unsigned WARP = 32;
constexpr std::size_t GRANULE = 2;
constexpr std::size_t GAP = 4096;
constexpr std::size_t ARENA = std::size_t{1} << 30;

// One access, or the common trace of several reads that no barrier divides.
struct Access {
  std::uint32_t block = 0, epoch = 0, warp_epoch = 0;
  std::uint16_t thread = 0;
  enum Kind : std::uint8_t { none, thread_alone, in_warp, in_block, in_blocks } kind = none;
};

struct Granule {
  Access written, read;
  bool holds = false, copied_to = false;
};

struct Region {
  std::string name;
  unsigned char* start;
  std::size_t bytes;
  bool shared;
  std::vector<Granule> granules;
};

std::uint32_t first_block = 1;  // of this launch
std::vector<Region> buffers;
Region block_memory = {"shared memory", nullptr, 0, true, {}};
unsigned char* arena = nullptr;
std::size_t used = 0;

void reserve() {
  if (arena != nullptr) return;
  void* memory = mmap(nullptr, ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) abort();
  arena = static_cast<unsigned char*>(memory);
  used = GAP;
}

unsigned char* take(std::size_t bytes) {
  reserve();
  if (used + bytes + GAP > ARENA) fail("the emulation's memory is full");
  unsigned char* memory = arena + used;
  used += (bytes + GAP + 255) / 256 * 256;
  return memory;
}

// Whether something stands between an access and now, so that everybody sees its effect.
bool ordered(const Access& access, const Now& now) {
  if (access.kind == Access::none || access.block < first_block) return true;
  if (access.kind == Access::in_blocks || access.block != now.block) return false;
  if (access.epoch < now.epoch) return true;
  if (access.kind == Access::in_block) return false;
  if (access.kind == Access::thread_alone && access.thread == now.thread) return true;
  return access.thread / WARP == now.thread / WARP && access.warp_epoch < now.warp_epoch;
}

Access alone(const Now& now) {
  return {now.block, now.epoch, now.warp_epoch, static_cast<std::uint16_t>(now.thread), Access::thread_alone};
}

Access joined(const Access& access, const Now& now) {
  if (ordered(access, now)) return alone(now);
  Access both = alone(now);
  if (access.kind == Access::in_blocks || access.block != now.block) both.kind = Access::in_blocks;
  else if (access.kind == Access::in_block || access.thread / WARP != now.thread / WARP) both.kind = Access::in_block;
  else both.kind = Access::in_warp;
  return both;
}

Region* region(const unsigned char* at) {
  if (at < arena || at >= arena + ARENA) return nullptr;
  if (block_memory.start != nullptr && at >= block_memory.start && at < block_memory.start + block_memory.bytes) {
    return &block_memory;
  }
  for (Region& buffer : buffers) {
    if (at >= buffer.start && at < buffer.start + buffer.bytes) return &buffer;
  }
  // In a gap: name what lies before it.
  const Region* before = nullptr;
  const auto consider = [&](const Region& region) {
    if (region.start != nullptr && region.start <= at && (before == nullptr || region.start > before->start)) {
      before = &region;
    }
  };
  for (const Region& buffer : buffers) consider(buffer);
  consider(block_memory);
  if (before == nullptr) fail("out of bounds: before the first buffer");
  fail("out of bounds: byte %zu of %s, which has %zu", static_cast<std::size_t>(at - before->start),
       before->name.c_str(), before->bytes);
}

template <class F>
void each(const void* pointer, std::size_t bytes, F visit) {
  const auto* at = static_cast<const unsigned char*>(pointer);
  Region* found = region(at);
  if (found == nullptr || bytes == 0) return;
  const std::size_t offset = at - found->start;
  if (offset + bytes > found->bytes) {
    fail("out of bounds: bytes %zu to %zu of %s, which has %zu", offset, offset + bytes, found->name.c_str(),
         found->bytes);
  }
  if (offset % GRANULE != 0 || bytes % GRANULE != 0) fail("an access of %zu bytes at an odd address", bytes);
  for (std::size_t i = offset / GRANULE; i < (offset + bytes) / GRANULE; ++i) {
    visit(found->granules[i], *found, i * GRANULE);
  }
}

[[noreturn]] void race(const char* what, const Access& other, const Region& region, std::size_t offset) {
  const char* whom[] = {"nobody", "thread", "several lanes, one of them", "several threads, one of them",
                        "several blocks, one of them in thread"};
  fail("race: %s byte %zu of %s with no barrier since %s %u (block number %u) %s it", what, offset, region.name.c_str(),
       whom[other.kind], static_cast<unsigned>(other.thread), other.block - first_block,
       std::strcmp(what, "reads") == 0 ? "wrote" : "touched");
}

}  // namespace

void* allocate(std::size_t bytes, const void* contents, const char* name) {
  unsigned char* memory = take(bytes);
  buffers.push_back({name, memory, bytes, false, std::vector<Granule>((bytes + GRANULE - 1) / GRANULE)});
  if (contents != nullptr) {
    std::memcpy(memory, contents, bytes);
    for (Granule& granule : buffers.back().granules) granule.holds = true;
  } else {
    std::memset(memory, 0xFF, bytes);
  }
  return memory;
}

void release_all() {
  buffers.clear();
  block_memory = {"shared memory", nullptr, 0, true, {}};
  used = GAP;
}

void begin_launch() { first_block = now().block + 1; }

void* begin_block(std::size_t shared_bytes) {
  if (block_memory.start == nullptr || block_memory.bytes != shared_bytes) {
    block_memory.start = take(shared_bytes);
    block_memory.bytes = shared_bytes;
  }
  block_memory.granules.assign(shared_bytes / GRANULE, Granule());
  std::memset(block_memory.start, 0xFF, shared_bytes);
  return block_memory.start;
}

void read(const void* at, std::size_t bytes) {
  if (!in_kernel()) return;
  const Now time = now();
  each(at, bytes, [&](Granule& granule, const Region& region, std::size_t offset) {
    if (granule.copied_to) {
      fail("asynchrony: reads byte %zu of %s before its copy has been waited for", offset, region.name.c_str());
    }
    if (!granule.holds) fail("uninitialised: reads byte %zu of %s", offset, region.name.c_str());
    if (!ordered(granule.written, time)) race("reads", granule.written, region, offset);
    granule.read = joined(granule.read, time);
  });
}

void write(const void* at, std::size_t bytes) {
  if (!in_kernel()) return;
  const Now time = now();
  each(at, bytes, [&](Granule& granule, const Region& region, std::size_t offset) {
    if (granule.copied_to) {
      fail("asynchrony: writes byte %zu of %s before its copy has been waited for", offset, region.name.c_str());
    }
    if (!ordered(granule.written, time)) race("writes", granule.written, region, offset);
    if (!ordered(granule.read, time)) race("writes", granule.read, region, offset);
    granule.written = alone(time);
    granule.read = Access();
    granule.holds = true;
  });
}

void copy_begins(const void* at, std::size_t bytes) {
  each(at, bytes, [](Granule& granule, const Region& region, std::size_t) {
    if (!region.shared) fail("an asynchronous copy to %s", region.name.c_str());
    granule.copied_to = true;
  });
}

void copy_arrives(const void* at, std::size_t bytes) {
  const Now time = now();
  each(at, bytes, [&](Granule& granule, const Region&, std::size_t) {
    granule.copied_to = false;
    granule.written = alone(time);
  });
}

#else

namespace {
std::vector<void*> buffers;
void* block_memory = nullptr;
std::size_t block_bytes = 0;

// Not a byte more, so that AddressSanitizer finds the first one past.
void* exactly(std::size_t bytes) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 16, bytes) != 0) abort();
  return memory;
}
}  // namespace

void* allocate(std::size_t bytes, const void* contents, const char*) {
  void* memory = exactly(bytes);
  buffers.push_back(memory);
  if (contents != nullptr) std::memcpy(memory, contents, bytes);
  else std::memset(memory, 0xFF, bytes);
  return memory;
}

void release_all() {
  for (void* memory : buffers) free(memory);
  buffers.clear();
}

void* begin_block(std::size_t shared_bytes) {
  if (block_memory == nullptr || block_bytes != shared_bytes) {
    free(block_memory);
    block_memory = exactly(shared_bytes);
    block_bytes = shared_bytes;
  }
  std::memset(block_memory, 0xFF, shared_bytes);
  return block_memory;
}

#endif

}  // namespace emulation::shadow

#ifdef CANDLEWICK_SHADOW

// What the compiler calls before each access of a kernel.
namespace {
void reads(const void* at, std::size_t bytes) {
  if (!emulation::in_kernel()) return;
  emulation::maybe_yield();
  emulation::shadow::read(at, bytes);
}
void writes(const void* at, std::size_t bytes) {
  if (!emulation::in_kernel()) return;
  emulation::maybe_yield();
  emulation::shadow::write(at, bytes);
}
}  // namespace

#define REPORTED(bytes)                                                  \
  void __tsan_read##bytes(void* at) { reads(at, bytes); }                \
  void __tsan_write##bytes(void* at) { writes(at, bytes); }              \
  void __tsan_unaligned_read##bytes(void* at) { reads(at, bytes); }      \
  void __tsan_unaligned_write##bytes(void* at) { writes(at, bytes); }

extern "C" {
REPORTED(1)
REPORTED(2)
REPORTED(4)
REPORTED(8)
REPORTED(16)
void __tsan_read_range(void* at, unsigned long bytes) { reads(at, bytes); }
void __tsan_write_range(void* at, unsigned long bytes) { writes(at, bytes); }
void* __tsan_memcpy(void* to, const void* from, unsigned long bytes) {
  reads(from, bytes), writes(to, bytes);
  return std::memcpy(to, from, bytes);
}
void* __tsan_memmove(void* to, const void* from, unsigned long bytes) {
  reads(from, bytes), writes(to, bytes);
  return std::memmove(to, from, bytes);
}
void* __tsan_memset(void* to, int value, unsigned long bytes) {
  writes(to, bytes);
  return std::memset(to, value, bytes);
}
void __tsan_vptr_read(void**) {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
}

#endif
