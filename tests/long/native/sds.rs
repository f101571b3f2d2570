//! Secrets that Envoy delivers (SDS): docs/native.md, as it says.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use callback_guard_harness::page::{self, Block};
use callback_guard_harness::{Filter, Request, native, wait};
use serde_json::{Value, json};
use tempfile::TempDir;

use callback_guard_support::{Builder, Guarded, SECRET, event, signed_under};

const OTHER: &str = "the-new-secret-of-the-sender";
const TAKEN: &str = "wasmcustom.callback_guard.secret_updates_total";
const NOT_TAKEN: &str = "wasmcustom.callback_guard.secret_update_failures_total";

// The tests that the blocks of docs/native.md name.
const PLACE: &str = "a_secret_that_comes_later_and_is_rotated_counts_on_every_worker";
const FILE: &str = "what_is_no_secret_is_not_taken_and_the_last_good_one_stays";
const NODE: &str = "a_new_configuration_has_the_secret_at_once";
const KUBERNETES: &str = "a_mounted_secret_of_kubernetes_is_rotated_by_its_link";
const STATIC: &str = "a_static_secret_of_envoy_is_there_from_the_first_request_on";
const WHOLE: &str = "the_complete_configuration_of_the_page_serves";

/// The blocks that name this test.
#[track_caller]
fn blocks<const COUNT: usize>(test: &str) -> [Block; COUNT] {
    let blocks = page::marked("docs/native.md", test).unwrap();
    blocks.try_into().unwrap()
}

#[track_caller]
fn value(test: &str) -> Value {
    let [block] = blocks(test);
    block.value().unwrap()
}

/// Files that Envoy watches, one for each secret.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(format!("{name}.yaml"))
    }

    /// Moves a file with these resources into its place.
    fn put(&self, name: &str, content: &str) {
        let new = self.0.path().join("new");
        fs::write(&new, content).unwrap();
        fs::rename(&new, self.path(name)).unwrap();
    }

    /// As docs/native.md has it, with another value.
    fn deliver(&self, name: &str, secret: &str) {
        let mut file = value(FILE);
        let resource = &mut file["resources"][0];
        resource["name"] = name.into();
        resource["generic_secret"]["secret"] = json!({ "inline_string": secret });
        self.put(name, &file.to_string());
    }

    /// The place of a secret, as docs/native.md has it.
    fn place(&self, name: &str) -> Value {
        let mut secret = value(PLACE);
        secret["sds"] = name.into();
        secret["sds_config"]["path_config_source"]["path"] = path(&self.path(name));
        secret
    }
}

fn path(path: &Path) -> Value {
    path.to_str().unwrap().into()
}

fn builder(secrets: Value) -> Builder {
    named()
        .map(|setup| setup.filter(Filter::Native))
        .configuration(|c| c["sources"][0]["secrets"] = secrets)
}

/// An Envoy with a name.
fn named() -> Builder {
    let node = value(NODE)["node"].take();
    Guarded::builder().render(|render| render.edit(|envoy| envoy["node"] = node))
}

/// Genuine callbacks under `secret`, each of an event of its own, on so many connections that each worker has some.
fn many(guarded: &Guarded, secret: &str) -> Vec<u16> {
    let send = |_| guarded.send(&signed_under(secret, &event("many").0)).status;
    (0..32).map(send).collect()
}

/// Envoy's threads have a secret one after the other: waits until all of them answer as they should.
#[track_caller]
fn wait_for_all(guarded: &Guarded, secret: &str, status: u16) {
    wait::wait_for(&format!("{status} of all workers"), || {
        let seen = many(guarded, secret);
        seen.iter().all(|seen| *seen == status).then_some(())
    })
    .unwrap();
}

#[test]
fn a_secret_that_comes_later_and_is_rotated_counts_on_every_worker() {
    let files = Files::new();
    files.put("suno", "resources: []\n");
    let guarded = builder(json!([files.place("suno")])).workers(3).start();

    let response = guarded.send(&signed_under(SECRET, &event("early").0));
    assert_eq!(response.status, 503);
    assert_eq!(
        response.header("x-callback-guard").unwrap(),
        "internal_error"
    );
    assert!(response.header("retry-after").is_some());
    assert_eq!(many(&guarded, SECRET), [503; 32]);
    assert_eq!(guarded.upstream.heads(), 0);
    assert_eq!(guarded.requests("suno", "internal_error"), 33);
    let told = guarded.envoy.log();
    let missing = r#"{"event":"secrets_missing","names":["suno"]}"#;
    assert_eq!(told.matches(missing).count(), 1, "{told}");

    files.deliver("suno", SECRET);
    wait_for_all(&guarded, SECRET, 200);
    assert_eq!(guarded.stat(TAKEN), 1, "once for all workers");
    let (kept, _) = event("kept");
    assert_eq!(guarded.send(&signed_under(SECRET, &kept)).status, 200);

    files.deliver("suno", OTHER);
    wait_for_all(&guarded, OTHER, 200);
    wait_for_all(&guarded, SECRET, 401);
    assert_eq!(guarded.stat(TAKEN), 2);
    let heads = guarded.upstream.heads();
    let again = guarded.send(&signed_under(OTHER, &kept));
    assert_eq!(again.header("x-callback-guard").unwrap(), "duplicate");
    assert_eq!(guarded.upstream.heads(), heads, "delivered events are kept");

    let log = guarded.envoy.log();
    let line = r#"{"event":"secret","name":"suno","taken":true}"#;
    assert_eq!(log.matches(line).count(), 2, "{log}");
    assert_eq!(guarded.stat(NOT_TAKEN), 0);
    let dump = guarded.envoy.admin_get("/config_dump").unwrap();
    for secret in [SECRET, OTHER] {
        assert!(!log.contains(secret));
        assert!(!dump.contains(secret), "Envoy shows it");
    }
    guarded.assert_alive();
}

