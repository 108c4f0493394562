//! The ring of the last events and the seats of those who watch, under one lock so that nobody misses or repeats one.

use super::{Change, Limits};
use crate::{Error, Revision};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Bytes of values that the ring keeps alive at most, so that many events on large objects cannot fill the memory.
const RING_BYTES_MAX: usize = 512 << 20;

const WATCHING: u8 = 0;
const SLOW: u8 = 1;
const DISCONTINUED: u8 = 2;
const CLOSED: u8 = 3;

/// A watcher's right to its seat, with the reason why it lost it.
pub(super) struct Ticket {
    prefix: Box<str>,
    left: AtomicU8,
}

impl Ticket {
    pub(super) fn why_left(&self) -> Error {
        match self.left.load(Ordering::Acquire) {
            SLOW => Error::CutOff("it was too slow"),
            DISCONTINUED => Error::CutOff("the history of the store broke off"),
            _ => Error::Closed,
        }
    }
}

/// Where a watcher's changes are sent to. When the hub lets go of it, the watcher's queue ends.
pub(super) struct Seat<A> {
    ticket: Arc<Ticket>,
    queue: mpsc::Sender<Arc<Change<A>>>,
}

impl<A> Seat<A> {
    /// False if the watcher has just proved too slow. It gets nothing more then, since it would have a gap.
    pub(super) fn send(&self, change: &Arc<Change<A>>) -> bool {
        if self.ticket.left.load(Ordering::Acquire) != WATCHING {
            return true;
        }
        match self.queue.try_send(change.clone()) {
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.ticket.left.store(SLOW, Ordering::Release);
                false
            }
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => true,
        }
    }

    pub(super) fn ticket(&self) -> &Ticket {
        &self.ticket
    }
}

/// Those who watch one prefix. Shared with a delivery under way, hence copied when somebody comes or goes.
pub(super) type Row<A> = Arc<Vec<Arc<Seat<A>>>>;

pub(super) struct Hub<A> {
    ring: VecDeque<(Instant, Arc<Change<A>>)>,
    ring_bytes: usize,
    ring_events_max: usize,
    horizon: Duration,
    /// The ring has every change after this revision.
    floor: Revision,
    /// Prefixes that end with '/', or are empty: found at the few places where a key has one.
    directories: HashMap<Box<str>, Row<A>>,
    /// All others, by their length.
    others: BTreeMap<usize, HashMap<Box<str>, Row<A>>>,
    closed: bool,
}

/// What a watcher is given: what the ring has for it, its queue, and its ticket.
type Joined<A> = (VecDeque<Arc<Change<A>>>, mpsc::Receiver<Arc<Change<A>>>, Arc<Ticket>);

impl<A> Hub<A> {
    pub(super) fn new(revision: Revision, limits: &Limits) -> Self {
        Hub {
            ring: VecDeque::new(),
            ring_bytes: 0,
            ring_events_max: limits.ring_events_max,
            horizon: limits.horizon,
            floor: revision,
            directories: HashMap::new(),
            others: BTreeMap::new(),
            closed: false,
        }
    }

    pub(super) fn join(&mut self, prefix: &str, after: Revision, backlog_max: usize) -> Result<Joined<A>, Error> {
        if self.closed {
            return Err(Error::Closed);
        }
        if after < self.floor {
            return Err(Error::Compacted { oldest: self.floor });
        }
        let missed = self.ring.partition_point(|(_, change)| change.revision <= after);
        let replay = self.ring.range(missed..).map(|(_, change)| change);
        let replay = replay.filter(|change| change.key.starts_with(prefix)).cloned().collect();
        let (sender, queue) = mpsc::channel(backlog_max.max(1));
        let ticket = Arc::new(Ticket { prefix: prefix.into(), left: AtomicU8::new(WATCHING) });
        let seat = Arc::new(Seat { ticket: ticket.clone(), queue: sender });
        Arc::make_mut(self.rows(prefix).entry(prefix.into()).or_default()).push(seat);
        Ok((replay, queue, ticket))
    }

    pub(super) fn leave(&mut self, ticket: &Ticket) {
        let rows = self.rows(&ticket.prefix);
        if let Some(row) = rows.get_mut(&ticket.prefix) {
            Arc::make_mut(row).retain(|seat| !std::ptr::eq(seat.ticket(), ticket));
            if row.is_empty() {
                rows.remove(&ticket.prefix);
            }
        }
        self.others.retain(|_, rows| !rows.is_empty());
    }

    fn rows(&mut self, prefix: &str) -> &mut HashMap<Box<str>, Row<A>> {
        if prefix.is_empty() || prefix.ends_with('/') {
            &mut self.directories
        } else {
            self.others.entry(prefix.len()).or_default()
        }
    }

    /// Remembers a change, and says whom it concerns.
    pub(super) fn push(&mut self, now: Instant, change: &Arc<Change<A>>) -> Vec<Row<A>> {
        self.ring_bytes += change.now.bytes.len();
        self.ring.push_back((now, change.clone()));
        while self.is_overfull(now) {
            if let Some((_, forgotten)) = self.ring.pop_front() {
                self.ring_bytes -= forgotten.now.bytes.len();
                self.floor = forgotten.revision;
            }
        }
        self.concerned(&change.key)
    }

    fn is_overfull(&self, now: Instant) -> bool {
        let stale = |(since, _): &(Instant, _)| now.duration_since(*since) > self.horizon;
        self.ring.len() > self.ring_events_max || self.ring_bytes > RING_BYTES_MAX || self.ring.front().is_some_and(stale)
    }

    fn concerned(&self, key: &str) -> Vec<Row<A>> {
        let mut rows: Vec<Row<A>> = self.directories.get("").cloned().into_iter().collect();
        if !self.directories.is_empty() {
            let slashes = key.bytes().enumerate().filter(|(_, byte)| *byte == b'/');
            rows.extend(slashes.filter_map(|(at, _)| self.directories.get(&key[..=at]).cloned()));
        }
        let others = self.others.range(..=key.len());
        rows.extend(others.filter_map(|(length, rows)| rows.get(key.get(..*length)?).cloned()));
        rows
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.directories.is_empty() && self.others.is_empty()
    }

    /// The history broke off: everybody has to begin again with a list, at `revision` or later.
    pub(super) fn discontinue(&mut self, revision: Revision) {
        self.ring.clear();
        self.ring_bytes = 0;
        self.floor = revision;
        self.cut_all_off(DISCONTINUED);
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
        self.cut_all_off(CLOSED);
    }

    fn cut_all_off(&mut self, why: u8) {
        let rows = self.directories.values().chain(self.others.values().flat_map(HashMap::values));
        for seat in rows.flat_map(|row| row.iter()) {
            seat.ticket.left.store(why, Ordering::Release);
        }
        self.directories.clear();
        self.others.clear();
    }
}
