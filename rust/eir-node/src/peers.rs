//! What all connections of a peer share: its terms, its limit, its counters.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use eir_core::diameter::limit::Limiter;
use eir_core::diameter::terms::Terms;

use crate::stats::{PeerStats, Stats};

/// Peers that are remembered although they have neither connections nor terms of their own.
const MOST_IDLE: usize = 1_000;

/// One peer.
#[derive(Debug, Default)]
pub struct Peer {
    /// Its Origin-Host, as it first wrote it.
    pub name: String,
    /// Its terms, replaced whole.
    pub terms: ArcSwap<Terms>,
    /// Its requests.
    pub limiter: Limiter,
    /// Its counters; peers above a number share theirs.
    pub stats: Arc<PeerStats>,
}

/// The peers by name.
#[derive(Debug, Default)]
pub struct Peers(Mutex<HashMap<String, (Arc<Peer>, bool)>>);

impl Peers {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, (Arc<Peer>, bool)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The peer of that name, which is compared without regard to case.
    #[must_use]
    pub fn get(&self, name: &str, stats: &Stats) -> Arc<Peer> {
        let mut peers = self.lock();
        let key = name.to_ascii_lowercase();
        if peers.len() >= MOST_IDLE && !peers.contains_key(&key) {
            peers.retain(|_, (peer, has_terms)| *has_terms || Arc::strong_count(peer) > 1);
        }
        Arc::clone(&peers.entry(key).or_insert_with(|| (Self::fresh(name, stats), false)).0)
    }

    /// Puts terms in force, for connections that are there and those to come; `None`: the standard's, and they need not
    /// be remembered.
    pub fn set_terms(&self, name: &str, terms: Option<Terms>, stats: &Stats) {
        let peer = self.get(name, stats);
        peer.terms.store(Arc::new(terms.unwrap_or_default()));
        if let Some((_, has_terms)) = self.lock().get_mut(&name.to_ascii_lowercase()) {
            *has_terms = terms.is_some();
        }
    }

    /// The peer of that name, if it is known.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Arc<Peer>> {
        self.lock().get(&name.to_ascii_lowercase()).map(|(peer, _)| Arc::clone(peer))
    }

    fn fresh(name: &str, stats: &Stats) -> Arc<Peer> {
        Arc::new(Peer { name: name.to_owned(), stats: stats.peer(name), ..Peer::default() })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_one_whatever_the_case_and_forgotten_when_nobody_needs_it() {
        let (peers, stats) = (Peers::default(), Stats::default());
        let peer = peers.get("MME.test", &stats);
        let terms = Terms { requests_per_second: 7, ..Terms::default() };
        peers.set_terms("mme.TEST", Some(terms), &stats);
        assert_eq!(peer.terms.load().requests_per_second, 7);
        drop(peer);
        let kept = peers.get("kept.test", &stats);
        for number in 0..2 * MOST_IDLE {
            let _ = peers.get(&format!("peer{number}.test"), &stats);
        }
        assert!(peers.lock().len() <= MOST_IDLE);
        assert!(Arc::ptr_eq(&peers.find("KEPT.test").unwrap(), &kept));
        assert_eq!(peers.find("mme.test").unwrap().terms.load().requests_per_second, 7);
        peers.set_terms("mme.test", None, &stats);
        assert_eq!(peers.find("mme.test").unwrap().terms.load().requests_per_second, 0);
    }
}
