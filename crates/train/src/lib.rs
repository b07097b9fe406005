//! candlewick-train
