//! What the model knows of each claim, and what it expects of the stores because of it.

use callback_guard_core::store::redis::OnError;
use callback_guard_core::testkit::MapShared;
use callback_guard_core::worker::Outcome;

use crate::world::{LEASE_MILLIS, Request, WINDOW_MILLIS, World};

/// A record of a proxy's own store, as `core/src/store/bucket.rs` writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) is_delivered: bool,
    /// The owner of a claim.
    pub(crate) owner: u64,
    pub(crate) until: u64,
}

/// Every record of a proxy's own store: the tag of its event, and what it says.
pub(crate) fn records(shared: &MapShared) -> Vec<([u8; 10], Record)> {
    let mut found = Vec::new();
    for (key, value, _) in shared.sorted() {
        if !key.starts_with("events") {
            continue;
        }
        for bytes in value.as_chunks::<32>().0 {
            let end = u64::from_le_bytes(*bytes.last_chunk().unwrap()) >> 16;
            if end != 0 {
                let record = Record {
                    is_delivered: end & 1 == 1,
                    owner: u64::from_le_bytes(bytes[14..22].try_into().unwrap()),
                    until: end >> 1,
                };
                found.push((bytes[..10].try_into().unwrap(), record));
            }
        }
    }
    found
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum State {
    /// Never forwarded.
    #[default]
    None,
    Open,
    /// The upstream's 2xx has come.
    Accepted,
    /// It failed.
    Released,
    Unknown,
}

/// The claim of a request. The ends are moments; 0 where nothing is expected of that store.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Claim {
    pub(crate) state: State,
    /// The application has accepted it, whether or not anybody heard of it.
    pub(crate) is_accepted: bool,
    /// `on_error` decided about it.
    pub(crate) is_fallback: bool,
    /// The host has refused what it asked of shared data.
    pub(crate) is_refused: bool,
    /// It came to Redis after its worker had given it up.
    pub(crate) is_late: bool,
    /// Its lease, or its window, has ended.
    pub(crate) is_over: bool,
    pub(crate) has_lost_redis: bool,
    /// By the proxies' clock: the lease and the window in the proxy's own store.
    pub(crate) local_lease: u64,
    pub(crate) local_window: u64,
    /// By Redis' clock.
    pub(crate) redis_lease: u64,
    pub(crate) redis_window: u64,
}

impl Claim {
    pub(crate) fn lose_redis(&mut self) {
        self.has_lost_redis |= self.redis_lease + self.redis_window > 0;
        (self.redis_lease, self.redis_window) = (0, 0);
    }

    /// The clocks have moved. What has been over once is not expected any more: a writer may have
    /// cleared it away before the clock stepped back.
    pub(crate) fn time_is(&mut self, now: u64, redis_now: u64) {
        for (end, now) in [
            (&mut self.local_lease, now),
            (&mut self.local_window, now),
            (&mut self.redis_lease, redis_now),
            (&mut self.redis_window, redis_now),
        ] {
            if (1..=now).contains(end) {
                *end = 0;
                self.is_over = true;
            }
        }
        // The next to ask cuts a lease from a time when the clock was ahead.
        self.local_lease = self.local_lease.min(now + LEASE_MILLIS);
    }

    /// Redis has run a script for this claim.
    pub(crate) fn redis_ran(&mut self, words: &[String], reply: &[u8], now: u64, is_late: bool) {
        match (&words[6..], reply) {
            ([name], br#"{"EVAL":1}"#) if name.len() == 32 => self.redis_lease = 0,
            ([delivered, ..], br#"{"EVAL":1}"#) if delivered.starts_with("d:") => {
                self.redis_lease = 0;
                if self.redis_window == 0 {
                    self.redis_window = now + WINDOW_MILLIS;
                }
            }
            ([_, _, _], br#"{"EVAL":null}"#) => {
                self.redis_lease = now + LEASE_MILLIS;
                self.is_late |= is_late;
            }
            _ => {}
        }
    }
}

/// Why an event reached the application again, although it had accepted it or still worked on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Double {
    /// The application's answer was lost, and `on_unknown` is `release`.
    AnswerLost,
    /// The host refused to write.
    HostRefused,
    /// The lease ran out before the outcome was known, or before Redis could record it.
    LeaseOver,
    /// Redis did not answer, and another proxy decided by its own store.
    OwnStore,
    /// Redis lost what it knew.
    RedisLost,
    /// Redis did not answer, and `on_error` is `pass`.
    Unclaimed,
}

impl Double {
    pub(crate) const ALL: [Self; 6] = [
        Self::AnswerLost,
        Self::HostRefused,
        Self::LeaseOver,
        Self::OwnStore,
        Self::RedisLost,
        Self::Unclaimed,
    ];
}

