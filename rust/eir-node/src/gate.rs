//! Which connections are let in at all, before an octet of them is read: where from, and how many.
//!
//! Called by the listeners. Who a connection is from is not known here, only where it comes from; the names are the
//! control plane's.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use crate::stats::Counter;

/// The share of unopened connections that one address may have is one in so many, but at least so many connections.
const UNOPENED_SHARE: usize = 4;
const LEAST_UNOPENED: usize = 8;

/// Addresses that share their first so many bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u32,
}

impl Network {
    /// Reads `10.0.0.0/8` or `2001:db8::/32`; `None` where it is neither.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let (address, prefix) = (address.parse().ok()?, prefix.parse().ok()?);
        let most = if matches!(address, IpAddr::V4(_)) { 32 } else { 128 };
        (prefix <= most).then_some(Self { address, prefix })
    }

    fn holds(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let different = own.to_bits() ^ other.to_bits();
                different.checked_shr(32 - self.prefix).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let different = own.to_bits() ^ other.to_bits();
                different.checked_shr(128 - self.prefix).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// What the gate goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateSettings {
    /// Where connections may come from; `None`: anywhere.
    pub networks: Option<Vec<Network>>,
    /// Connections at once.
    pub max_connections: usize,
    /// Connections from one address at once; of IPv6, from one /64.
    pub max_per_address: usize,
    /// Connections at once that have not exchanged capabilities yet.
    pub max_unopened: usize,
}

impl Default for GateSettings {
    /// Everybody, as many as there are descriptors.
    fn default() -> Self {
        let any = usize::MAX;
        Self { networks: None, max_connections: any, max_per_address: any, max_unopened: any }
    }
}

/// Why a connection is closed at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// No peer may connect from there.
    Address,
    /// Too many connections.
    Connections,
    /// Too many from this address.
    PerAddress,
    /// Too many that have not opened yet.
    Unopened,
    /// No descriptor, or no place in the queue of events.
    NoPlace,
}

impl Refused {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Address, Self::Connections, Self::PerAddress, Self::Unopened, Self::NoPlace];

    /// As counters call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Connections => "connections",
            Self::PerAddress => "per-address",
            Self::Unopened => "unopened",
            Self::NoPlace => "no-place",
        }
    }
}

#[derive(Debug, Default)]
struct Present {
    all: usize,
    unopened: usize,
    by_address: HashMap<IpAddr, Own>,
}

/// Connections from one address.
#[derive(Debug, Default)]
struct Own {
    all: usize,
    unopened: usize,
}

/// The gate.
#[derive(Debug, Default)]
pub struct Gate {
    settings: ArcSwap<GateSettings>,
    present: Mutex<Present>,
    refused: [Counter; Refused::ALL.len()],
}

impl Gate {
    /// Puts other settings in force; who is in stays in.
    pub fn set(&self, settings: GateSettings) {
        self.settings.store(Arc::new(settings));
    }

    /// Counts a connection that was closed at once.
    pub fn refuse(&self, why: Refused) {
        if let Some(counter) = self.refused.get(why as usize) {
            counter.add(1);
        }
    }

    /// (why, how many) of the connections that were closed at once.
    #[must_use]
    pub fn refused(&self) -> Vec<(&'static str, u64)> {
        Refused::ALL.iter().zip(&self.refused).map(|(why, counter)| (why.name(), counter.get())).collect()
    }

    /// A place for a connection from that address.
    ///
    /// # Errors
    /// Why there is none; it is counted.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Place, Refused> {
        let address = counted_as(address);
        let entered = self.try_enter(address);
        if let Err(why) = entered {
            self.refuse(why);
        }
        entered.map(|()| Place { gate: Arc::clone(self), key: shared(address), opened: false })
    }

    fn try_enter(&self, address: IpAddr) -> Result<(), Refused> {
        let settings = self.settings.load();
        if settings.networks.as_ref().is_some_and(|networks| !networks.iter().any(|one| one.holds(address))) {
            return Err(Refused::Address);
        }
        let mut present = self.present();
        if present.all >= settings.max_connections {
            return Err(Refused::Connections);
        }
        if present.unopened >= settings.max_unopened {
            return Err(Refused::Unopened);
        }
        // One address must not hold all the places of those that have said nothing yet.
        let most_unopened = (settings.max_unopened / UNOPENED_SHARE).max(LEAST_UNOPENED);
        let own = present.by_address.entry(shared(address)).or_default();
        if own.all >= settings.max_per_address || own.unopened >= most_unopened {
            return Err(Refused::PerAddress);
        }
        own.all += 1;
        own.unopened += 1;
        present.all += 1;
        present.unopened += 1;
        Ok(())
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An IPv4 peer of a socket that takes both kinds is an IPv4 peer.
fn counted_as(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Who has one address of a /64 has all of them.
fn shared(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
    }
}

/// A connection's place, given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    gate: Arc<Gate>,
    /// What it is counted under.
    key: IpAddr,
    opened: bool,
}

