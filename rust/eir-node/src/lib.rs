//! The data plane: sockets and threads around `eir_core`, and the load generator.
//!
//! [`node::Node`] is a running data plane. With the feature `python` this crate is the extension module `eir._core`.

pub mod connection;
pub mod events;
pub mod gate;
pub mod image_file;
pub mod journal_reader;
pub mod journal_writer;
pub mod list_file;
pub mod load;
pub mod node;
pub mod pairs_file;
pub mod peers;
mod pieces;
pub mod priority;
#[cfg(feature = "python")]
mod python;
pub mod snapshot_file;
pub mod stats;
pub mod tls;
pub mod trace;
pub mod wake;
