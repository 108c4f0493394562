//! Who is served next: seats per priority level, and in each level queues among which work is shared out evenly.
//!
//! No I/O and no clock of its own. A flow (all of one user's requests, say) is dealt a hand of queues by its hash, and a
//! request goes to the one of them that has least work: a flow that fills its queues leaves others some that are empty.
//! Each queue has a virtual time that advances with the work that is done for it; the queue that is behind is served next.

use std::collections::{BTreeMap, VecDeque};

/// What a request is thought to take until it is known, in seconds.
const GUESS: f64 = 0.003;

/// One level's limits.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Neither seats nor queues count.
    pub exempt: bool,
    /// Its own seats.
    pub nominal: u32,
    /// Those of its seats that others may use while it does not.
    pub lendable: u32,
    /// How many it may use beyond its own.
    pub borrowing: u32,
    /// 0: a request that finds no seat is refused at once.
    pub queues: usize,
    pub hand: usize,
    pub queue_length: usize,
}

#[derive(Debug)]
struct Request<W> {
    id: u64,
    width: u32,
    wake: W,
}

#[derive(Debug)]
struct Queue<W> {
    waiting: VecDeque<Request<W>>,
    /// Seats in use.
    executing: u32,
    /// Virtual time at which its next request begins.
    next: f64,
}

#[derive(Debug)]
struct Level<W> {
    limits: Limits,
    queues: Vec<Queue<W>>,
    executing: u32,
    waiting: usize,
    /// The virtual time of what was begun last: a queue that was empty does not keep what it did not use.
    now: f64,
}

/// `W` is what is handed back when a request begins.
#[derive(Debug)]
pub struct Levels<W> {
    levels: BTreeMap<String, Level<W>>,
    next_id: u64,
}

/// What becomes of a request at once.
#[derive(Debug, PartialEq)]
pub enum Entered<W> {
    /// It may begin, in a seat of this queue.
    Begun(W, usize),
    /// It waits in this queue, under this number.
    Waits(usize, u64),
    Refused(&'static str),
}

/// A request that may begin now.
#[derive(Debug, PartialEq)]
pub struct Begun<W> {
    pub level: String,
    pub queue: usize,
    pub width: u32,
    pub wake: W,
}

impl<W> Default for Levels<W> {
    fn default() -> Self {
        Levels { levels: BTreeMap::new(), next_id: 0 }
    }
}

impl<W> Levels<W> {
    /// Takes on other limits. What waits stays; a level that is gone serves what it has.
    pub fn set(&mut self, wanted: &BTreeMap<String, Limits>) {
        for (name, limits) in wanted {
            let level = self.levels.entry(name.clone()).or_insert_with(|| Level {
                limits: limits.clone(),
                queues: vec![],
                executing: 0,
                waiting: 0,
                now: 0.0,
            });
            level.limits = limits.clone();
            // Fewer are used from now on, but those that are there are emptied.
            while level.queues.len() < limits.queues.max(1) {
                level.queues.push(Queue { waiting: VecDeque::new(), executing: 0, next: 0.0 });
            }
        }
        self.levels.retain(|name, level| wanted.contains_key(name) || level.executing > 0 || level.waiting > 0);
    }

    /// `hash` is the flow's, `width` how many seats the request takes (never more than the level could have).
    pub fn enter(&mut self, name: &str, hash: u64, width: u32, wake: W) -> Entered<W> {
        let Some(level) = self.levels.get_mut(name) else { return Entered::Refused("no-level") };
        let limits = &level.limits;
        if limits.exempt {
            level.executing += width;
            level.queues[0].executing += width;
            return Entered::Begun(wake, 0);
        }
        let at = level.choose(hash);
        let id = self.next_id;
        self.next_id += 1;
        let alone = level.waiting == 0;
        if limits.queues == 0 || alone {
            if self.has_room(name, width) {
                let level = self.levels.get_mut(name).expect("it was there a moment ago");
                level.begin(at, width);
                return Entered::Begun(wake, at);
            }
            let level = &self.levels[name];
            if level.limits.queues == 0 {
                return Entered::Refused("concurrency-limit");
            }
        }
        let level = self.levels.get_mut(name).expect("it was there a moment ago");
        if level.queues[at].waiting.len() >= level.limits.queue_length {
            return Entered::Refused("queue-full");
        }
        let now = level.now;
        let queue = &mut level.queues[at];
        if queue.waiting.is_empty() && queue.executing == 0 {
            queue.next = queue.next.max(now);
        }
        queue.waiting.push_back(Request { id, width, wake });
        level.waiting += 1;
        Entered::Waits(at, id)
    }

