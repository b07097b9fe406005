// CUDA's driver on the host, for tests of whole programs: one GPU whose memory is the host's and whose kernels are those
// of this folder, compiled with it. A stream does what it is given at once. CANDLEWICK_EMULATED_BYTES is the GPU's memory,
// CANDLEWICK_EMULATED_TAKEN what others have of it, CANDLEWICK_EMULATED_LARGEST the most that it gives at once. What a test's
// program calls beyond this gives an error.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "program.h"

namespace {

struct Kernel {
  const void* kernel;
  emulation::InvokeUntyped invoke;
};

// Made when first asked for: the kernels' files add to it when the library is loaded.
std::map<std::string, Kernel>& kernels() {
  static std::map<std::string, Kernel> kernels;
  return kernels;
}

enum : int { kSuccess = 0, kInvalidValue = 1, kOutOfMemory = 2, kNotFound = 500 };

std::mutex& mutex() {
  static std::mutex mutex;
  return mutex;
}

std::map<std::uint64_t, std::size_t>& blocks() {
  static std::map<std::uint64_t, std::size_t> blocks;
  return blocks;
}

std::size_t bytes_of(const char* variable, std::size_t otherwise) {
  const char* text = std::getenv(variable);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

std::size_t total_bytes() { return bytes_of("CANDLEWICK_EMULATED_BYTES", std::size_t{8} << 30); }

std::size_t free_bytes() {
  std::size_t used = bytes_of("CANDLEWICK_EMULATED_TAKEN", 0);
  for (const auto& block : blocks()) used += block.second;
  return used < total_bytes() ? total_bytes() - used : 0;
}

int allocate(std::uint64_t* address, std::size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex());
  void* memory = nullptr;
  if (bytes > bytes_of("CANDLEWICK_EMULATED_LARGEST", SIZE_MAX)) return kOutOfMemory;
  if (bytes > free_bytes() || posix_memalign(&memory, 256, bytes == 0 ? 256 : bytes) != 0) return kOutOfMemory;
  // What nobody wrote is not a number.
  std::memset(memory, 0xFF, bytes);
  *address = reinterpret_cast<std::uint64_t>(memory);
  blocks()[*address] = bytes;
  return kSuccess;
}

int release(std::uint64_t address) {
  const std::lock_guard<std::mutex> lock(mutex());
  if (blocks().erase(address) == 0) return kInvalidValue;
  std::free(reinterpret_cast<void*>(address));
  return kSuccess;
}

// Whether all of these bytes are in one block.
bool inside(std::uint64_t address, std::size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex());
  auto after = blocks().upper_bound(address);
  if (after == blocks().begin()) return false;
  --after;
  return address + bytes <= after->first + after->second;
}

void* at(std::uint64_t address) { return reinterpret_cast<void*>(address); }

// Something to point to: streams, contexts, events and modules have nothing inside.
int one;
int make(void** handle) {
  *handle = &one;
  return kSuccess;
}

thread_local void* current = nullptr;

}  // namespace

namespace emulation {

void add_kernel(const std::string& name, const void* kernel, Invoke, InvokeUntyped invoke) {
  kernels()[name] = Kernel{kernel, invoke};
}

}  // namespace emulation

