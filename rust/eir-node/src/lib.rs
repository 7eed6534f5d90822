//! The data plane.

pub mod load;
