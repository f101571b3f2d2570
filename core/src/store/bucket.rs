//! The states of an event, and the packed bucket that holds the records of many.
//!
//! An event is absent, **claimed** (an owner, the end of its lease) or **delivered** (a body
//! fingerprint, the end of its window). A bucket is a list of 32-byte records, the oldest first:
//!
//! | bytes | content |
//! |---|---|
//! | 0..10 | bytes 8..18 of the [`EventKey`] |
//! | 10..14 | the high half of [`IdKey::local`](crate::event::IdKey), whose rest chooses the bucket: all events of a message id are in one |
//! | 14..22 | claimed: the owner token; delivered: the fingerprint of the body; little endian |
//! | 22..26 | delivered: when the message was signed, hashed; 0 if that is not known |
//! | 26..32 | end of lease or window in milliseconds, shifted left by one; bit 0 set = delivered |
//!
//! The value is zero-padded to a multiple of 40 records: growing by one record at a time would
//! fragment the proxy's memory.
//!
//! Everything here is a pure function of bytes and `now`. Who may write back what it returns, and
//! how two workers are kept apart, is the business of [`crate::store`].

use crate::event::{EventKey, IdKey};
use crate::time::UnixMillis;

/// Names one claim, so that only the request that made it can settle it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerToken(u64);

impl OwnerToken {
    /// From a number that no other claim in the life of the store has.
    #[must_use]
    pub const fn new(token: u64) -> Self {
        Self(token)
    }

    /// The number.
    #[must_use]
    pub(crate) const fn as_u64(self) -> u64 {
        self.0
    }
}

/// Hashes of a body and of the time at which it was signed: they show whether a duplicate has the
/// body that was delivered, and whether it is another message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    body: u64,
    /// 0 if it is not known.
    signed: u32,
}

impl Fingerprint {
    /// From the hash of a body; when it was signed is not known.
    #[must_use]
    pub const fn new(body: u64) -> Self {
        Self { body, signed: 0 }
    }

    /// With the hash of the signed time; 0 if that is not known.
    #[must_use]
    pub const fn with_signed(self, signed: u32) -> Self {
        Self { signed, ..self }
    }

    /// With the bytes of the signed time.
    #[must_use]
    pub(crate) fn signed_at(self, time: &[u8]) -> Self {
        // FNV-1a: nobody can choose what is signed, and 0 means none.
        let hash = time.iter().fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        });
        self.with_signed(hash.max(1))
    }

    /// Whether the bodies are the same.
    #[must_use]
    pub(crate) const fn has_body_of(self, other: Self) -> bool {
        self.body == other.body
    }

    /// Whether both are known to have been signed, and at different times.
    #[must_use]
    pub(crate) const fn is_signed_apart_from(self, other: Self) -> bool {
        self.signed != 0 && other.signed != 0 && self.signed != other.signed
    }

    /// The hash of the signed time; 0 if it is not known.
    #[must_use]
    pub(crate) const fn signed(self) -> u32 {
        self.signed
    }

    /// Of `body`, under a salt that senders do not know: nobody can make two bodies that agree.
    #[must_use]
    pub(crate) fn of(body: &[u8], salt: [u8; 16]) -> Self {
        Self::new(callback_guard_scan::fingerprint::keyed(body, &salt))
    }

    /// Of the body with this SHA-256, the same in every proxy: the first 64 bits of it.
    ///
    /// Proxies that share a store have no secret in common that outlives a rotation of keys, and a
    /// keyed SipHash whose key is known can be steered to any value. To make a second body that
    /// agrees with a given one takes 2^64 tries here.
    #[must_use]
    pub(crate) fn digest(sha256: &[u8; 32]) -> Self {
        Self::new(sha256.first_chunk().copied().map_or(0, u64::from_be_bytes))
    }

    /// The hash of the body.
    #[must_use]
    pub(crate) const fn as_u64(self) -> u64 {
        self.body
    }
}

/// What is known of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A request with this token is on its way to the upstream.
    Claimed(OwnerToken),
    /// The upstream answered 2xx to a body with this fingerprint.
    Delivered(Fingerprint),
}

type Tag = [u8; 10];
/// Distinguishes the events of one message id from those of others in the same bucket.
type IdTag = [u8; 4];

const RECORD: usize = 32;

/// By how many records the stored form of a bucket grows: half of what it holds at most, so that in
/// a full store all have one size.
const STEP: usize = 40;

/// By how many seconds a lease may outlast a later one before the clock must have stepped back.
/// Workers read one clock, but not at the same moment; this keeps them from writing for nothing.
const CLOCK_SLACK_SECONDS: u64 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    tag: Tag,
    id: IdTag,
    state: State,
    until: UnixMillis,
}

impl Record {
    fn is_live_claim(&self, now: UnixMillis) -> bool {
        matches!(self.state, State::Claimed(_)) && self.until > now
    }