impl Place {
    /// Capabilities are exchanged.
    pub fn open(&mut self) {
        if !std::mem::replace(&mut self.opened, true) {
            let mut present = self.gate.present();
            present.unopened -= 1;
            if let Some(own) = present.by_address.get_mut(&self.key) {
                own.unopened -= 1;
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open();
        let mut present = self.gate.present();
        present.all -= 1;
        if let Some(own) = present.by_address.get_mut(&self.key) {
            own.all -= 1;
            if own.all == 0 {
                present.by_address.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail loudly")]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn networks_hold_what_begins_like_them() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.1.2", "11.0.0.0"),
            ("192.0.2.1/32", "192.0.2.1", "192.0.2.2"),
            ("0.0.0.0/0", "255.1.2.3", "::1"),
            ("2001:db8::/33", "2001:db8::1", "2001:db8:8000::1"),
            ("::/0", "ffff::1", "1.2.3.4"),
        ] {
            let network = Network::parse(network).unwrap();
            assert!(network.holds(address(inside)) && !network.holds(address(outside)), "{network:?}");
        }
        for wrong in ["10.0.0.0", "10.0.0.0/33", "::/129", "x/8", "10.0.0.0/-1", ""] {
            assert_eq!(Network::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn each_cap_is_kept_and_a_place_comes_back() {
        let gate = Arc::new(Gate::default());
        let networks = Some(vec![Network::parse("10.0.0.0/8").unwrap(), Network::parse("2001:db8::/32").unwrap()]);
        gate.set(GateSettings { networks, max_connections: 4, max_per_address: 2, max_unopened: 3 });
        assert_eq!(gate.enter(address("127.0.0.1")).err(), Some(Refused::Address));
        let mut first = gate.enter(address("10.0.0.1")).unwrap();
        let second = gate.enter(address("::ffff:10.0.0.1")).unwrap();
        assert_eq!(gate.enter(address("10.0.0.1")).err(), Some(Refused::PerAddress));
        let third = gate.enter(address("2001:db8::1")).unwrap();
        assert_eq!(gate.enter(address("10.0.0.9")).err(), Some(Refused::Unopened));
        first.open();
        first.open();
        let mut fourth = gate.enter(address("2001:db8::2")).unwrap();
        fourth.open();
        assert_eq!(gate.enter(address("10.0.0.9")).err(), Some(Refused::Connections));
        drop(second);
        assert_eq!(gate.enter(address("2001:db8::3")).err(), Some(Refused::PerAddress), "one /64 is one address");
        drop((first, third, fourth));
        let present = gate.present();
        assert_eq!((present.all, present.unopened, present.by_address.len()), (0, 0, 0));
        let refused: Vec<_> = gate.refused().into_iter().map(|(_, count)| count).collect();
        assert_eq!(refused, [1, 1, 2, 1, 0]);
    }

    #[test]
    fn one_address_cannot_hold_all_places_of_those_that_have_said_nothing() {
        let gate = Arc::new(Gate::default());
        gate.set(GateSettings { max_unopened: 40, ..GateSettings::default() });
        let mut places: Vec<_> = (0..10).map(|_| gate.enter(address("10.0.0.1")).unwrap()).collect();
        assert_eq!(gate.enter(address("10.0.0.1")).err(), Some(Refused::PerAddress));
        places[0].open();
        let _another = gate.enter(address("10.0.0.1")).unwrap();
        let _others: Vec<_> = (0..10).map(|_| gate.enter(address("10.0.0.2")).unwrap()).collect();
        drop(places);
        assert!(gate.enter(address("10.0.0.1")).is_ok());
    }
}
