//! URLs that a sender may have signed in place of the one that is configured.

use callback_guard_core::request::Occurrence;
use callback_guard_core::scheme::{Part, SignatureRule};

use super::super::case::Case;

/// The message with each URL that its sender may have signed instead: with what is wrong.
pub(super) fn in_message(
    case: &Case<'_>,
    rule: &SignatureRule,
    parts: &[Vec<u8>],
) -> Vec<(String, Vec<u8>)> {
    let original = match case.head.occurrence(b"x-envoy-original-path") {
        Occurrence::Once(value) => std::str::from_utf8(value).ok(),
        _ => None,
    };
    let mut found = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        // The base of a URL, and behind it path and query as they came.
        let next = index.saturating_add(1);
        let is_target = |piece: &_| matches!(piece, &Part::Target { .. });
        let target = rule
            .message
            .get(next)
            .filter(|piece| is_target(&piece.part));
        let target = target.and(parts.get(next)).map(Vec::as_slice);
        let url = [part.as_slice(), target.unwrap_or_default()].concat();
        let Ok(url) = std::str::from_utf8(&url) else {
            continue;
        };
        let until = if target.is_some() {
            next.saturating_add(1)
        } else {
            next
        };
        for signed in variants(url, original) {
            let mistake = format!("the sender signs for {signed}, not for {url}");
            let before = parts.get(..index).unwrap_or_default().concat();
            let after = parts.get(until..).unwrap_or_default().concat();
            found.push((mistake, [before, signed.into_bytes(), after].concat()));
        }
    }
    found
}

/// `url` with another scheme, port, host in lower case, slash at its end, without query, and with the path that a
/// proxy in front has replaced; empty if it is no URL.
fn variants(url: &str, original: Option<&str>) -> Vec<String> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Vec::new();
    };
    let other = match scheme {
        "https" => "http",
        "http" => "https",
        _ => return Vec::new(),
    };
    let (host, target) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let path = target.split('?').next().unwrap_or_default();
    let query = target.get(path.len()..).unwrap_or_default();
    let toggled = match path.strip_suffix('/') {
        Some(bare) => bare.to_owned(),
        None => format!("{path}/"),
    };
    let bare = host.split(':').next().unwrap_or_default();
    let lower = host.to_ascii_lowercase();
    let mut hosts = vec![host.to_owned(), lower, bare.to_owned()];
    hosts.extend([443, 80, 8443, 8080, 10000].map(|port| format!("{bare}:{port}")));
    let mut targets = vec![
        target.to_owned(),
        format!("{toggled}{query}"),
        path.to_owned(),
    ];
    targets.extend(original.map(str::to_owned));
    let mut found: Vec<String> = Vec::new();
    for target in &targets {
        for host in &hosts {
            for scheme in [scheme, other] {
                let variant = format!("{scheme}://{host}{target}");
                if variant != url && !found.contains(&variant) {
                    found.push(variant);
                }
            }
        }
    }
    found
}