    fn encode(&self) -> [u8; RECORD] {
        let (value, signed, delivered) = match self.state {
            State::Claimed(owner) => (owner.0, 0, 0),
            State::Delivered(fingerprint) => (fingerprint.body, fingerprint.signed, 1),
        };
        let end = self.until.as_millis().min(MOST_MILLIS) << 1 | delivered;
        let mut bytes = [0; RECORD];
        // Six bytes of it are written; the record ends with them.
        let (front, last) = bytes.split_at_mut(26);
        for (to, from) in last.iter_mut().zip(end.to_le_bytes()) {
            *to = from;
        }
        let (tag, front) = front.split_at_mut(10);
        let (id, front) = front.split_at_mut(4);
        let (middle, stamp) = front.split_at_mut(8);
        tag.copy_from_slice(&self.tag);
        id.copy_from_slice(&self.id);
        middle.copy_from_slice(&value.to_le_bytes());
        stamp.copy_from_slice(&signed.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; RECORD]) -> Self {
        let (tag, rest) = bytes.split_at(10);
        let (id, rest) = rest.split_at(4);
        let (middle, rest) = rest.split_at(8);
        let (stamp, _) = rest.split_at(4);
        let value = middle.first_chunk().copied().map_or(0, u64::from_le_bytes);
        let signed = stamp.first_chunk().copied().map_or(0, u32::from_le_bytes);
        let end = end_of(bytes);
        let mut record = Self {
            tag: [0; 10],
            id: [0; 4],
            state: State::Claimed(OwnerToken(value)),
            until: UnixMillis::new(end >> 1),
        };
        record.tag.copy_from_slice(tag);
        record.id.copy_from_slice(id);
        if end & 1 == 1 {
            let fingerprint = Fingerprint::new(value).with_signed(signed);
            record.state = State::Delivered(fingerprint);
        }
        record
    }
}

/// The latest moment that a record holds: the year 6429.
const MOST_MILLIS: u64 = (1 << 47) - 1;

/// The last six bytes of a record: its end, and whether it is delivered.
fn end_of(bytes: &[u8; RECORD]) -> u64 {
    // The two bytes before are another field's.
    bytes.last_chunk().copied().map_or(0, u64::from_le_bytes) >> 16
}

/// What a bucket answers to a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// The event was absent; it is the asker's now. The bucket has to be written back.
    Granted,
    /// Another request holds it. Nothing to write.
    ByAnother,
    /// Another request holds it, under a lease from a time when the clock was ahead; that ends at
    /// the asker's lease end instead. The bucket has to be written back.
    ByAnotherFromAhead,
    /// It was delivered, to a body with this fingerprint. Nothing to write.
    Delivered(Fingerprint),
    /// Every record is a live claim. Nothing to write.
    Full,
    /// Its message id has as many live records as it may. Nothing to write.
    TooMany,
}

/// What one claim may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most records of the bucket.
    pub slots: usize,
    /// Most live records of one message id.
    pub per_id: usize,
}

/// How a change moved the numbers of a bucket: what the gauges and counters need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Claims that came, less claims that went.
    pub claims: i64,
    /// Delivered events that came, less those that went.
    pub delivered: i64,
    /// Delivered events that had to go before the end of their window.
    pub evicted: u32,
}

/// The records of one bucket, as they lie in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    bytes: Vec<u8>,
    change: Change,
}

impl Bucket {
    /// Over bytes that a store holds. A torn tail is not a record and is forgotten.
    #[must_use]
    pub fn new(mut bytes: Vec<u8>) -> Self {
        let (records, _) = bytes.as_chunks::<RECORD>();
        let last = records.iter().rposition(|record| end_of(record) != 0);
        bytes.truncate(last.map_or(0, |last| (last + 1).saturating_mul(RECORD)));
        Self {
            bytes,
            change: Change::default(),
        }
    }

    /// The bytes to write back.
    #[must_use]
    pub fn into_bytes(mut self) -> Vec<u8> {
        const ZEROS: [u8; STEP * RECORD] = [0; STEP * RECORD];
        let missing = self.bytes.len().next_multiple_of(ZEROS.len()) - self.bytes.len();
        self.bytes
            .extend_from_slice(ZEROS.get(..missing).unwrap_or_default());
        self.bytes
    }

    /// What the calls on this bucket have changed so far.
    #[must_use]
    pub fn change(&self) -> Change {
        self.change
    }

