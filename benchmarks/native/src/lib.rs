//! What the benchmark programs share: their arguments, the processor that they run on, the devices that they are
//! about and what is asked of them.

pub mod arguments;
pub mod lists;
pub mod messages;
pub mod processor;
