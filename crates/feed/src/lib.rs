//! candlewick-feed
