//! What happened, in words, for whoever has to understand a failing seed.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

#[derive(Debug, Default)]
struct Lines {
    time: Cell<u64>,
    lines: RefCell<Vec<String>>,
}

/// A trace that everything in a world writes to; without one, sentences are not even made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace(Option<Rc<Lines>>);

impl Trace {
    pub(crate) fn new(wanted: bool) -> Self {
        Self(wanted.then(Rc::default))
    }

    pub(crate) fn time_is(&self, time: u64) {
        if let Some(lines) = &self.0 {
            lines.time.set(time);
        }
    }

    pub(crate) fn say(&self, text: impl FnOnce() -> String) {
        if let Some(lines) = &self.0 {
            let line = format!("{:>8} ms  {}", lines.time.get(), text());
            lines.lines.borrow_mut().push(line);
        }
    }

    /// The last `most` lines.
    pub(crate) fn tail(&self, most: usize) -> Vec<String> {
        let Some(lines) = &self.0 else { return Vec::new() };
        let lines = lines.lines.borrow();
        lines[lines.len().saturating_sub(most)..].to_vec()
    }
}
