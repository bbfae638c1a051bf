//! Columns of numbers: how one block's values of one kind lie beside each other.
//!
//! ```text
//! count varint   and where it is not 0:   form u8 = 0 constant, 1 plain   one varint, or `count` of them
//! ```
//! A varint is LEB128 in its shortest form; a signed number is zigzag-coded first.
//!
//! Invariant: reading allocates nothing, whatever count the bytes claim.

const CONSTANT: u8 = 0;
const PLAIN: u8 = 1;

/// Appends a number in LEB128.
pub(super) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a number in LEB128 from the front.
pub(super) fn take(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Goes past numbers, whatever they are: each ends with the first byte below 128.
fn skip(rest: &mut &[u8], count: u64) -> Option<()> {
    let ends = |(at, byte): (usize, &u8)| (*byte < 0x80).then_some(at + 1);
    let last = usize::try_from(count.checked_sub(1)?).ok()?;
    let used = rest.iter().enumerate().filter_map(ends).nth(last)?;
    *rest = rest.get(used..)?;
    Some(())
}

/// How many bytes a number takes.
pub(super) fn bytes(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// A difference that wraps around, as a small number where it is small either way.
pub(super) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// What [`zigzag`] coded.
pub(super) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Appends a column.
pub(super) fn write(out: &mut Vec<u8>, values: &[u64]) {
    put(out, values.len() as u64);
    let Some(first) = values.first() else { return };
    if values.len() > 1 && values.iter().all(|value| value == first) {
        out.push(CONSTANT);
        put(out, *first);
        return;
    }
    out.push(PLAIN);
    values.iter().for_each(|value| put(out, *value));
}

/// A column that is read number by number.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Column<'a> {
    left: u64,
    constant: Option<u64>,
    rest: &'a [u8],
}

impl<'a> Column<'a> {
    /// Takes a column from the front.
    pub(super) fn read(rest: &mut &'a [u8]) -> Option<Self> {
        let left = take(rest)?;
        if left == 0 {
            return Some(Self::default());
        }
        let (form, after) = rest.split_first()?;
        *rest = after;
        let (constant, start) = match *form {
            CONSTANT => (Some(take(rest)?), *rest),
            PLAIN => (None, *rest),
            _ => return None,
        };
        if constant.is_none() {
            skip(rest, left)?;
        }
        let used = start.len().checked_sub(rest.len())?;
        Some(Self { left, constant, rest: start.get(..used)? })
    }

    /// The next number.
    pub(super) fn next(&mut self) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        match self.constant {
            Some(value) => Some(value),
            None => take(&mut self.rest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(values: &[u64]) -> Vec<u64> {
        let mut out = Vec::new();
        write(&mut out, values);
        let mut rest = out.as_slice();
        let mut column = Column::read(&mut rest).unwrap();
        assert!(rest.is_empty());
        std::iter::from_fn(|| column.next()).collect()
    }

    #[test]
    fn a_column_reads_back_as_written() {
        for values in [vec![], vec![7], vec![0; 300], vec![1, 2, u64::MAX, 0], vec![u64::MAX; 2]] {
            assert_eq!(again(&values), values);
        }
    }

    #[test]
    fn a_number_has_the_length_that_it_is_said_to_have() {
        for value in [0, 1, 127, 128, 1 << 14, u64::MAX] {
            let mut out = Vec::new();
            put(&mut out, value);
            assert_eq!(out.len(), bytes(value), "{value}");
            assert_eq!(take(&mut out.as_slice()), Some(value));
        }
        assert_eq!(take(&mut [0xff; 9].as_slice()), None, "it breaks off");
        assert_eq!(take(&mut [0xff; 10].as_slice()), None, "it has more than 64 bits");
        for value in [0, -1, 1, i64::MIN, i64::MAX] {
            assert_eq!(unzigzag(zigzag(value)), value);
        }
    }

    #[test]
    fn a_claimed_count_costs_nothing() {
        let mut bytes = Vec::new();
        put(&mut bytes, u64::MAX);
        bytes.extend([CONSTANT, 0]);
        assert!(Column::read(&mut bytes.as_slice()).is_some(), "whoever reads it stops when its events end");
        bytes.truncate(bytes.len() - 2);
        bytes.extend([PLAIN, 0]);
        assert!(Column::read(&mut bytes.as_slice()).is_none());
    }
}
