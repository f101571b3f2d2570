//! The count of what waits stays right, whatever happens while the store is asked.

use callback_guard_inbox::backlog::Backlog;
use callback_guard_inbox::store::Counts;

const BYTES: u64 = 300;

fn counts(backlog: u64) -> Counts {
    Counts {
        backlog,
        bytes: backlog * BYTES,
        dead: 0,
        oldest: None,
        is_paused: false,
    }
}

/// Every order in which three steps of a change and three of a count can follow each other; `true`
/// is a step of the change.
fn orders() -> impl Iterator<Item = Vec<bool>> {
    (0_u8..64)
        .filter(|bits| bits.count_ones() == 3)
        .map(|bits| (0..6).map(|step| bits >> step & 1 == 1).collect())
}

/// Counts while a change happens: `change` makes its steps 0 to 2 and says what the store holds.
fn count_during(backlog: &Backlog, order: &[bool], mut change: impl FnMut(usize) -> u64) {
    let (mut changed, mut counted, mut stored, mut said) = (0, 0, 1, None);
    for &is_change in order {
        if is_change {
            stored = change(changed);
            changed += 1;
            continue;
        }
        match counted {
            0 => backlog.begin_count(),
            1 => said = Some(counts(stored)),
            _ => backlog.correct(&said.take().unwrap()),
        }
        counted += 1;
    }
}

#[test]
fn an_event_that_comes_while_the_store_is_asked_counts_once() {
    assert_eq!(orders().count(), 20);
    for order in orders() {
        let backlog = Backlog::new(10, 10_000);
        backlog.reserve(BYTES).unwrap().keep();
        let mut place = None;
        count_during(&backlog, &order, |step| match step {
            0 => {
                place = backlog.reserve(BYTES);
                1
            }
            1 => 2,
            _ => {
                place.take().unwrap().keep();
                2
            }
        });
        assert_eq!(backlog.amount(), (2, 2 * BYTES), "{order:?}");
    }
}

#[test]
fn an_event_that_ends_while_the_store_is_asked_is_no_longer_counted() {
    for order in orders() {
        let backlog = Backlog::new(10, 10_000);
        backlog.reserve(BYTES).unwrap().keep();
        let mut ending = None;
        count_during(&backlog, &order, |step| match step {
            0 => {
                ending = Some(backlog.ending(BYTES));
                1
            }
            1 => 0,
            _ => {
                ending.take().unwrap().ended();
                0
            }
        });
        assert_eq!(backlog.amount(), (0, 0), "{order:?}");
    }
}

#[test]
fn what_others_did_to_the_store_is_learnt_by_the_next_count() {
    let backlog = Backlog::new(10, 10_000);
    backlog.reserve(BYTES).unwrap().keep();
    for stored in [5, 0, 1] {
        backlog.begin_count();
        backlog.correct(&counts(stored));
        assert_eq!(backlog.amount(), (stored, stored * BYTES));
    }
    // Beside a change in doubt, all but that change.
    let place = backlog.reserve(BYTES).unwrap();
    backlog.begin_count();
    backlog.correct(&counts(8));
    assert_eq!(backlog.amount(), (7, 7 * BYTES));
    drop(place);
    assert_eq!(backlog.amount(), (6, 6 * BYTES));
}

#[test]
fn room_that_was_not_used_and_an_attempt_that_failed_change_nothing() {
    let backlog = Backlog::new(2, 2 * BYTES);
    drop(backlog.reserve(BYTES));
    assert_eq!(backlog.amount(), (0, 0));
    backlog.reserve(BYTES).unwrap().keep();
    drop(backlog.ending(BYTES));
    assert_eq!(backlog.amount(), (1, BYTES));
    assert!(backlog.reserve(BYTES + 1).is_none());
    backlog.reserve(BYTES).unwrap().keep();
    assert!(backlog.reserve(0).is_none());
}
