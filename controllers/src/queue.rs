//! The work queue: keys of objects to look at, each at most once, none by two workers at a time.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::resource::Key;

/// Its size is bounded by the number of objects: a key waits here once, however often it is added.
#[derive(Default)]
pub struct Queue {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Default)]
struct Inner {
    ready: VecDeque<Key>,
    /// In `ready`, or to be put there once the worker is through with it.
    dirty: HashSet<Key>,
    active: HashSet<Key>,
    later: BTreeSet<(Instant, Key)>,
    due: HashMap<Key, Instant>,
}

impl Queue {
    pub fn add(&self, key: Key) {
        self.inner.lock().add(key);
        self.changed.notify_one();
    }

    pub fn extend(&self, keys: impl IntoIterator<Item = Key>) {
        keys.into_iter().for_each(|key| self.add(key));
    }

    /// Adds the key after `delay`, or earlier if that was asked for before.
    pub fn add_after(&self, key: Key, delay: Duration) {
        let at = Instant::now() + delay;
        let mut inner = self.inner.lock();
        if let Some(earlier) = inner.due.get(&key).copied() {
            if earlier <= at {
                return;
            }
            inner.later.remove(&(earlier, key.clone()));
        }
        inner.due.insert(key.clone(), at);
        inner.later.insert((at, key));
        drop(inner);
        self.changed.notify_one();
    }

    /// The next key; it belongs to the caller until `done`.
    pub async fn next(&self) -> Key {
        loop {
            let wait = {
                let mut inner = self.inner.lock();
                inner.ripen(Instant::now());
                if let Some(key) = inner.ready.pop_front() {
                    inner.dirty.remove(&key);
                    inner.active.insert(key.clone());
                    return key;
                }
                inner.later.first().map(|(at, _)| *at)
            };
            match wait {
                Some(at) => drop(tokio::time::timeout_at(at, self.changed.notified()).await),
                None => self.changed.notified().await,
            }
        }
    }

    pub fn done(&self, key: &Key) {
        let mut inner = self.inner.lock();
        inner.active.remove(key);
        if inner.dirty.contains(key) {
            inner.ready.push_back(key.clone());
            drop(inner);
            self.changed.notify_one();
        }
    }
}

impl Inner {
    fn add(&mut self, key: Key) {
        if self.dirty.insert(key.clone()) && !self.active.contains(&key) {
            self.ready.push_back(key);
        }
    }

    fn ripen(&mut self, now: Instant) {
        while let Some((at, _)) = self.later.first()
            && *at <= now
            && let Some((_, key)) = self.later.pop_first()
        {
            self.due.remove(&key);
            self.add(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new("default", name)
    }

    #[tokio::test]
    async fn a_key_waits_once_and_is_not_given_out_twice() {
        let queue = Queue::default();
        for name in ["a", "b", "a"] {
            queue.add(key(name));
        }
        assert_eq!(queue.next().await, key("a"));
        queue.add(key("a"));
        assert_eq!(queue.next().await, key("b"));
        assert!(tokio::time::timeout(Duration::ZERO, queue.next()).await.is_err(), "a is still being worked on");
        queue.done(&key("a"));
        assert_eq!(queue.next().await, key("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_of_several_delays_counts() {
        let queue = Queue::default();
        let start = Instant::now();
        queue.add_after(key("a"), Duration::from_secs(60));
        queue.add_after(key("a"), Duration::from_secs(5));
        queue.add_after(key("a"), Duration::from_secs(30));
        assert_eq!(queue.next().await, key("a"));
        assert_eq!(start.elapsed().as_secs(), 5);
        queue.done(&key("a"));
        assert!(tokio::time::timeout(Duration::from_secs(100), queue.next()).await.is_err());
    }
}
