//! The pages of the documentation. What a page prints is run by a test: that very text, not a copy of it.
//!
//! `<!-- run: NAME -->` on the line before a block names the test, which asks [`block`] for it by the same
//! name. `tests/documents.rs` sees to it that no block is left out.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::{child, places};

/// A fenced block of a page.
#[derive(Clone, Debug)]
pub struct Block {
    /// Where it begins, counted from 1.
    pub line: usize,
    /// The word after the opening fence, such as `sh`.
    pub language: String,
    /// The test that runs it.
    pub run_by: Option<String>,
    /// What is in it, without the indentation of the fence.
    pub text: String,
}

impl Block {
    /// What is to be typed: one command each, without comments and without the prompt of a console.
    pub fn commands(&self) -> Vec<String> {
        let is_console = self.language == "console";
        let text = self.text.replace("\\\n", " ");
        let lines = text.lines().filter_map(|line| match is_console {
            true => line.strip_prefix("$ "),
            false => Some(line),
        });
        let commands = lines.map(|line| {
            let line = match line.strip_prefix('#') {
                Some(_) => "",
                None => line.split(" #").next().unwrap_or_default(),
            };
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        });
        commands.filter(|command| !command.is_empty()).collect()
    }

    /// The value that it is, as YAML or JSON.
    ///
    /// # Errors
    ///
    /// If it is neither.
    pub fn value(&self) -> Result<Value> {
        yaml_serde::from_str(&self.text).with_context(|| format!("line {}", self.line))
    }
}

/// All fenced blocks of a page's text.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut before = "";
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let inner = line.trim_start();
        if let Some(language) = inner.strip_prefix("```") {
            let indent = line.len() - inner.len();
            let inside = lines.by_ref().map(|(_, line)| line);
            let inside = inside.take_while(|line| !line.trim_start().starts_with("```"));
            let inside = inside.map(|line| line.get(indent..).unwrap_or_default());
            let mark = before.trim().strip_prefix("<!-- run: ");
            found.push(Block {
                line: at + 1,
                language: language.to_owned(),
                run_by: mark.and_then(|mark| Some(mark.strip_suffix(" -->")?.to_owned())),
                text: inside.collect::<Vec<_>>().join("\n"),
            });
        }
        before = line;
    }
    found
}

/// The files of the repository whose names end so, with their texts, by their paths in it. What tools make
/// is left out.
///
/// # Errors
///
/// If one cannot be read.
pub fn files(end: &str) -> Result<BTreeMap<String, String>> {
    fn walk(folder: &Path, end: &str, found: &mut Vec<PathBuf>) -> Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !path.is_dir() {
                found.extend(name.ends_with(end).then_some(path.clone()));
            } else if !["target", "node_modules", ".git", "corpus"].contains(&&*name) {
                walk(&path, end, found)?;
            }
        }
        Ok(())
    }
    let root = places::repository();
    let mut found = Vec::new();
    walk(&root, end, &mut found)?;
    let named = found.into_iter().map(|path| {
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let name = path.strip_prefix(&root)?.to_string_lossy().into_owned();
        Ok((name, text))
    });
    named.collect()
}

/// All pages.
///
/// # Errors
///
/// If one cannot be read.
pub fn all() -> Result<BTreeMap<String, String>> {
    files(".md")
}

/// The text of a page, by its path in the repository.
///
/// # Errors
///
/// If there is none.
pub fn text(page: &str) -> Result<String> {
    fs::read_to_string(places::repository().join(page)).with_context(|| page.to_owned())
}

/// The block of a page that is marked as run by this test.
///
/// # Errors
///
/// If there is not exactly one.
pub fn block(page: &str, test: &str) -> Result<Block> {
    let mut marked = marked(page, test)?;
    ensure!(marked.len() == 1, "{page}: {} of {test}", marked.len());
    Ok(marked.remove(0))
}

/// The blocks of a page that are marked as run by this test: one or more.
///
/// # Errors
///
/// If there is none.
pub fn marked(page: &str, test: &str) -> Result<Vec<Block>> {
    let mut blocks = blocks(&text(page)?);
    blocks.retain(|block| block.run_by.as_deref() == Some(test));
    ensure!(!blocks.is_empty(), "{page}: no block is run by {test}");
    Ok(blocks)
}

/// Does what a page says, in a folder and with programs of its own.
#[derive(Debug)]
pub struct Reader {
    folder: TempDir,
    environment: Vec<(String, OsString)>,
    instead: Vec<(String, String)>,
}

/// What a command gave.
#[derive(Debug)]
pub struct Said {
    /// How it ended.
    pub code: Option<i32>,
    /// All that it wrote.
    pub text: String,
}

impl Reader {
    /// A reader with an empty folder.
    ///
    /// # Errors
    ///
    /// If the folder cannot be made.
    pub fn new() -> Result<Self> {
        let folder = places::run()?;
        let programs = folder.path().join("bin");
        fs::create_dir(&programs)?;
        let mut path = programs.into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        Ok(Self {
            folder,
            environment: vec![("PATH".to_owned(), path)],
            instead: Vec::new(),
        })
    }

    /// Where it works.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A program that it has.
    ///
    /// # Errors
    ///
    /// If that cannot be given to it.
    pub fn program(self, name: &str, path: &Path) -> Result<Self> {
        symlink(path, self.folder().join("bin").join(name))?;
        Ok(self)
    }

    /// A file that it has.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Result<Self> {
        fs::write(self.folder().join(name), content)?;
        Ok(self)
    }

    /// A variable that it has set.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// What it takes for something that pages print, such as the address that its own Envoy has.
    #[must_use]
    pub fn instead(mut self, printed: &str, own: &str) -> Self {
        self.instead.push((printed.to_owned(), own.to_owned()));
        self
    }

    /// Runs one command, or a whole block.
    ///
    /// # Errors
    ///
    /// If there is no shell.
    pub fn run(&self, script: &str) -> Result<Said> {
        let output = self.command(script).stdin(Stdio::null()).output()?;
        let text = [output.stdout, output.stderr].concat();
        Ok(Said {
            code: output.status.code(),
            text: String::from_utf8_lossy(&text).into_owned(),
        })
    }

    /// Starts what does not end by itself.
    ///
    /// # Errors
    ///
    /// If there is no shell.
    pub fn start(&self, script: &str) -> Result<Started> {
        let log = tempfile::NamedTempFile::new_in(self.folder())?;
        let mut command = self.command(script);
        command.stdin(Stdio::null()).process_group(0);
        let (file, log) = log.keep()?;
        command.stdout(file.try_clone()?).stderr(file);
        let child = child::spawn(command).with_context(|| script.to_owned())?;
        Ok(Started { child, log })
    }

    fn command(&self, script: &str) -> Command {
        let mut script = script.to_owned();
        for (printed, own) in &self.instead {
            script = script.replace(printed, own);
        }
        let mut command = Command::new("sh");
        command.args(["-euc", &script]).current_dir(self.folder());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// Something that a reader has started, such as Envoy. It ends with this value.
#[derive(Debug)]
pub struct Started {
    child: Child,
    log: PathBuf,
}

impl Started {
    /// What it has written so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it has not ended by itself.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // The shell, and what it has started.
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.child.wait();
    }
}
