//! candlewick-tokenizer
