//! Whose turn it is: minima first, then the rest, each by priority, and within equals in proportion.
//!
//! Within a class the stream that has had the least service goes first, service being octets divided by weight: by
//! min_bps among the minima, by nothing among the rest. That is fair queueing; it costs the logarithm of the number of
//! streams that could be served now, whatever their chunk sizes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::interface::KeyStreamId;

/// Where a stream stands in a class: priority, service had, ID.
type Place = (Reverse<u32>, u128, KeyStreamId);

/// For which of its claims a stream is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Its min_bps.
    Minimum,
    /// A share of the rest.
    Rest,
}

/// One class of service: the minima, or the rest.
#[derive(Debug, Default)]
struct Class {
    order: BTreeSet<Place>,
    places: HashMap<KeyStreamId, Place>,
    /// Service had by the stream served last, by priority: who comes back begins there, and claims nothing for the
    /// time that it was away.
    level: BTreeMap<u32, u128>,
}

impl Class {
    fn remove(&mut self, id: KeyStreamId) {
        if let Some(place) = self.places.remove(&id) {
            self.order.remove(&place);
        }
    }

    fn insert(&mut self, id: KeyStreamId, priority: u32, service: u128) -> u128 {
        if let Some((Reverse(_), service, _)) = self.places.get(&id) {
            return *service;
        }
        let service = service.max(self.level.get(&priority).copied().unwrap_or(0));
        let place = (Reverse(priority), service, id);
        self.order.insert(place);
        self.places.insert(id, place);
        service
    }
}

/// The streams that could be served now.
#[derive(Debug, Default)]
pub(crate) struct Scheduler {
    minimum: Class,
    rest: Class,
    /// Of these, streams that should be served soon.
    hungry: HashSet<KeyStreamId>,
}

impl Scheduler {
    fn class(&mut self, claim: Claim) -> &mut Class {
        match claim {
            Claim::Minimum => &mut self.minimum,
            Claim::Rest => &mut self.rest,
        }
    }

    /// The stream cannot be served now.
    pub(crate) fn remove(&mut self, id: KeyStreamId) {
        self.minimum.remove(id);
        self.rest.remove(id);
        self.hungry.remove(&id);
    }

    /// Whether the stream, which can be served, should be soon.
    pub(crate) fn set_hungry(&mut self, id: KeyStreamId, hungry: bool) {
        if hungry {
            self.hungry.insert(id);
        } else {
            self.hungry.remove(&id);
        }
    }

    /// Whether any stream that can be served should be soon.
    pub(crate) fn is_any_hungry(&self) -> bool {
        !self.hungry.is_empty()
    }

    /// The stream has no such claim now.
    pub(crate) fn withdraw(&mut self, claim: Claim, id: KeyStreamId) {
        self.class(claim).remove(id);
    }

    /// The stream can be served. Returns what its service counts as from now on.
    pub(crate) fn insert(&mut self, claim: Claim, id: KeyStreamId, priority: u32, service: u128) -> u128 {
        self.class(claim).insert(id, priority, service)
    }

    /// Whose turn it is.
    pub(crate) fn first(&self) -> Option<(Claim, KeyStreamId)> {
        let minimum = self.minimum.order.first().map(|(_, _, id)| (Claim::Minimum, *id));
        minimum.or_else(|| self.rest.order.first().map(|(_, _, id)| (Claim::Rest, *id)))
    }

    /// Streams that claim the same.
    pub(crate) fn rivals(&self, claim: Claim) -> usize {
        match claim {
            Claim::Minimum => self.minimum.order.len(),
            Claim::Rest => self.rest.order.len(),
        }
    }

    /// The stream was served, out of the class `claim`, which it leaves; its service is now `service`.
    pub(crate) fn served(&mut self, claim: Claim, id: KeyStreamId, priority: u32, service_before: u128) {
        let class = self.class(claim);
        class.remove(id);
        let level = class.level.entry(priority).or_insert(0);
        *level = (*level).max(service_before);
        // Priorities are the KMSs' to choose; those that nobody claims any more are forgotten.
        if class.level.len() > 1_024 {
            class.level.clear();
        }
    }
}
