// The record of who touched each two bytes of memory, which finds races, reads of memory that holds nothing, and
// accesses outside of every buffer.
//
// The compiler reports accesses: kernels compiled with -fsanitize=thread call __tsan_read4 and its kin, which
// shadow.cpp defines instead of ThreadSanitizer's library. Without that flag the record is not kept, and
// AddressSanitizer watches the bounds.
#pragma once

#include <cstddef>
#include <cstdint>

namespace emulation::shadow {

#ifdef CANDLEWICK_SHADOW

// Memory for a buffer, filled or (null) holding nothing, with a gap behind it.
void* allocate(std::size_t bytes, const void* contents, const char* name);
void release_all();
// All accesses before this are over.
void begin_launch();
// Shared memory of a block that begins: it holds nothing.
void* begin_block(std::size_t shared_bytes);
void read(const void* at, std::size_t bytes);
void write(const void* at, std::size_t bytes);
// An asynchronous copy to here is under way, and has arrived.
void copy_begins(const void* at, std::size_t bytes);
void copy_arrives(const void* at, std::size_t bytes);

#else

void* allocate(std::size_t bytes, const void* contents, const char* name);
void release_all();
void* begin_block(std::size_t shared_bytes);
inline void begin_launch() {}
inline void read(const void*, std::size_t) {}
inline void write(const void*, std::size_t) {}
inline void copy_begins(const void*, std::size_t) {}
inline void copy_arrives(const void*, std::size_t) {}

#endif

}  // namespace emulation::shadow
