//! Which requests are sent to which row, and in which rounds.

use clap::ValueEnum;

use crate::setups::{AGAIN, BEFORE, FLOOR, GUARD, LUA, NATIVE, NATIVE_REDIS, PLAIN, Setup, WEBDIS};
use crate::traffic::{Kind, Sender, Traffic};

/// Bytes of a small body.
pub(crate) const SMALL: usize = 130;
/// Bytes of the larger ones.
pub(crate) const LARGE: [usize; 3] = [4 << 10, 64 << 10, 1 << 20];
/// A row that no target needs runs in every third round.
const SELDOM: usize = 3;

/// The kinds of requests that can be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Choice {
    /// Genuine new events of 130 bytes.
    New,
    /// One genuine event, over and over.
    Duplicate,
    /// Signed with another key.
    Forged,
    /// With neither signature nor timestamp.
    Unsigned,
    /// Signed, and broken JSON.
    Malformed,
    /// New events of 4 KiB, 64 KiB and 1 MiB.
    Large,
    /// New events of every size, with the body signed.
    Signed,
    /// A connection for each request.
    Closing,
}

impl Choice {
    fn of(traffic: Traffic) -> Self {
        match traffic.kind {
            _ if traffic.is_last => Self::Closing,
            _ if traffic.sender == Sender::BodySigner => Self::Signed,
            _ if traffic.size > SMALL => Self::Large,
            Kind::New => Self::New,
            Kind::Duplicate => Self::Duplicate,
            Kind::Forged => Self::Forged,
            Kind::Unsigned => Self::Unsigned,
            Kind::Malformed => Self::Malformed,
        }
    }
}

/// A small request of Suno's.
pub(crate) fn small(kind: Kind) -> Traffic {
    Traffic {
        kind,
        sender: Sender::Suno,
        size: SMALL,
        is_last: false,
        path: None,
    }
}

/// What a row can be sent.
pub(crate) fn all(setup: &Setup) -> Vec<Traffic> {
    let new = small(Kind::New);
    let signed = Traffic {
        sender: Sender::BodySigner,
        ..new
    };
    let one_each = |kind| Traffic {
        is_last: true,
        ..small(kind)
    };
    let sized = |traffic: Traffic| LARGE.map(|size| Traffic { size, ..traffic });
    let decided = [Kind::Duplicate, Kind::Forged, Kind::Unsigned].map(small);
    if setup.workers > 1 {
        return vec![new];
    }
    let mut list = vec![new];
    match setup.name.as_str() {
        PLAIN => {
            list.push(one_each(Kind::New));
            list.extend(sized(new));
        }
        AGAIN => list.extend(decided),
        WEBDIS | NATIVE_REDIS => {}
        GUARD | NATIVE => {
            list.extend(decided);
            list.extend([one_each(Kind::Unsigned), small(Kind::Malformed)]);
            list.extend(sized(new));
            list.push(signed);
            list.extend(sized(signed));
        }
        // Builds that are compared.
        name if name.starts_with(GUARD) => {
            list.extend(decided);
            list.extend(sized(new));
            list.extend(sized(signed));
        }
        "Envoy direct_response" => {
            return vec![small(Kind::Unsigned), one_each(Kind::Unsigned)];
        }
        FLOOR | "floor, hashing" => list.extend(sized(new)),
        "Node + Express" | "Python + FastAPI" => list.insert(
            0,
            Traffic {
                path: Some("/plain"),
                ..new
            },
        ),
        _ => {}
    }
    list
}

/// What a row is sent if only `chosen` is wanted. Plain Envoy always gets what the others are compared
/// with.
pub(crate) fn chosen(setup: &Setup, chosen: &[Choice]) -> Vec<Traffic> {
    let mut list = all(setup);
    if !chosen.is_empty() {
        list.retain(|traffic| {
            let sizes_above_small = [Choice::Large, Choice::Signed];
            let is_base = setup.name == PLAIN
                && traffic.kind == Kind::New
                && !traffic.is_last
                && (traffic.size == SMALL
                    || chosen
                        .iter()
                        .any(|choice| sizes_above_small.contains(choice)));
            is_base || chosen.contains(&Choice::of(*traffic))
        });
    }
    list
}

