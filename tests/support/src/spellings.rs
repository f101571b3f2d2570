//! Other spellings of a path: what applications and proxies commonly ignore, in every combination.

/// One trick, and what it makes of a path.
pub type Trick = (&'static str, fn(&str) -> String);

/// All tricks, in the order in which they are played when there are several.
pub const TRICKS: &[Trick] = &[
    ("case", |path| path.to_uppercase()),
    ("a format", |path| format!("{path}.json")),
    ("a parameter", |path| format!("{path};v=1")),
    ("a parameter before", |path| after_first(path, ";v=1")),
    ("NUL", |path| format!("{path}%00")),
    ("NUL and more", |path| format!("{path}%00.html")),
    ("space", |path| format!("{path}%20")),
    ("tab", |path| format!("{path}%09")),
    ("slash", |path| format!("{path}/")),
    ("two slashes", |path| path.replacen('/', "//", 2)),
    ("one inside", |path| after_first(path, "/")),
    (".", |path| format!("/.{path}")),
    (". at the end", |path| format!("{path}/.")),
    ("..", |path| format!("/x/..{path}")),
    (".. behind a slash", |path| format!("/x//../..{path}")),
    ("a script", |path| format!("/index.php{path}")),
    ("a host", |path| format!("//evil{path}")),
    ("a backslash", |path| last_slash(path, "\\")),
    ("an escaped slash", |path| last_slash(path, "%2f")),
    ("an escaped backslash", |path| last_slash(path, "%5C")),
    ("an escape", |path| {
        escape_first(path, |byte| format!("%{byte:02x}"))
    }),
    ("two escapes", |path| {
        escape_first(path, |byte| format!("%25{byte:02x}"))
    }),
    ("an escape of IIS", |path| {
        escape_first(path, |byte| format!("%u{byte:04x}"))
    }),
    ("overlong", |path| {
        escape_first(path, |byte| {
            format!("%{:02X}%{:02X}", 0xc0 | byte >> 6, 0x80 | byte & 0x3f)
        })
    }),
    ("full width", |path| {
        escape_first(path, |byte| {
            let wide = char::from_u32(u32::from(byte) + 0xfee0).unwrap();
            wide.to_string()
                .bytes()
                .map(|byte| format!("%{byte:02X}"))
                .collect()
        })
    }),
];

/// `path` with the tricks of a set: bit `n` stands for trick `n`.
pub fn spelled(path: &str, set: u32) -> String {
    let mut spelled = path.to_owned();
    for (number, (_, play)) in TRICKS.iter().enumerate() {
        if set >> number & 1 == 1 {
            spelled = play(&spelled);
        }
    }
    spelled
}

/// The sets of at most `most` tricks, but for the empty one.
pub fn sets(most: u32) -> impl Iterator<Item = u32> {
    let mut all = vec![0_u32];
    let mut first = 0;
    for _ in 0..most {
        // Each of the sets of the size before, and one trick behind its last.
        let end = all.len();
        for at in first..end {
            let set = all[at];
            let behind = set.checked_ilog2().map_or(0, |last| last + 1);
            let tricks = u32::try_from(TRICKS.len()).unwrap();
            all.extend((behind..tricks).map(|trick| set | 1 << trick));
        }
        first = end;
    }
    all.into_iter().skip(1)
}

/// `text` put in behind the first segment.
fn after_first(path: &str, text: &str) -> String {
    match path.get(1..).and_then(|rest| rest.find('/')) {
        Some(at) => format!("{}{text}{}", &path[..=at], &path[at + 1..]),
        None => path.to_owned(),
    }
}

/// The last slash that is not the first byte as `text`.
fn last_slash(path: &str, text: &str) -> String {
    match path.rfind('/') {
        Some(at) if at > 0 => format!("{}{text}{}", &path[..at], &path[at + 1..]),
        _ => path.to_owned(),
    }
}

/// The first letter of the path that is no part of an escape as `escape` has it.
fn escape_first(path: &str, escape: impl Fn(u8) -> String) -> String {
    let bytes = path.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at..] {
            [b'%', b'u', ..] => at += 6,
            [b'%', b'2', b'5', ..] => at += 5,
            [b'%', ..] => at += 3,
            [byte, ..] if byte.is_ascii_alphabetic() => {
                return format!("{}{}{}", &path[..at], escape(byte), &path[at + 1..]);
            }
            _ => at += 1,
        }
    }
    path.to_owned()
}
