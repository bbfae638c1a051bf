//! Where the entries of the old log are in the new one.

/// The positions that are left out of the order of the old log, ascending, each with the record's position before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Places(Vec<(u64, u64)>);

impl Places {
    /// Leaves out the entry at a position, which is greater than all before.
    pub(super) fn leave_out(&mut self, position: u64, previous: u64) {
        self.0.push((position, previous));
    }

    /// How many are left out.
    pub(super) fn count(&self) -> u64 {
        self.0.len() as u64
    }

    /// Whether an entry is left out.
    pub(super) fn lacks(&self, position: u64) -> bool {
        self.0.binary_search_by_key(&position, |(left_out, _)| *left_out).is_ok()
    }

    /// Where an entry is; of one that is left out, where the last of its record before it is that is not; 0 where there is none.
    pub(super) fn of(&self, position: u64) -> u64 {
        let mut position = position;
        loop {
            let before = self.0.partition_point(|(left_out, _)| *left_out < position);
            match self.0.get(before) {
                Some((left_out, previous)) if *left_out == position => position = *previous,
                _ => return position - before as u64,
            }
        }
    }

    /// How many of the entries up to a position are not left out.
    pub(super) fn upto(&self, position: u64) -> u64 {
        position - self.0.partition_point(|(left_out, _)| *left_out <= position) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_moves_up_by_what_is_left_out_before_it() {
        let mut places = Places::default();
        // 2 follows 1, and 4 follows 2; 5 is of another record.
        [(2, 1), (4, 2), (5, 0)].into_iter().for_each(|(position, previous)| places.leave_out(position, previous));
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 7].map(|position| places.of(position)), [0, 1, 1, 2, 1, 0, 3, 4]);
        assert_eq!([0, 1, 2, 3, 4, 5, 6].map(|position| places.upto(position)), [0, 1, 1, 2, 2, 2, 3]);
        assert_eq!([1, 2, 4, 6].map(|position| places.lacks(position)), [false, true, true, false]);
    }
}