/// How often each has happened.
pub(crate) type Doubles = [u32; Double::ALL.len()];

impl World {
    /// A request is about to be forwarded.
    pub(crate) fn check_forward(&mut self, number: usize, is_fallback: bool) {
        let request = &self.requests[number];
        let (proxy, event, claim) = (self.proxy_of(number), request.event, &request.claim);
        let record = self
            .record(proxy, event)
            .filter(|record| !record.is_delivered && record.owner == request.owner);
        let passes = self.setup.on_error() == Some(OnError::Pass);
        let rejects = self.setup.on_error() == Some(OnError::Reject);
        let (is_excused, is_refused) = (self.faults.clock_steps > 0, self.faults.refusals > 0);
        if !is_fallback && self.setup.is_fleet() {
            let holds = claim.redis_lease > self.redis_now || claim.has_lost_redis;
            self.check(
                holds || is_excused,
                "who is forwarded has claimed the event in Redis",
            );
        }
        let is_unclaimed = is_fallback && passes;
        self.check(
            record.is_none() || !is_unclaimed || is_refused,
            "who is forwarded unclaimed holds no claim",
        );
        let record = record.filter(|_| !is_unclaimed);
        self.check(
            record.is_some() || is_unclaimed || is_excused || is_refused,
            "who is forwarded has claimed the event in its proxy's store",
        );
        self.check(
            !(is_fallback && rejects),
            "without Redis, `reject` forwards nothing",
        );
        let lease = record.map_or(0, |record| record.until);
        let expected = self.began + LEASE_MILLIS;
        self.check(
            lease <= expected || is_excused,
            "a lease is as long as configured",
        );
        let claim = &mut self.requests[number].claim;
        claim.is_fallback = is_fallback;
        claim.state = State::Open;
        claim.is_refused |= record.is_none() && is_refused;
        claim.is_over |= record.is_none() && is_excused;
        claim.is_over |= (1..=self.now.as_millis()).contains(&lease);
        for other in 0..self.requests.len() {
            if other != number
                && self.requests[other].event == event
                && let Some(double) = self.double(number, other, record.is_some())
            {
                let at = Double::ALL.iter().position(|known| *known == double);
                self.doubles[at.unwrap()] += 1;
            }
        }
        let (now, redis_now) = (self.now.as_millis(), self.redis_now);
        let claim = &mut self.requests[number].claim;
        claim.local_lease = lease;
        claim.time_is(now, redis_now);
    }

    /// Whether forwarding `number` doubles what `other` has brought, and what excuses it.
    fn double(&self, number: usize, other: usize, holds_locally: bool) -> Option<Double> {
        let (ours, them) = (&self.requests[number].claim, &self.requests[other]);
        let is_fallback = ours.is_fallback;
        let claim = &them.claim;
        if claim.state == State::None {
            return None;
        }
        let (now, is_same_proxy) = (
            self.now.as_millis(),
            self.proxy_of(number) == self.proxy_of(other),
        );
        // Its lease may have ended before it was forwarded.
        let asks_locally = is_same_proxy && holds_locally && !ours.is_over;
        let asks_redis =
            self.setup.is_fleet() && !is_fallback && !ours.has_lost_redis && !ours.is_over;
        let is_claimed = asks_locally && claim.local_lease > now
            || asks_redis && claim.redis_lease > self.redis_now;
        self.check(
            !is_claimed,
            &format!("one forward while a claim lives: {other}, then {number}"),
        );
        let is_delivered = asks_locally && claim.local_window > now
            || asks_redis && claim.redis_window > self.redis_now;
        self.check(
            !is_delivered,
            &format!("a delivered event is not forwarded again: {other}, then {number}"),
        );
        let is_at_upstream = claim.state == State::Open && self.is_alive(them);
        if !is_at_upstream && !claim.is_accepted {
            return None;
        }
        let passes = self.setup.on_error() == Some(OnError::Pass);
        let double = if claim.state == State::Unknown && !claim.is_over {
            Double::AnswerLost
        } else if passes && (is_fallback || claim.is_fallback) {
            Double::Unclaimed
        } else if claim.is_refused || !holds_locally && self.faults.refusals > 0 {
            Double::HostRefused
        } else if claim.is_over || ours.is_over {
            Double::LeaseOver
        } else if is_same_proxy {
            self.check(false, "a proxy doubles nothing while its own store works");
            return None;
        } else if claim.has_lost_redis || ours.has_lost_redis {
            Double::RedisLost
        } else {
            self.check(
                is_fallback || claim.is_fallback || self.faults.refusals > 0,
                "two proxies double nothing while Redis answers",
            );
            Double::OwnStore
        };
        Some(double)
    }

