//! Diameter S13 and S13' (3GPP TS 29.272, RFC 6733): the messages that the data plane answers itself.
//!
//! [`s13`] is the door: it takes whole messages, asks the verdict and writes answers. What it does not answer is punted
//! as bytes; the dictionary and the error answers live on the other side.

pub mod avp;
pub mod eca;
pub mod ecr;
pub mod framing;
pub mod limit;
pub mod s13;
pub mod terms;

/// Application id of S13 and S13' (3GPP TS 29.272 clause 7.1.8).
pub const APPLICATION_S13: u32 = 16_777_252;
/// 3GPP's vendor id.
pub const VENDOR_3GPP: u32 = 10_415;
/// ME-Identity-Check (3GPP TS 29.272 clause 7.2.2).
pub const COMMAND_ME_IDENTITY_CHECK: u32 = 324;
/// Capabilities-Exchange (RFC 6733 clause 5.3).
pub const COMMAND_CAPABILITIES_EXCHANGE: u32 = 257;
/// Disconnect-Peer (RFC 6733 clause 5.4).
pub const COMMAND_DISCONNECT_PEER: u32 = 282;
/// Device-Watchdog (RFC 6733 clause 5.5).
pub const COMMAND_DEVICE_WATCHDOG: u32 = 280;
