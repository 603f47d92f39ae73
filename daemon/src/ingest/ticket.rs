//! What becomes of records that were appended: they are durable, or refused for lack of room, or nobody knows.

use std::{cell::Cell, rc::Rc};

/// The records that a lane appends until it gives a segment up for lack of room. Their ordinals rise; those of the refused ones
/// are given again in the next stretch.
#[derive(Default)]
pub(super) struct Stretch {
    /// The lane's durable ordinal when it was settled that all records behind it are refused.
    durable_ordinal: Cell<Option<u64>>,
}

impl Stretch {
    /// Ends the stretch: what is behind `durable_ordinal` is not kept.
    pub(super) fn end(&self, durable_ordinal: u64) {
        self.durable_ordinal.set(Some(durable_ordinal));
    }
}

/// Records of one push or of several that were appended one after the other.
#[derive(Clone)]
pub struct Ticket {
    stretch: Rc<Stretch>,
    /// Ordinal behind the first batch of them.
    first_end: u64,
    /// Ordinal behind all of them.
    end: u64,
}

impl Ticket {
    pub(super) fn new(stretch: Rc<Stretch>, end: u64) -> Self {
        Self { stretch, first_end: end, end }
    }

    /// Ordinal behind all records.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Adds records that were appended later.
    ///
    /// # Panics
    /// If the lane gave a segment up in between.
    pub fn extend(&mut self, later: &Self) {
        assert!(Rc::ptr_eq(&self.stretch, &later.stretch), "ordinals of one stretch can be compared");
        self.end = later.end;
    }

    /// Whether all of the records are behind `ordinal`.
    pub fn is_behind(&self, ordinal: u64) -> bool {
        self.first_end > ordinal
    }

    pub(super) fn is_of(&self, stretch: &Rc<Stretch>) -> bool {
        Rc::ptr_eq(&self.stretch, stretch)
    }

    /// What is settled about the records since their stretch ended; `None` before that.
    pub(super) fn settled(&self) -> Option<Result<(), NotDurable>> {
        let durable_ordinal = self.stretch.durable_ordinal.get()?;
        Some(if self.end <= durable_ordinal { Ok(()) } else { Err(NotDurable::Refused { durable_ordinal }) })
    }
}

/// Why records are not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotDurable {
    /// There was no room for them: those behind `durable_ordinal` are not kept.
    #[error("the disk has no room")]
    Refused {
        /// Ordinal behind those that are durable.
        durable_ordinal: u64,
    },
    /// A write failed, or it took too long to settle what became of them. They may be kept.
    #[error("a write to the log failed")]
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinal_that_is_given_again_says_nothing_about_the_record_that_had_it_first() {
        let stretch = Rc::<Stretch>::default();
        let (kept, refused) = (Ticket::new(Rc::clone(&stretch), 3), Ticket::new(Rc::clone(&stretch), 4));
        assert_eq!((kept.settled(), refused.settled()), (None, None));
        stretch.end(3);
        let again = Ticket::new(Rc::default(), 4);
        assert_eq!(kept.settled(), Some(Ok(())));
        assert_eq!(refused.settled(), Some(Err(NotDurable::Refused { durable_ordinal: 3 })));
        assert_eq!(again.settled(), None);
        let mut both = kept.clone();
        both.extend(&refused);
        assert_eq!(both.settled(), refused.settled());
        assert!(!both.is_behind(3) && refused.is_behind(3), "of both, the first is kept");
    }
}
