//! The pure half of the node.
//!
//! Everything the answer to "may this device use the network?" depends on, and nothing else: identities ([`imei`]),
//! the lists ([`lists`]), the grey table ([`grey`]) and its [`image`], the rules ([`policy`], [`verdict`]), the journal's
//! records ([`journal`]), what was seen and answered ([`in_use`], [`recent`]) and Diameter S13 ([`diameter`]). No module
//! here opens a socket or a file, reads a clock or knows Python; bytes and `now` come in, bytes and decisions go out.
//!
//! A packet's way through this crate:
//! `diameter::framing -> diameter::ecr -> verdict (policy, lists, grey table) -> diameter::eca`.

pub mod diameter;
pub mod grey;
pub mod image;
pub mod imei;
pub mod in_use;
pub mod journal;
pub mod lists;
pub mod policy;
pub mod recent;
mod scatter;
pub mod table;
pub mod verdict;

/// Seconds since 1970-01-01T00:00:00Z. Good until 2106; four bytes because there are millions of timers.
pub type UnixTime = u32;
