//! candlewick-node