    /// The outcome of a forwarded request has come to its worker.
    pub(crate) fn settled(&mut self, number: usize, outcome: Outcome, is_refused: bool) {
        let event = self.requests[number].event;
        let record = self.record(self.proxy_of(number), event);
        let now = self.now.as_millis();
        let holds_unknown = self.setup.holds_unknown;
        let request = &self.requests[number];
        let claim = &request.claim;
        let is_held =
            record.is_some_and(|record| !record.is_delivered && record.owner == request.owner);
        let had_claim = claim.local_lease > now;
        let mut claim = claim.clone();
        claim.is_refused |= is_refused;
        match outcome {
            Outcome::Accepted => {
                claim.state = State::Accepted;
                let window = record.filter(|record| record.is_delivered);
                if had_claim && !is_refused {
                    self.check(window.is_some(), "what was accepted is recorded at once");
                    self.check(
                        window.is_some_and(|window| window.until == self.began + WINDOW_MILLIS),
                        "a delivered event is remembered for its window",
                    );
                }
                claim.local_window = window.map_or(0, |record| record.until);
                claim.local_lease = 0;
            }
            Outcome::Unknown if holds_unknown => claim.state = State::Unknown,
            Outcome::Unknown | Outcome::NotReached | Outcome::Refused => {
                claim.state = if outcome == Outcome::Unknown {
                    State::Unknown
                } else {
                    State::Released
                };
                claim.local_lease = 0;
                let passes = self.setup.on_error() == Some(OnError::Pass);
                let is_unclaimed = claim.is_fallback && passes;
                self.check(
                    !is_held || is_refused || is_unclaimed,
                    "what failed is released at once",
                );
            }
        }
        self.requests[number].claim = claim;
    }

    /// The sender hears of an accepted delivery.
    pub(crate) fn check_told_accepted(&self, number: usize) {
        let claim = &self.requests[number].claim;
        let faults = self.faults;
        if self.setup.is_fleet()
            && !claim.is_fallback
            && !claim.is_over
            && faults.calls + faults.flushes + faults.crashes == 0
        {
            let is_recorded = claim.redis_window > self.redis_now;
            self.check(is_recorded, "a 2xx waits until Redis has recorded it");
        }
    }

    /// What the stores hold is what they have promised to hold.
    pub(crate) fn check_stores(&self) {
        let now = self.now.as_millis();
        for (number, request) in self.requests.iter().enumerate() {
            let claim = &request.claim;
            if claim.local_lease > now || claim.local_window > now {
                let record = self.record(self.proxy_of(number), request.event);
                let is_there = record.is_some_and(|record| {
                    record.is_delivered || claim.local_lease > now && record.owner == request.owner
                });
                self.check(is_there, "a proxy's store keeps what lives");
            }
            if claim.redis_lease > self.redis_now || claim.redis_window > self.redis_now {
                let key = &self.setup.events[request.event].redis_key;
                let text = self
                    .redis
                    .text(key, self.redis_now)
                    .map_or("", |(text, _)| text);
                let is_there = text == format!("c:{:016x}", request.owner)
                    || claim.redis_window > 0 && text.starts_with("d:");
                self.check(is_there, "Redis keeps what lives");
            }
        }
    }

    /// Everything has ended: no living worker holds a claim.
    pub(crate) fn check_leaks(&self) {
        for (event, known) in self.setup.events.iter().enumerate() {
            let excuse = |owner: u64, is_excused: &dyn Fn(&Request) -> bool| {
                let holder = self.requests.iter().find(|request| request.owner == owner);
                holder.is_none_or(|request| {
                    let is_left = self.setup.holds_unknown && request.claim.state == State::Unknown;
                    !self.is_alive(request) || is_left || is_excused(request)
                })
            };
            for proxy in 0..self.setup.proxies {
                let now = self.now.as_millis();
                let record = self
                    .record(proxy, event)
                    .filter(|record| record.until > now);
                let is_held = record.is_some_and(|record| {
                    !record.is_delivered && !excuse(record.owner, &|_| self.faults.refusals > 0)
                });
                self.check(!is_held, "no claim is left in a proxy's store");
            }
            if let Some((text, _)) = self.redis.text(&known.redis_key, self.redis_now)
                && let Some(owner) = text.strip_prefix("c:")
            {
                let owner = u64::from_str_radix(owner, 16).unwrap();
                let is_excused = excuse(owner, &|request| request.claim.is_late);
                self.check(is_excused, "no claim is left in Redis");
            }
        }
    }
}