/// In how many rounds a row has one turn.
pub(crate) fn every(setup: &Setup, traffic: Traffic) -> usize {
    let names: &[&str] = match Choice::of(traffic) {
        _ if setup.workers > 1 || traffic.path.is_some() => &[],
        Choice::New => &[
            PLAIN,
            FLOOR,
            GUARD,
            AGAIN,
            BEFORE,
            NATIVE,
            LUA,
            WEBDIS,
            NATIVE_REDIS,
        ],
        Choice::Duplicate | Choice::Forged | Choice::Unsigned => &[GUARD, AGAIN, BEFORE],
        _ => &[],
    };
    if names.contains(&setup.name.as_str()) {
        1
    } else {
        SELDOM
    }
}

/// What the report calls it.
pub(crate) fn label(traffic: Traffic) -> String {
    let mut label = match (traffic.kind, traffic.path) {
        (_, Some(_)) => "no check",
        (Kind::New, None) => "new",
        (Kind::Duplicate, None) => "duplicate",
        (Kind::Forged, None) => "forged",
        (Kind::Unsigned, None) => "unsigned",
        (Kind::Malformed, None) => "malformed",
    }
    .to_owned();
    if traffic.sender == Sender::BodySigner {
        label += SIGNED;
    }
    if traffic.is_last {
        label += ", a connection each";
    }
    label
}

/// Behind the name of traffic whose body is signed.
pub(crate) const SIGNED: &str = ", body signed";

/// Whose turn is first in a round: another one in each, so that none always follows the same quiet or the
/// same noise.
pub(crate) fn first_of(round: usize, rounds: usize, rows: usize) -> usize {
    let step = (rows / rounds.max(1)).max(1);
    round * step % rows.max(1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn setup(name: &str, workers: usize) -> Setup {
        Setup {
            name: name.to_owned(),
            port: 9,
            workers,
            processes: Vec::new(),
            refuses: true,
        }
    }

    #[test]
    fn each_round_begins_with_another_row() {
        for (rounds, rows) in [(3, 73), (18, 73), (5, 5), (7, 8)] {
            let firsts: BTreeSet<usize> = (0..rounds)
                .map(|round| first_of(round, rounds, rows))
                .collect();
            assert_eq!(firsts.len(), rounds, "{rounds} rounds of {rows} rows");
            assert!(firsts.iter().all(|first| *first < rows));
        }
        // More rounds than rows: all have their turn.
        let firsts: BTreeSet<usize> = (0..30).map(|round| first_of(round, 30, 4)).collect();
        assert_eq!(firsts.len(), 4);
    }

    #[test]
    fn only_what_is_chosen_is_sent_and_what_it_is_compared_with() {
        let names = |setup: &Setup, choices: &[Choice]| -> Vec<(String, usize)> {
            let list = chosen(setup, choices);
            list.into_iter()
                .map(|traffic| (label(traffic), traffic.size))
                .collect()
        };
        let (plain, guard) = (setup(PLAIN, 1), setup(GUARD, 1));
        let new = ("new".to_owned(), SMALL);
        for (setup, choice) in [(&guard, Choice::New), (&plain, Choice::Forged)] {
            assert_eq!(names(setup, &[choice]), std::slice::from_ref(&new));
        }
        let forged = [("forged".to_owned(), SMALL)];
        assert_eq!(names(&guard, &[Choice::Forged]), forged);
        assert!(names(&setup(FLOOR, 1), &[Choice::Forged]).is_empty());
        let signed = names(&guard, &[Choice::Signed]);
        for (_, size) in signed.iter() {
            let base = ("new".to_owned(), *size);
            assert!(names(&plain, &[Choice::Signed]).contains(&base), "{size}");
        }
        assert_eq!(signed.len(), 1 + LARGE.len());
    }

    /// A target whose rows ran in few rounds would be met or missed by chance.
    #[test]
    fn rows_of_the_targets_run_in_every_round() {
        for name in [FLOOR, LUA, NATIVE, GUARD, BEFORE, WEBDIS, NATIVE_REDIS] {
            assert_eq!(every(&setup(name, 1), small(Kind::New)), 1, "{name}");
        }
        assert_eq!(every(&setup("nginx + njs", 1), small(Kind::New)), SELDOM);
    }
}
