//! `send`.

use crate::support::run;

#[test]
fn every_kind_is_listed_with_its_page() {
    let run = run(&["send", "--list-kinds"]);
    assert_eq!(run.code, 0);
    let lines: Vec<&str> = run.out.lines().collect();
    assert_eq!(lines.len(), 54);
    for line in lines {
        assert!(line.contains(" https://docs.kie.ai/"), "{line}");
    }
}

#[test]
fn nobody_there_is_a_no() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", free.local_addr().unwrap());
    drop(free);
    let run = run(&["send", &url]);
    assert_eq!((run.code, run.out.as_str()), (1, ""));
    assert!(
        run.err.starts_with(&format!("{url}: cannot connect: ")),
        "{}",
        run.err
    );
}
