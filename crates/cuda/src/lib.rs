//! CUDA kernels, their build and the trampolines to CUDA's libraries. Of these there are the kernels.

pub mod kernels;
