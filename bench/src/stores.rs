//! Redis, and Webdis in front of it, as `deploy/redis` starts them but for the addresses.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::port::{free_port, wait_until_open};
use crate::process::Process;

/// The variable that the guard reads the credentials of Webdis from, and those.
pub(crate) const TOKEN: (&str, &str) = ("CALLBACK_GUARD_REDIS_TOKEN", "guard:change-me-webdis");
/// The variable that the native build reads the URL of Redis from.
pub(crate) const URL: &str = "CALLBACK_GUARD_REDIS_URL";

/// The URL of the Redis at `port`.
pub(crate) fn url(port: u16) -> String {
    format!("redis://default:change-me-redis@127.0.0.1:{port}/0")
}

/// A server and its port.
pub(crate) type Server = (Process, u16);

/// An empty Redis. `name` names its folder below `folder`.
pub(crate) fn redis(folder: &Path, name: &str) -> Result<Server> {
    let own = folder.join(name);
    if own.exists() {
        fs::remove_dir_all(&own).with_context(|| own.display().to_string())?;
    }
    fs::create_dir_all(&own)?;
    let users = own.join("users.acl");
    fs::write(&users, include_str!("../../deploy/redis/users.acl"))?;
    let port = free_port()?;
    let mut command = Command::new(program("redis-server")?);
    command.arg("--aclfile").arg(&users).arg("--dir").arg(&own);
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
    command.args(["--appendonly", "yes", "--appendfsync", "everysec"]);
    // No second process in the middle of a run.
    command.args(["--save", "", "--auto-aof-rewrite-percentage", "0"]);
    start("Redis", command, &own.join("out.log"), port)
}

/// Webdis in front of the Redis at `redis`.
pub(crate) fn webdis(folder: &Path, name: &str, redis: u16) -> Result<Server> {
    let own = folder.join(name);
    fs::create_dir_all(&own)?;
    let port = free_port()?;
    let mut config: Value = serde_json::from_str(include_str!("../../deploy/redis/webdis.json"))?;
    let local = json!({
        "redis_host": "127.0.0.1",
        "redis_port": redis,
        "http_host": "127.0.0.1",
        "http_port": port,
        "logfile": own.join("webdis.log"),
    });
    if let (Some(config), Value::Object(local)) = (config.as_object_mut(), local) {
        config.extend(local);
    }
    let file = own.join("webdis.json");
    fs::write(&file, config.to_string())?;
    let mut command = Command::new(program("webdis")?);
    command.arg(file);
    start("Webdis", command, &own.join("webdis-out.log"), port)
}

fn start(role: &'static str, command: Command, log: &Path, port: u16) -> Result<Server> {
    let process = Process::start(role, command, log)?;
    wait_until_open(port).with_context(|| format!("starting {role}"))?;
    Ok((process, port))
}

/// A program in the `PATH`, or where Debian puts servers.
fn program(name: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .with_context(|| format!("`{name}` is not there: apt-get install redis-server webdis"))
}
