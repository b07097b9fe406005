// A block of threads on one thread of the host: what a kernel asks of the machine while it runs.
//
// Every mistake that is found ends the program with a line on stderr and exit status 3.
#pragma once

#include <cstddef>
#include <cstdint>

namespace emulation {

struct Index {
  unsigned x, y, z;
};

// Where in the sources a thread waits.
struct Site {
  const char* file;
  int line;
};

// In which order the threads of a block run between two barriers. A kernel without races gives bitwise the same
// results in all of them.
enum class Order : unsigned { forward, reverse, shuffled, fine };

Index thread_index();
Index block_index();
Index block_size();
Index grid_size();
void* shared_memory();

// Waits for all threads of the block. Threads that wait at different places, or end while others wait, are a mistake.
void block_barrier(Site site);
// Waits for the warp's 32 lanes, and orders what they did to memory.
void warp_barrier(Site site);

// The instructions of a whole warp. They wait for all lanes but, as on the device, order nothing in memory.
std::uint64_t shuffle_xor(unsigned lanes, std::uint64_t value, int mask, Site site);
void load_matrices(unsigned (&words)[4], const void* row, bool transposed, Site site);
void multiply_add(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, Site site);

// Copies to shared memory that arrive at the thread's next wait; until then the target holds nothing.
void copy_async(void* shared, const void* source, unsigned bytes, bool valid);
void copy_async_wait();

// Who runs now, for the record of accesses (shadow.h).
struct Now {
  std::uint32_t block;       // counted over all launches
  std::uint32_t epoch;       // barriers of the block so far
  std::uint32_t warp_epoch;  // barriers of the warp so far
  std::uint32_t thread;
};
Now now();
// Whether a kernel's thread runs, rather than the program around it.
bool in_kernel();
// In Order::fine: lets another thread run now and then.
void maybe_yield();

// Runs a kernel: `body` once for each thread of each block. Blocks run one after the other, each with `shared_bytes`
// of shared memory that hold nothing.
struct Launch {
  Index grid;
  unsigned threads;
  std::size_t shared_bytes;
  Order order;
  std::uint64_t seed;
};
void run(const Launch& launch, void (*body)(void*), void* context);

[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

}  // namespace emulation