    /// A request is done (it took `seconds`), and others may begin.
    pub fn leave(&mut self, name: &str, queue: usize, width: u32, seconds: f64) -> Vec<Begun<W>> {
        if let Some(level) = self.levels.get_mut(name) {
            level.executing = level.executing.saturating_sub(width);
            if let Some(queue) = level.queues.get_mut(queue) {
                queue.executing = queue.executing.saturating_sub(width);
                queue.next += (seconds - GUESS) * f64::from(width);
            }
            if level.executing == 0 && level.waiting == 0 {
                // Nobody is behind or ahead when nothing is left to do.
                level.now = level.queues.iter().map(|queue| queue.next).fold(level.now, f64::max);
            }
        }
        self.begin_more()
    }

    /// Nobody waits for the request any more. False if it had begun.
    pub fn forget(&mut self, name: &str, queue: usize, id: u64) -> bool {
        let Some(level) = self.levels.get_mut(name) else { return false };
        let Some(queue) = level.queues.get_mut(queue) else { return false };
        let before = queue.waiting.len();
        queue.waiting.retain(|request| request.id != id);
        level.waiting -= before - queue.waiting.len();
        before != queue.waiting.len()
    }

    /// Begins what has room, level by level.
    pub fn begin_more(&mut self) -> Vec<Begun<W>> {
        let mut begun = vec![];
        let names: Vec<String> =
            self.levels.iter().filter(|(_, level)| level.waiting > 0).map(|(name, _)| name.clone()).collect();
        for name in names {
            while let Some((at, width)) = self.levels[&name].next()
                && self.has_room(&name, width)
            {
                let level = self.levels.get_mut(&name).expect("it was there a moment ago");
                let Some(request) = level.queues[at].waiting.pop_front() else { break };
                level.waiting -= 1;
                level.begin(at, width);
                begun.push(Begun { level: name.clone(), queue: at, width, wake: request.wake });
            }
        }
        begun
    }

    /// Whether a level may use so many seats more: its own, or others' that they do not use and may lend.
    fn has_room(&self, name: &str, width: u32) -> bool {
        let level = &self.levels[name];
        let limits = &level.limits;
        let wanted = level.executing + width;
        // The largest request must be served some time.
        if limits.exempt || wanted <= limits.nominal || level.executing == 0 {
            return true;
        }
        if wanted > limits.nominal.saturating_add(limits.borrowing) {
            return false;
        }
        let others = self.levels.iter().filter(|(other, _)| *other != name).map(|(_, other)| other);
        let (mut lent, mut borrowed) = (0_u32, 0_u32);
        for other in others.filter(|other| !other.limits.exempt) {
            let unused = other.limits.nominal.saturating_sub(other.executing);
            // Whoever has requests waiting lends nothing.
            lent += if other.waiting > 0 { 0 } else { unused.min(other.limits.lendable) };
            borrowed += other.executing.saturating_sub(other.limits.nominal);
        }
        wanted - limits.nominal + borrowed <= lent
    }

    /// Of each level: its name, limits, seats in use and requests that wait.
    pub fn each(&self) -> impl Iterator<Item = (&str, &Limits, u32, usize)> {
        self.levels.iter().map(|(name, level)| (name.as_str(), &level.limits, level.executing, level.waiting))
    }
}

impl<W> Level<W> {
    fn begin(&mut self, at: usize, width: u32) {
        self.executing += width;
        let queue = &mut self.queues[at];
        queue.next = queue.next.max(self.now);
        self.now = queue.next;
        queue.executing += width;
        queue.next += GUESS * f64::from(width);
    }