extern "C" {

int cuInit(unsigned) { return kSuccess; }
int cuDriverGetVersion(int* version) { return *version = 13000, kSuccess; }
int cuGetErrorString(int code, const char** text) {
  *text = code == kOutOfMemory ? "out of memory" : "an error of the emulated driver";
  return kSuccess;
}
int cuDeviceGetCount(int* count) { return *count = 1, kSuccess; }
int cuDeviceGet(int* device, int ordinal) { return *device = ordinal, ordinal == 0 ? kSuccess : 101; }
int cuDeviceGetName(char* name, int length, int) {
  std::snprintf(name, static_cast<std::size_t>(length), "Emulated GPU");
  return kSuccess;
}
int cuDeviceGetAttribute(int* value, int attribute, int) {
  // Compute capability 9.0, and no pools of memory.
  *value = attribute == 75 ? 9 : 0;
  return kSuccess;
}
int cuDeviceTotalMem_v2(std::size_t* bytes, int) { return *bytes = total_bytes(), kSuccess; }

int cuDevicePrimaryCtxRetain(void** context, int) { return make(context); }
int cuDevicePrimaryCtxRelease_v2(int) { return kSuccess; }
int cuCtxSetCurrent(void* context) { return current = context, kSuccess; }
int cuCtxGetCurrent(void** context) { return *context = current, kSuccess; }
int cuCtxPushCurrent_v2(void* context) { return current = context, kSuccess; }
int cuCtxPopCurrent_v2(void** context) { return *context = current, current = nullptr, kSuccess; }
int cuCtxSynchronize() { return kSuccess; }

int cuStreamCreate(void** stream, unsigned) { return make(stream); }
int cuStreamDestroy_v2(void*) { return kSuccess; }
int cuStreamSynchronize(void*) { return kSuccess; }
int cuStreamWaitEvent(void*, void*, unsigned) { return kSuccess; }
int cuEventCreate(void** event, unsigned) { return make(event); }
int cuEventDestroy_v2(void*) { return kSuccess; }
int cuEventRecord(void*, void*) { return kSuccess; }
int cuEventSynchronize(void*) { return kSuccess; }
int cuEventQuery(void*) { return kSuccess; }

int cuMemGetInfo_v2(std::size_t* free, std::size_t* total) {
  if (current == nullptr) return 201;
  const std::lock_guard<std::mutex> lock(mutex());
  return *free = free_bytes(), *total = total_bytes(), kSuccess;
}
int cuMemAlloc_v2(std::uint64_t* address, std::size_t bytes) { return allocate(address, bytes); }
int cuMemAllocAsync(std::uint64_t* address, std::size_t bytes, void*) { return allocate(address, bytes); }
int cuMemFree_v2(std::uint64_t address) { return release(address); }
int cuMemFreeAsync(std::uint64_t address, void*) { return release(address); }
int cuMemHostAlloc(void** memory, std::size_t bytes, unsigned) {
  return *memory = std::malloc(bytes), *memory == nullptr ? kOutOfMemory : kSuccess;
}
int cuMemFreeHost(void* memory) { return std::free(memory), kSuccess; }
int cuMemcpyHtoDAsync_v2(std::uint64_t to, const void* from, std::size_t bytes, void*) {
  if (!inside(to, bytes)) return kInvalidValue;
  return std::memcpy(at(to), from, bytes), kSuccess;
}
int cuMemcpyDtoHAsync_v2(void* to, std::uint64_t from, std::size_t bytes, void*) {
  if (!inside(from, bytes)) return kInvalidValue;
  return std::memcpy(to, at(from), bytes), kSuccess;
}
int cuMemcpyDtoDAsync_v2(std::uint64_t to, std::uint64_t from, std::size_t bytes, void*) {
  if (!inside(to, bytes) || !inside(from, bytes)) return kInvalidValue;
  return std::memcpy(at(to), at(from), bytes), kSuccess;
}
int cuMemsetD8Async(std::uint64_t to, unsigned char value, std::size_t bytes, void*) {
  if (!inside(to, bytes)) return kInvalidValue;
  return std::memset(at(to), value, bytes), kSuccess;
}

int cuModuleLoadData(void** module, const void*) { return make(module); }
int cuModuleUnload(void*) { return kSuccess; }
int cuModuleGetFunction(void** function, void*, const char* name) {
  const auto found = kernels().find(name);
  if (found == kernels().end()) return kNotFound;
  return *function = &found->second, kSuccess;
}
int cuFuncSetAttribute(void*, int, int) { return kSuccess; }
int cuLaunchKernel(void* function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned threads_y,
                   unsigned threads_z, unsigned shared, void*, void** arguments, void**) {
  if (threads_y != 1 || threads_z != 1) return kInvalidValue;
  const Kernel& kernel = *static_cast<const Kernel*>(function);
  emulation::Launch launch;
  launch.grid = {x, y, z};
  launch.threads = threads;
  launch.shared_bytes = shared;
  launch.order = emulation::Order::forward;
  launch.seed = 0;
  kernel.invoke(kernel.kernel, launch, arguments);
  return kSuccess;
}

}  // extern "C"
