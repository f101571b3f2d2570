//! What the demo shows: a line at once, something that moves while it works, chapters with a row
//! for each thing that was sent, and what to do next.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use anstream::println;
use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressStyle};

use crate::exit::SAID_NO;

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// Columns of a row: what was sent, what the sender got, what the application saw. With two
/// spaces before each and the mark behind them a row has 80 columns.
const SENT: usize = 33;
const SENDER: usize = 26;
const APPLICATION: usize = 11;

/// One thing that was sent, and what came back.
pub(super) struct Row {
    /// What was sent.
    pub(super) what: String,
    /// What the sender got.
    pub(super) sender: String,
    /// What the application saw.
    pub(super) application: String,
    /// Whether that is what the guard promises.
    pub(super) is_as_promised: bool,
}

/// The terminal, or the file, that the demo writes to.
pub(super) struct Screen {
    /// The line that moves; `None` without a terminal.
    bar: Option<ProgressBar>,
    rows: usize,
    broken: usize,
}

impl Screen {
    /// Begins with a title.
    pub(super) fn new(title: &str) -> Self {
        println!("{BOLD}callback-guard demo{BOLD:#}: {title}\n");
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("  {spinner} {wide_msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self {
            bar,
            rows: 0,
            broken: 0,
        }
    }

    /// Shows what is being done. Without a terminal it is printed once.
    pub(super) fn working(&self, what: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(what.to_owned()),
            None => println!("  {what}"),
        }
    }

    /// A line of a program that works, such as a compiler: seen on a terminal only.
    pub(super) fn detail(&self, line: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(line.to_owned());
        }
    }

    /// A fact about what was started.
    pub(super) fn fact(&self, name: &str, text: &str) {
        self.print(|| println!("  {DIM}{name:<12}{DIM:#}{text}"));
    }

    /// Begins a chapter.
    pub(super) fn chapter(&self, title: &str) {
        self.print(|| {
            println!("\n{BOLD}{title}{BOLD:#}");
            println!(
                "  {DIM}{:<SENT$}  {:<SENDER$}  {:<APPLICATION$}{DIM:#}",
                "sent", "the sender got", "application"
            );
        });
    }

    /// A row of the chapter.
    pub(super) fn row(&mut self, row: &Row) {
        self.rows = self.rows.saturating_add(1);
        let (style, mark) = if row.is_as_promised {
            (GOOD, "ok")
        } else {
            self.broken = self.broken.saturating_add(1);
            (BAD, "NO")
        };
        self.print(|| {
            println!(
                "  {:<SENT$}  {:<SENDER$}  {:<APPLICATION$}  {style}{mark}{style:#}",
                row.what, row.sender, row.application
            );
        });
    }

    /// A paragraph of the story.
    pub(super) fn say(&self, text: &str) {
        self.print(|| println!("{text}"));
    }

    /// Ends the story: whether all was as promised, and what to do next.
    pub(super) fn end(self, next: &[(&str, &str)]) -> ExitCode {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let (rows, broken) = (self.rows, self.broken);
        if broken > 0 {
            println!("\n{BAD}{broken} of {rows} rows are not as promised{BAD:#}");
            return ExitCode::from(SAID_NO);
        }
        println!("\n{GOOD}All {rows} rows are as promised.{GOOD:#} Next:");
        for (command, purpose) in next {
            println!("  {BOLD}{command:<41}{BOLD:#} {DIM}{purpose}{DIM:#}");
        }
        ExitCode::SUCCESS
    }

    /// Prints above the line that moves.
    fn print(&self, print: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}