#[test]
fn what_is_no_secret_is_not_taken_and_the_last_good_one_stays() {
    let files = Files::new();
    files.deliver("suno", SECRET);
    let guarded = builder(json!([files.place("suno")])).start();
    assert_eq!(many(&guarded, SECRET), [200; 32], "Envoy has waited for it");

    // Each is noticed with a request, and refused by the rules of any secret.
    for (number, (value, problem)) in [
        (" ", "the secret is blank"),
        ("a-secret\n", "the secret ends with a line break"),
    ]
    .into_iter()
    .enumerate()
    {
        files.deliver("suno", value);
        wait::wait_for("the refusal", || {
            assert_eq!(many(&guarded, SECRET), [200; 32]);
            (guarded.stat(NOT_TAKEN) == number as u64 + 1).then_some(())
        })
        .unwrap();
        let line = format!(
            r#"{{"event":"secret","name":"suno","taken":false,"problem":"sources[0].secrets[0].sds: {problem}"}}"#
        );
        let log = guarded.envoy.log();
        assert_eq!(log.matches(&line).count(), 1, "{log}");
    }
    // These are refused by Envoy itself, which keeps what it has: then there is nothing new.
    let rejected = || guarded.stat("sds.suno.update_rejected");
    for wrong in [
        "resources: []\n".to_owned(),
        fs::read_to_string(files.path("suno"))
            .unwrap()
            .replace("suno", "another"),
    ] {
        let before = rejected();
        files.put("suno", &wrong);
        wait::wait_for("Envoy's refusal", || (rejected() > before).then_some(())).unwrap();
        assert_eq!(many(&guarded, SECRET), [200; 32]);
    }
    fs::remove_file(files.path("suno")).unwrap();
    assert_eq!(many(&guarded, SECRET), [200; 32]);
    assert_eq!(guarded.stat(NOT_TAKEN), 2);
    // And what is right is taken after all of that.
    files.deliver("suno", OTHER);
    wait_for_all(&guarded, OTHER, 200);
    guarded.assert_alive();
}

#[test]
fn two_secrets_overlap_while_they_are_rotated() {
    let files = Files::new();
    files.deliver("current", SECRET);
    files.put("previous", "resources: []\n");
    let guarded = builder(json!([files.place("current"), files.place("previous")])).start();
    // One of them is enough.
    assert_eq!(many(&guarded, SECRET), [200; 32]);
    files.deliver("previous", SECRET);
    wait::wait_for("the previous one", || {
        assert_eq!(many(&guarded, SECRET), [200; 32]);
        (guarded.stat(TAKEN) == 2).then_some(())
    })
    .unwrap();
    files.deliver("current", OTHER);
    wait_for_all(&guarded, OTHER, 200);
    assert_eq!(many(&guarded, SECRET), [200; 32], "both are accepted");
    // One that is wrong does not hinder the other.
    files.deliver("current", " ");
    files.deliver("previous", OTHER);
    wait_for_all(&guarded, SECRET, 401);
    assert_eq!(many(&guarded, OTHER), [200; 32]);
    guarded.assert_alive();
}

#[test]
fn a_new_configuration_has_the_secret_at_once() {
    let files = Files::new();
    files.deliver("suno", SECRET);
    let guarded = builder(json!([files.place("suno")])).lds().start();
    assert_eq!(many(&guarded, SECRET), [200; 32]);
    guarded.reload(|c| c["sources"][0]["max_body_bytes"] = json!(5000));
    let seen = many(&guarded, SECRET);
    assert_eq!(seen, [200; 32]);
    files.deliver("suno", OTHER);
    wait_for_all(&guarded, OTHER, 200);
    assert_eq!(guarded.requests("suno", "internal_error"), 0);
    guarded.assert_alive();
}

