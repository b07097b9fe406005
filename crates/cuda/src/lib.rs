//! CUDA kernels, their build and the trampolines to CUDA's libraries. Empty until they come.
