//! What the two ends have seen, in words.

/// A status, and the guard's own word if it has answered.
pub(super) fn words(status: u16, code: Option<&str>) -> String {
    match code {
        Some(code) => format!("{status} {code}"),
        None => status.to_string(),
    }
}

/// Answers in their order, equal neighbours counted.
pub(super) fn answers(all: impl Iterator<Item = String>) -> String {
    let mut runs: Vec<(String, usize)> = Vec::new();
    for answer in all {
        match runs.last_mut() {
            Some((last, count)) if *last == answer => *count = count.saturating_add(1),
            _ => runs.push((answer, 1)),
        }
    }
    let runs: Vec<String> = runs
        .into_iter()
        .map(|(answer, count)| match count {
            1 => answer,
            count => format!("{count}x {answer}"),
        })
        .collect();
    runs.join(", ")
}

/// So many callbacks, in words.
pub(super) fn callbacks(count: usize) -> String {
    match count {
        0 => "nothing".to_owned(),
        1 => "1 callback".to_owned(),
        count => format!("{count} callbacks"),
    }
}