    /// The queue of the flow's hand that has least to do.
    fn choose(&self, hash: u64) -> usize {
        let queues = self.limits.queues.max(1);
        let hand = deal(hash, queues, self.limits.hand.clamp(1, queues));
        let load = |at: &usize| {
            let queue = &self.queues[*at];
            let work = queue.waiting.iter().map(|request| request.width).sum::<u32>() + queue.executing;
            (queue.waiting.len() >= self.limits.queue_length, work)
        };
        hand.into_iter().min_by_key(load).unwrap_or(0)
    }

    /// The queue that is behind the others, and the width of its first request.
    fn next(&self) -> Option<(usize, u32)> {
        let waiting =
            self.queues.iter().enumerate().filter_map(|(at, queue)| Some((at, queue.next, queue.waiting.front()?.width)));
        waiting.min_by(|(_, one, _), (_, other, _)| one.total_cmp(other)).map(|(at, _, width)| (at, width))
    }
}

/// `hand` different cards of a deck of so many, as the hash has it.
fn deal(mut hash: u64, deck: usize, hand: usize) -> Vec<usize> {
    let mut dealt: Vec<usize> = Vec::with_capacity(hand);
    for taken in 0..hand {
        let left = (deck - taken) as u64;
        let mut card = usize::try_from(hash % left).unwrap_or(0);
        hash /= left;
        let mut sorted = dealt.clone();
        sorted.sort_unstable();
        for before in sorted {
            if card >= before {
                card += 1;
            }
        }
        dealt.push(card);
    }
    dealt
}

/// Whether hands of that size out of that deck fit into a hash.
pub fn entropy_bits(deck: usize, hand: usize) -> u32 {
    (0..hand).map(|taken| ((deck - taken) as f64).log2()).sum::<f64>().ceil() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limits(nominal: u32, queues: usize) -> Limits {
        Limits { exempt: false, nominal, lendable: 0, borrowing: 0, queues, hand: 4.min(queues), queue_length: 50 }
    }

    fn levels(each: &[(&str, Limits)]) -> Levels<String> {
        let mut levels = Levels::default();
        levels.set(&each.iter().map(|(name, limits)| ((*name).to_owned(), limits.clone())).collect());
        levels
    }

    #[test]
    fn one_flow_cannot_keep_another_waiting() {
        let mut levels = levels(&[("low", limits(1, 64))]);
        assert!(matches!(levels.enter("low", 1, 1, "first".into()), Entered::Begun(..)));
        for n in 0..100 {
            assert!(matches!(levels.enter("low", 1, 1, format!("elephant-{n}")), Entered::Waits(..)));
        }
        assert!(matches!(levels.enter("low", 987_654_321, 1, "mouse".into()), Entered::Waits(..)));
        let mut order = vec![];
        let mut begun = levels.leave("low", 0, 1, 0.01);
        while let Some(one) = begun.pop() {
            order.push(one.wake);
            begun.extend(levels.leave("low", one.queue, one.width, 0.01));
        }
        assert_eq!(order.len(), 101);
        let mouse = order.iter().position(|name| name == "mouse").unwrap();
        assert!(mouse < 8, "the mouse was served as number {mouse}");
    }

    #[test]
    fn wide_requests_count_for_as_many() {
        let mut levels = levels(&[("low", limits(10, 8))]);
        assert!(matches!(levels.enter("low", 1, 8, "wide".into()), Entered::Begun(..)));
        assert!(matches!(levels.enter("low", 2, 2, "narrow".into()), Entered::Begun(..)));
        assert!(matches!(levels.enter("low", 3, 1, "late".into()), Entered::Waits(..)));
        assert_eq!(levels.leave("low", 0, 2, 0.1).len(), 1);
    }

    #[test]
    fn a_full_queue_and_a_level_without_queues_refuse() {
        let mut levels = levels(&[("reject", limits(1, 0)), ("queue", Limits { queue_length: 1, ..limits(1, 1) })]);
        assert!(matches!(levels.enter("reject", 1, 1, "a".into()), Entered::Begun(..)));
        assert_eq!(levels.enter("reject", 2, 1, "b".into()), Entered::Refused("concurrency-limit"));
        assert!(matches!(levels.enter("queue", 1, 1, "a".into()), Entered::Begun(..)));
        assert!(matches!(levels.enter("queue", 1, 1, "b".into()), Entered::Waits(..)));
        assert_eq!(levels.enter("queue", 1, 1, "c".into()), Entered::Refused("queue-full"));
    }

    #[test]
    fn seats_are_lent_while_they_are_not_used() {
        let lender = Limits { lendable: 2, ..limits(4, 8) };
        let borrower = Limits { borrowing: 10, ..limits(1, 8) };
        let mut levels = levels(&[("lender", lender), ("borrower", borrower)]);
        let mut begun = 0;
        for n in 0..6 {
            begun += i32::from(matches!(levels.enter("borrower", n, 1, String::new()), Entered::Begun(..)));
        }
        // One of its own, two that are lent.
        assert_eq!(begun, 3);
        for n in 0..4 {
            // The lender has its own whenever it wants them.
            assert!(matches!(levels.enter("lender", n, 1, String::new()), Entered::Begun(..)));
        }
        assert_eq!(levels.leave("borrower", 0, 1, 0.1), vec![]);
        assert_eq!(levels.leave("lender", 0, 1, 0.1), vec![]);
        assert_eq!(levels.leave("lender", 0, 1, 0.1).len(), 1);
    }

    #[test]
    fn who_gave_up_is_not_served() {
        let mut levels = levels(&[("low", limits(1, 8))]);
        let Entered::Begun(_, first) = levels.enter("low", 1, 1, "a".into()) else { panic!("no seat") };
        let Entered::Waits(queue, id) = levels.enter("low", 1, 1, "b".into()) else { panic!("no queue") };
        assert!(levels.forget("low", queue, id) && !levels.forget("low", queue, id));
        assert_eq!(levels.leave("low", first, 1, 0.1), vec![]);
    }

    proptest! {
        #[test]
        fn a_hand_has_different_cards(hash: u64, deck in 1usize..512, hand in 1usize..16) {
            let hand = hand.min(deck);
            let mut cards = deal(hash, deck, hand);
            cards.sort_unstable();
            cards.dedup();
            prop_assert!(cards.len() == hand && cards.iter().all(|card| *card < deck));
        }

        /// Whatever comes and goes, seats are neither lost nor invented, and who waits is served in the end.
        #[test]
        fn seats_are_kept_count_of(steps in prop::collection::vec((0u64..20, 1u32..4, any::<bool>()), 1..200)) {
            let mut levels = levels(&[("a", Limits { lendable: 2, borrowing: 3, ..limits(5, 8) }), ("b", Limits { lendable: 3, borrowing: 9, ..limits(4, 4) })]);
            let mut running: Vec<(String, usize, u32)> = vec![];
            let mut waiting = 0;
            for (flow, width, come) in steps {
                let level = if flow % 2 == 0 { "a" } else { "b" };
                if come {
                    match levels.enter(level, flow, width, level.into()) {
                        Entered::Begun(_, queue) => running.push((level.to_owned(), queue, width)),
                        Entered::Waits(..) => waiting += 1,
                        Entered::Refused(_) => {}
                    }
                } else if let Some((level, queue, width)) = running.pop() {
                    let begun = levels.leave(&level, queue, width, 0.01);
                    waiting -= begun.len();
                    running.extend(begun.into_iter().map(|one| (one.level, one.queue, one.width)));
                }
                let seats: u32 = running.iter().map(|(_, _, width)| width).sum();
                prop_assert_eq!(levels.each().map(|(.., executing, _)| executing).sum::<u32>(), seats);
            }
            while let Some((level, queue, width)) = running.pop() {
                let begun = levels.leave(&level, queue, width, 0.01);
                waiting -= begun.len();
                running.extend(begun.into_iter().map(|one| (one.level, one.queue, one.width)));
            }
            prop_assert_eq!(waiting, 0);
        }
    }
}