/// A mounted Secret of Kubernetes: `suno.yaml` leads through `..data`, a link that is replaced.
#[test]
fn a_mounted_secret_of_kubernetes_is_rotated_by_its_link() {
    let files = Files::new();
    let folder = files.0.path();
    let mount = |version: &str, secret: &str| {
        files.deliver("written", secret);
        fs::create_dir(folder.join(version)).unwrap();
        let content = fs::read_to_string(files.path("written")).unwrap();
        let content = content.replace("written", "suno");
        fs::write(folder.join(version).join("suno.yaml"), content).unwrap();
        symlink(version, folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    };
    mount("..1", SECRET);
    symlink("..data/suno.yaml", files.path("suno")).unwrap();
    let mut source = value(KUBERNETES);
    source["path_config_source"]["path"] = path(&files.path("suno"));
    source["path_config_source"]["watched_directory"]["path"] = path(folder);
    let guarded = builder(json!([{ "sds": "suno", "sds_config": source }])).start();
    assert_eq!(many(&guarded, SECRET), [200; 32]);
    mount("..2", OTHER);
    wait_for_all(&guarded, OTHER, 200);
    guarded.assert_alive();
}

#[test]
fn a_subscription_that_envoy_refuses_refuses_the_configuration() {
    let files = Files::new();
    let absent = builder(json!([files.place("suno")])).validate();
    assert!(!absent.is_valid);
    for part in [
        "does not exist",
        "configuration refused: sources[0].secrets[0].sds: Envoy does not subscribe to `suno`",
    ] {
        assert!(absent.log.contains(part), "{part}: {}", absent.log);
    }
    let unknown = builder(json!([{ "sds": "suno" }])).validate();
    assert!(!unknown.is_valid);
    let part = "sources[0].secrets[0].sds: Envoy has no static secret `suno`, expected one under \
                `static_resources.secrets` of its configuration, or `sds_config` beside `sds`";
    assert!(unknown.log.contains(part), "{}", unknown.log);
}

/// Envoy with a static secret.
fn with_static(secret: Value) -> Builder {
    let [mut place, mut of_envoy] = blocks(STATIC).map(|block| block.value().unwrap());
    of_envoy["static_resources"]["secrets"][0]["generic_secret"]["secret"] = secret;
    place["sds"] = of_envoy["static_resources"]["secrets"][0]["name"].clone();
    builder(json!([place])).render(|render| {
        render.edit(|envoy| {
            envoy["static_resources"]["secrets"] = of_envoy["static_resources"]["secrets"].take();
        })
    })
}

#[test]
fn a_static_secret_of_envoy_is_there_from_the_first_request_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("suno-webhook-key");
    fs::write(&file, OTHER).unwrap();
    let guarded = with_static(json!({ "filename": path(&file) })).start();
    assert_eq!(many(&guarded, OTHER), [200; 32]);
    assert_eq!(many(&guarded, SECRET), [401; 32]);
    guarded.assert_alive();
}

#[test]
fn a_static_secret_that_is_wrong_refuses_the_configuration() {
    for (value, problem) in [
        ("", "the secret is empty"),
        (" ", "the secret is blank"),
        ("a-secret\n", "the secret ends with a line break"),
    ] {
        let wrong = with_static(json!({ "inline_string": value })).validate();
        assert!(!wrong.is_valid, "{value:?}");
        let line = format!("configuration refused: sources[0].secrets[0].sds: {problem}");
        assert!(wrong.log.contains(&line), "{}", wrong.log);
    }
}

/// The whole filter of docs/native.md, from the block as it stands but for its paths.
#[test]
fn the_complete_configuration_of_the_page_serves() {
    let files = Files::new();
    let [filter, rotate] = blocks(WHOLE);
    let mut filter = filter.value().unwrap();
    let text = filter["typed_config"]["filter_config"]["value"].clone();
    let text = text.as_str().unwrap();
    let documented = "/etc/envoy/secrets/suno.yaml";
    assert_eq!(text.matches(documented).count(), 1, "{text}");
    filter["typed_config"]["filter_config"]["value"] = text
        .replace(documented, files.path("suno").to_str().unwrap())
        .into();
    let [file] = blocks(FILE);
    files.put("suno", &file.text);
    let module = native::module(&|_| {}).unwrap();
    let directory = module.parent().unwrap().to_str().unwrap().to_owned();
    let guarded = named()
        .map(|setup| {
            setup
                .filter(Filter::Wasm)
                .env(native::SEARCH_PATH_VARIABLE, &directory)
        })
        .render(|render| render.connection_manager(|manager| manager["http_filters"][0] = filter))
        .start();
    let secret = value(FILE)["resources"][0]["generic_secret"]["secret"]["inline_string"].take();
    let secret = secret.as_str().unwrap();
    assert_eq!(many(&guarded, secret), [200; 32]);
    // By the commands of the page, a new file with a new secret.
    let script = rotate
        .text
        .replace("/etc/envoy/secrets", files.0.path().to_str().unwrap())
        .replace("NEW_SECRET", OTHER);
    let output = std::process::Command::new("sh")
        .args(["-ec", &script])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    wait_for_all(&guarded, OTHER, 200);
    assert_eq!(guarded.send(&Request::get("/")).status, 404);
    guarded.assert_alive();
}
