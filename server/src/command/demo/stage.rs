//! How the story is told: a line for each thing that happens, and a line that moves while something takes its time.

use std::io::{IsTerminal, Write};
use std::time::Instant;

use upbridge_service::config::inherited;

const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const PLAIN: &str = "\x1b[0m";

/// Colours, where somebody sees them.
#[derive(Clone, Copy)]
pub struct Paint {
    coloured: bool,
}

impl Paint {
    fn with(self, colour: &str, text: &str) -> String {
        if self.coloured { format!("{colour}{text}{PLAIN}") } else { text.to_owned() }
    }

    /// A heading.
    pub fn bold(self, text: &str) -> String {
        self.with(BOLD, text)
    }

    /// What matters less.
    pub fn dim(self, text: &str) -> String {
        self.with(DIM, text)
    }

    /// Well.
    pub fn good(self, text: &str) -> String {
        self.with(GREEN, text)
    }

    /// Not well.
    pub fn bad(self, text: &str) -> String {
        self.with(RED, text)
    }

    /// Left out.
    pub fn pale(self, text: &str) -> String {
        self.with(YELLOW, text)
    }
}

/// Where the story is told.
pub struct Stage {
    begun: Instant,
    /// The story goes to standard error, because standard output is for figures.
    aside: bool,
    paint: Paint,
    moving: bool,
    /// What was left out, and why.
    pub skipped: Vec<String>,
}

impl Stage {
    /// A stage; `aside` when standard output is not for people.
    pub fn new(aside: bool) -> Stage {
        let is_seen = if aside { std::io::stderr().is_terminal() } else { std::io::stdout().is_terminal() };
        let is_plain = !inherited(&["NO_COLOR"]).is_empty();
        let moving = std::io::stderr().is_terminal();
        Stage {
            begun: Instant::now(),
            aside,
            paint: Paint { coloured: is_seen && !is_plain },
            moving,
            skipped: Vec::new(),
        }
    }

    /// The colours.
    pub fn paint(&self) -> Paint {
        self.paint
    }

    /// What the story is called.
    pub fn title(&mut self, text: &str) {
        let text = self.paint.bold(text);
        self.line(&format!("{text}\n"));
    }

    /// Something that happened.
    pub fn tell(&mut self, what: &str, text: &str) {
        let at = self.paint.dim(&format!("{:>5.1} s", self.begun.elapsed().as_secs_f64()));
        let what = self.paint.bold(&format!("{what:<9}"));
        self.line(&format!("{at}  {what}  {text}"));
    }

    /// Something that is left out, and why.
    pub fn skip(&mut self, what: &str, why: &str) {
        self.skipped.push(format!("{what}: {why}"));
        let text = self.paint.pale(&format!("left out: {why}"));
        self.tell(what, &text);
    }

    /// What is going on, until the next line takes its place. Only on a terminal.
    pub fn progress(&mut self, text: &str) {
        if self.moving {
            eprint!("\r\x1b[K         … {text}");
            drop(std::io::stderr().flush());
        }
    }

    /// Takes the moving line away.
    pub fn clear(&mut self) {
        if self.moving {
            eprint!("\r\x1b[K");
            drop(std::io::stderr().flush());
        }
    }

    fn line(&mut self, text: &str) {
        self.clear();
        // Whoever no longer reads the story may still want its end.
        if self.aside {
            eprintln!("{text}");
        } else {
            drop(crate::command::say(text));
        }
    }
}