    /// The number of records, ended ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() / RECORD
    }

    /// Whether there is no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Claims the event `key` of the message id `id` for `owner` until `lease_end`, within `limits`.
    ///
    /// A record whose lease or window has ended counts as absent. Where the bucket has no room the
    /// oldest delivered record makes some; a live claim never does. A claim of another that would
    /// outlive the asker's was made before the clock stepped back: its lease is cut to the asker's,
    /// or the event would be out of reach for as long as the step.
    pub fn claim(
        &mut self,
        key: &EventKey,
        id: IdKey,
        owner: OwnerToken,
        lease_end: UnixMillis,
        limits: Limits,
        now: UnixMillis,
    ) -> Claimed {
        let (tag, id, slots) = (key.tag(), id_tag(id), limits.slots);
        if let Some((at, mut record)) = self.find(&tag)
            && record.until > now
        {
            return match record.state {
                State::Claimed(_) if record.until > lease_end.plus_seconds(CLOCK_SLACK_SECONDS) => {
                    record.until = lease_end;
                    self.replace(at, &record);
                    Claimed::ByAnotherFromAhead
                }
                State::Claimed(_) => Claimed::ByAnother,
                State::Delivered(fingerprint) => Claimed::Delivered(fingerprint),
            };
        }
        if self.len() >= limits.per_id {
            let is_of_id = |record: &Record| record.id == id && record.until > now;
            if self.records().filter(is_of_id).count() >= limits.per_id {
                return Claimed::TooMany;
            }
        }
        if self.len() >= slots && self.records().all(|record| record.is_live_claim(now)) {
            return Claimed::Full;
        }
        self.make_room(slots, now);
        self.append(&Record {
            tag,
            id,
            state: State::Claimed(owner),
            until: lease_end,
        });
        Claimed::Granted
    }

    /// Settles the claim of `owner` on `key` as delivered until `window_end`. Returns whether the
    /// bucket has to be written back.
    ///
    /// A claim whose lease ended meanwhile is settled too, unless another request has claimed the
    /// event since: that one settles for itself. If all other records are live claims, the
    /// bucket grows past `slots` by this one record: a delivered event is never forgotten at once.
    #[allow(
        clippy::too_many_arguments,
        reason = "the fields of a record, and the limits"
    )]
    pub fn deliver(
        &mut self,
        key: &EventKey,
        id: IdKey,
        owner: OwnerToken,
        fingerprint: Fingerprint,
        window_end: UnixMillis,
        slots: usize,
        now: UnixMillis,
    ) -> bool {
        let (tag, id) = (key.tag(), id_tag(id));
        match self.find(&tag) {
            Some((
                _,
                Record {
                    state: State::Claimed(holder),
                    until,
                    ..
                },
            )) if holder != owner && until > now => {
                return false;
            }
            Some((
                _,
                Record {
                    state: State::Delivered(_),
                    until,
                    ..
                },
            )) if until > now => {
                return false;
            }
            Some((at, _)) => self.remove(at),
            None => {}
        }
        self.make_room(slots, now);
        self.append(&Record {
            tag,
            id,
            state: State::Delivered(fingerprint),
            until: window_end,
        });
        true
    }

    /// Releases the claim of `owner` on `key`: the event is absent again. Returns whether the
    /// bucket has to be written back.
    pub fn release(&mut self, key: &EventKey, owner: OwnerToken) -> bool {
        match self.find(&key.tag()) {
            Some((
                at,
                Record {
                    state: State::Claimed(holder),
                    ..
                },
            )) if holder == owner => {
                self.remove(at);
                true
            }
            _ => false,
        }
    }

    fn records(&self) -> impl Iterator<Item = Record> + '_ {
        self.bytes
            .as_chunks::<RECORD>()
            .0
            .iter()
            .map(Record::decode)
    }

    fn position(&self, is: impl Fn(&Record) -> bool) -> Option<usize> {
        self.records().position(|record| is(&record))
    }

    fn find(&self, tag: &Tag) -> Option<(usize, Record)> {
        let (records, _) = self.bytes.as_chunks::<RECORD>();
        let at = records.iter().position(|record| record.starts_with(tag))?;
        records.get(at).map(|record| (at, Record::decode(record)))
    }

    fn append(&mut self, record: &Record) {
        self.count(record.state, 1);
        self.bytes.extend_from_slice(&record.encode());
    }

    fn replace(&mut self, at: usize, record: &Record) {
        let (records, _) = self.bytes.as_chunks_mut::<RECORD>();
        if let Some(place) = records.get_mut(at) {
            *place = record.encode();
        }
    }

    fn remove(&mut self, at: usize) {
        let start = at.saturating_mul(RECORD);
        if let Some((record, _)) = self
            .bytes
            .get(start..)
            .and_then(|rest| rest.split_first_chunk())
        {
            let record = Record::decode(record);
            self.bytes.drain(start..start.saturating_add(RECORD));
            self.count(record.state, -1);
        }
    }

    fn remove_ended(&mut self, now: UnixMillis) {
        while let Some(at) = self.position(|record| record.until <= now) {
            self.remove(at);
        }
    }

    /// Removes what has ended, then the oldest delivered records, until one more fits or only
    /// live claims are left.
    fn make_room(&mut self, slots: usize, now: UnixMillis) {
        self.remove_ended(now);
        while self.len() >= slots {
            let oldest = self.position(|record| matches!(record.state, State::Delivered(_)));
            let Some(oldest) = oldest else { return };
            self.remove(oldest);
            self.change.evicted = self.change.evicted.saturating_add(1);
        }
    }

    fn count(&mut self, state: State, by: i64) {
        match state {
            State::Claimed(_) => self.change.claims += by,
            State::Delivered(_) => self.change.delivered += by,
        }
    }
}

/// The half of an [`IdKey`] that does not choose the bucket.
fn id_tag(id: IdKey) -> IdTag {
    let [.., a, b, c, d] = id.local.to_le_bytes();
    [a, b, c, d]
}
