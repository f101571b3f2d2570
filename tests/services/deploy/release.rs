//! `deploy/release.sh` makes what a release has.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::thread;

use callback_guard_harness::{places, wasm};
use serde_json::Value;
use tempfile::TempDir;

use super::programs::{find, run};
use super::support::path;

/// zig and cargo-zigbuild, where pip puts them.
static ZIG: LazyLock<PathBuf> = LazyLock::new(|| {
    let script = fs::read_to_string(path("deploy/program.sh")).unwrap();
    let (_, packages) = script.split_once("`pip install ").unwrap();
    let (packages, _) = packages.split_once('`').unwrap();
    let home = places::target()
        .join("zig")
        .join(packages.replace(' ', "-"));
    if !home.join("bin/cargo-zigbuild").is_file() {
        run(Command::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"])
            .arg(&home)
            .args(packages.split(' ')));
    }
    home
});

/// A script of the repository, or of a copy of it, that needs zig, with it.
pub fn with_zig(script: impl AsRef<Path>) -> Command {
    let zig = &*ZIG;
    let search = std::env::var("PATH").unwrap();
    let mut command = Command::new(places::repository().join(script));
    command
        .env("PATH", format!("{}/bin:{search}", zig.display()))
        .env("PYTHONPATH", zig);
    command
}

/// The static program of a package.
pub fn program(package: &str, name: &str) -> PathBuf {
    let built = places::release_files();
    run(with_zig("deploy/program.sh")
        .arg(package)
        .arg("--target-dir")
        .arg(&built));
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    built.join(target).join("release").join(name)
}

#[test]
fn a_release_is_complete_and_each_file_runs_anywhere() {
    let parent = TempDir::new().unwrap();
    let directory = parent.path().join("release");
    // At once: each of both leaves a core idle while it links.
    let elsewhere = thread::scope(|scope| {
        let elsewhere = scope.spawn(Elsewhere::build);
        run(with_zig("deploy/release.sh").arg(&directory));
        elsewhere.join().unwrap()
    });
    elsewhere.assert_same(&directory);
    assert_packed_again_the_same(&directory);
    let machine = std::env::consts::ARCH;
    let file = |name: &str| directory.join(name.replace("ARCH", machine));

    run(Command::new("sha256sum")
        .args(["--check", "--strict", "SHA256SUMS"])
        .current_dir(&directory));
    let sums = fs::read_to_string(directory.join("SHA256SUMS")).unwrap();
    assert_eq!(
        sums.lines().count() + 1,
        fs::read_dir(&directory).unwrap().count()
    );
    // Not `assert_eq`, which would print both.
    let module = fs::read(wasm::module(&|_| {}).unwrap()).unwrap();
    assert!(fs::read(file("callback_guard.wasm")).unwrap() == module);

    let version = env!("CARGO_PKG_VERSION");
    for program in ["callback-guard", "callback-guard-inbox"] {
        let path = file(&format!("{program}-ARCH"));
        let said = run(Command::new(&path).arg("--version").env_clear());
        assert_eq!(said, format!("{program} {version}\n"));
        let headers = run(Command::new("readelf").arg("--program-headers").arg(&path));
        assert!(!headers.contains("INTERP"), "{program} is not static");
        // Nothing of the machine that built it.
        let bytes = fs::read(&path).unwrap();
        let home = places::repository().display().to_string();
        assert!(
            !bytes
                .windows(home.len())
                .any(|window| window == home.as_bytes()),
            "{home} in {program}"
        );
        let bill: Value =
            serde_json::from_slice(&fs::read(file(&format!("{program}-ARCH.cdx.json"))).unwrap())
                .unwrap();
        assert_eq!(bill["metadata"]["component"]["version"], version);

        let found = inspect(&file(&format!("{program}-ARCH.oci.tar")));
        assert_eq!(found["config"]["User"], "65534:65534");
        assert_eq!(
            found["config"]["Entrypoint"],
            serde_json::json!([format!("/{program}")])
        );
    }
    let filter = inspect(&directory.join("callback-guard-filter.oci.tar"));
    assert_eq!(filter["history"][0]["comment"], "plugin.wasm");

    let packed = run(Command::new("tar")
        .args(["--list", "--file"])
        .arg(directory.join("callback-guard-kubernetes.tar.gz")));
    for name in [
        "kustomization.yaml",
        "guard.yaml",
        "envoy.yaml",
        "drain.sh",
        "callback_guard.wasm",
    ] {
        let name = format!("callback-guard-kubernetes/{name}\n");
        assert!(packed.contains(&name), "{packed}");
    }
}

