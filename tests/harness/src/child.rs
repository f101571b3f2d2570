//! Child processes that never outlive this one.

use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail};

/// Lines of a failed program's output that its error quotes.
const QUOTED_LINES: usize = 40;

/// Starts `command` such that the kernel ends it when this process ends, however that happens.
///
/// Linux sends that signal when the *thread* that made the child ends, and a test is a thread. So
/// one thread that lives as long as the process makes all children. Elsewhere than on Linux only
/// `Drop` ends them.
pub(crate) fn spawn(command: Command) -> io::Result<Child> {
    struct Order {
        command: Command,
        reply: Sender<io::Result<Child>>,
    }
    static SPAWNER: Mutex<Option<Sender<Order>>> = Mutex::new(None);

    let (reply, answer) = mpsc::channel();
    {
        let mut spawner = SPAWNER.lock().unwrap_or_else(PoisonError::into_inner);
        let orders = match spawner.as_ref() {
            Some(orders) => orders,
            None => {
                let (orders, queue) = mpsc::channel::<Order>();
                thread::Builder::new()
                    .name("spawner".into())
                    .spawn(move || {
                        for mut order in queue {
                            let _ = order.reply.send(order.command.spawn());
                        }
                    })?;
                spawner.insert(orders)
            }
        };
        let command = die_with_parent(command);
        let gone = |_| io::Error::other("the spawning thread is gone");
        orders.send(Order { command, reply }).map_err(gone)?;
    }
    answer
        .recv()
        .map_err(|_| io::Error::other("the spawning thread is gone"))?
}

#[cfg(target_os = "linux")]
fn die_with_parent(mut command: Command) -> Command {
    use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};
    use std::os::unix::process::CommandExt;

    let parent = getpid();
    // The docker client passes SIGTERM on to the container; SIGKILL would leave it running.
    let signal = if command.get_program() == "docker" {
        Signal::TERM
    } else {
        Signal::KILL
    };
    // SAFETY: between fork and exec only two system calls are made; nothing is allocated or locked.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(signal))?;
            // The parent may have died before the call above.
            if getppid() == Some(parent) {
                Ok(())
            } else {
                Err(io::ErrorKind::NotFound.into())
            }
        });
    }
    command
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent(command: Command) -> Command {
    command
}

/// Takes from a build what cargo has set for this program, such as `CARGO_PKG_NAME`.
///
/// Build scripts watch such variables (`ring`'s does): with them a build made here and one made from a shell
/// would each throw away what the other has made.
fn as_from_a_shell(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
}

/// Runs a build or an installation to its end and reports each line that it prints.
///
/// # Errors
///
/// If it cannot be started, or does not succeed; then the error ends with what it printed last.
pub(crate) fn run(mut command: Command, progress: &dyn Fn(&str)) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    as_from_a_shell(&mut command);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = spawn(command).with_context(|| format!("cannot run `{name}`"))?;

    let (lines, printed) = mpsc::channel();
    forward(child.stdout.take(), lines.clone());
    forward(child.stderr.take(), lines);
    let mut tail = Vec::new();
    for line in printed {
        progress(&line);
        tail.push(line);
        if tail.len() > QUOTED_LINES {
            tail.remove(0);
        }
    }

    let status = child.wait()?;
    if !status.success() {
        bail!("`{name}` failed ({status}):\n{}", tail.join("\n"));
    }
    Ok(())
}

/// Sends the lines of `output` from a thread of its own.
fn forward(output: Option<impl Read + Send + 'static>, lines: Sender<String>) {
    let Some(output) = output else { return };
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if !line.is_empty() && lines.send(line).is_err() {
                return;
            }
        }
    });
}
