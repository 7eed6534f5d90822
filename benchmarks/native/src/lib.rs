//! What the benchmark programs share: their arguments, the processor that they run on, and the devices that they are
//! about.

pub mod arguments;
pub mod lists;
pub mod processor;
