//! candlewick-model
