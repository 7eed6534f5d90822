//! What the benchmark programs share: their arguments and the processor that they run on.

pub mod arguments;
pub mod processor;
