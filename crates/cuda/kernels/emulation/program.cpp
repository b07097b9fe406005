// A program that runs kernels for a test. It reads requests from stdin, little endian, and answers on stdout:
//
// u32 length and name of the kernel; u32 grid x, y, z; u32 threads; u32 bytes of shared memory; u32 order; u64 seed;
// u32 number of arguments; each a byte of how (0 scalar, 1 buffer, 2 buffer that holds nothing, 3 null pointer, 4 the
// same buffer as an argument before) and a byte of type, then u64: the scalar, the size of the buffer in bytes, or the
// number of the other argument; for how 1 the contents follow.
// The answer is the contents of every buffer, in order.
#include "program.h"

#include <unistd.h>

#include <cstdio>
#include <map>

#include "shadow.h"

namespace emulation {
namespace {

struct Entry {
  const void* kernel;
  Invoke invoke;
};

// Made when first asked for: the kernels' files add to it before main.
std::map<std::string, Entry>& entries() {
  static std::map<std::string, Entry> entries;
  return entries;
}

bool read_all(void* to, std::size_t bytes) {
  return bytes == 0 || std::fread(to, 1, bytes, stdin) == bytes;
}

template <class T>
T read_value() {
  T value;
  if (!read_all(&value, sizeof value)) fail("the request ends early");
  return value;
}

bool serve() {
  std::uint32_t length;
  if (!read_all(&length, sizeof length)) return false;
  std::string name(length, '\0');
  if (!read_all(name.data(), length)) fail("the request ends early");
  Launch launch;
  launch.grid = read_value<Index>();
  launch.threads = read_value<std::uint32_t>();
  launch.shared_bytes = read_value<std::uint32_t>();
  launch.order = static_cast<Order>(read_value<std::uint32_t>());
  launch.seed = read_value<std::uint64_t>();
  std::vector<Argument> arguments(read_value<std::uint32_t>());
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const auto how = read_value<std::uint8_t>();
    const char kind = static_cast<char>(read_value<std::uint8_t>());
    const auto bits = read_value<std::uint64_t>();
    arguments[i] = {kind, how != 0, bits, nullptr, 0};
    if (how == 1 || how == 2) {
      std::vector<unsigned char> contents(how == 1 ? bits : 0);
      if (!read_all(contents.data(), contents.size())) fail("the request ends early");
      const std::string label = "argument " + std::to_string(i) + " of " + name;
      arguments[i].bytes = bits;
      arguments[i].memory = shadow::allocate(bits, how == 1 ? contents.data() : nullptr, label.c_str());
    }
    if (how == 4) {
      if (bits >= i) fail("argument %zu is the same as one after it", i);
      arguments[i].memory = arguments[bits].memory;
    }
  }
  const auto entry = entries().find(name);
  if (entry == entries().end()) fail("there is no kernel %s", name.c_str());
  entry->second.invoke(entry->second.kernel, launch, arguments);
  for (const Argument& argument : arguments) {
    if (argument.bytes > 0) std::fwrite(argument.memory, 1, argument.bytes, stdout);
  }
  std::fflush(stdout);
  shadow::release_all();
  return true;
}

}  // namespace

void add_kernel(const std::string& name, const void* kernel, Invoke invoke, InvokeUntyped) {
  if (!entries().emplace(name, Entry{kernel, invoke}).second) fail("two kernels are called %s", name.c_str());
}

}  // namespace emulation

int main() {
  while (emulation::serve()) {
  }
  return 0;
}
