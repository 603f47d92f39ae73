//! How far all drainers are at one moment.

use super::mark::Mark;

/// How far each drainer has drained each lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainPoint {
    /// Not empty; a mark for each lane, in order of the lanes' numbers.
    drainers: Vec<Vec<Mark>>,
}

impl DrainPoint {
    /// The marks of each drainer, one for each lane, in order of the lanes' numbers.
    ///
    /// # Panics
    /// If there is no drainer.
    #[must_use]
    pub fn new(drainers: Vec<Vec<Mark>>) -> Self {
        assert!(!drainers.is_empty(), "there is at least one drainer");
        Self { drainers }
    }

    /// The marks of each drainer.
    #[must_use]
    pub fn drainers(&self) -> &[Vec<Mark>] {
        &self.drainers
    }

    /// How far all drainers are: for each lane the least position and the least ordinal.
    #[must_use]
    pub fn least(&self) -> Vec<Mark> {
        let mut least = self.drainers[0].clone();
        for marks in &self.drainers[1..] {
            for (least, mark) in least.iter_mut().zip(marks) {
                least.position = least.position.min(mark.position);
                least.ordinal = least.ordinal.min(mark.ordinal);
            }
        }
        least
    }
}