/// What another user builds of the same sources, in other folders: the module, and of the programs
/// the one that has C in it. The native build has its second one in the image (`docker::image`); and
/// the workflow of a release compares all of it.
struct Elsewhere {
    folder: TempDir,
}

const USER: &str = "another-user";

impl Elsewhere {
    fn build() -> Self {
        // Not in the repository, where cargo would find its settings.
        let elsewhere = Self {
            folder: TempDir::new().unwrap(),
        };
        let folder = elsewhere.folder.path();
        let copy = folder.join("a-folder-of-another-name");
        fs::create_dir(&copy).unwrap();
        run(Command::new("sh")
            .args(["-c", "git ls-files -z --cached --others --exclude-standard | tar --create --null --files-from=- | tar --extract --directory \"$1\"", "copy"])
            .arg(&copy)
            .current_dir(places::repository()));
        for (name, arguments) in [
            ("another user", ["deploy/module.sh"].as_slice()),
            // Flags for a C compiler cannot have spaces in them.
            (USER, &["deploy/program.sh", "callback-guard-inbox"]),
        ] {
            let home = folder.join(name);
            if !home.exists() {
                fs::create_dir(&home).unwrap();
                for shared in ["config.toml", "registry"] {
                    symlink(cargo_home().join(shared), home.join(shared)).unwrap();
                }
            }
            run(with_zig(copy.join(arguments[0]))
                .args(&arguments[1..])
                .arg("--target-dir")
                .arg(home.join("built"))
                .env("CARGO_HOME", &home)
                .env_remove("CARGO_TARGET_DIR"));
        }
        elsewhere
    }

    #[track_caller]
    fn assert_same(&self, release: &Path) {
        let machine = std::env::consts::ARCH;
        let programs = format!("{USER}/built/{machine}-unknown-linux-musl/release");
        for (built, released) in [
            (
                "another user/built/wasm32-wasip1/release/callback_guard.wasm".to_owned(),
                "callback_guard.wasm".to_owned(),
            ),
            (
                format!("{programs}/callback-guard-inbox"),
                format!("callback-guard-inbox-{machine}"),
            ),
        ] {
            let [there, here] = [self.folder.path().join(built), release.join(&released)]
                .map(|path| fs::read(path).unwrap());
            // Not `assert_eq`, which would print both.
            assert!(there == here, "{released} and a second build");
        }
    }
}

fn cargo_home() -> PathBuf {
    std::env::var_os("CARGO_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cargo"),
        PathBuf::from,
    )
}

/// Images, archives and bills of materials have the same bytes a second time, for another user.
#[track_caller]
fn assert_packed_again_the_same(first: &Path) {
    let parent = TempDir::new().unwrap();
    let second = parent.path().join("again");
    let script = "umask 077 && exec \"$0\" \"$@\"";
    let mut again = with_zig("/bin/sh");
    again.args(["-c", script]);
    again.arg(places::repository().join("deploy/release.sh"));
    run(again.arg(&second));
    let sums = |directory: &Path| fs::read_to_string(directory.join("SHA256SUMS")).unwrap();
    assert_eq!(sums(first), sums(&second));
}

/// The configuration of an image.
fn inspect(archive: &Path) -> Value {
    let said = run(Command::new(find("skopeo", "skopeo"))
        .args(["inspect", "--config"])
        .arg(format!("oci-archive:{}", archive.display())));
    serde_json::from_str(&said).unwrap()
}
