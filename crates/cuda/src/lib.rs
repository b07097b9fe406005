//! candlewick-cuda
