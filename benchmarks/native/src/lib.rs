//! What the benchmark programs share: their arguments, the processor that they run on, the devices that they are
//! about and what is asked of them, and sets of IMEIs as large as a country's.

pub mod arguments;
pub mod lists;
pub mod messages;
pub mod processor;
pub mod test_sets;
