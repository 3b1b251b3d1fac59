//! Rows messages: column names, rows, and a marker that says whether more messages follow.

use crate::base::limits::ROWS_MESSAGE_BYTES;
use crate::base::{DecodeError, Reader, Writer};

use super::frame::finish;
use super::response::{kind, too_big};
use super::value::{Cell, append_text, decode_cell};

const MARK_DONE: u64 = u64::MAX;
const MARK_PART: u64 = 0xeeee_eeee_eeee_eeee;

/// Cells whose type codes share one word of a row's header.
const CELLS_PER_WORD: usize = 16;

/// What follows a rows message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowsEnd {
    /// Another message with more rows.
    Part,
    /// Nothing: these were the last rows.
    Done,
}

impl RowsEnd {
    fn mark(self) -> u64 {
        match self {
            Self::Part => MARK_PART,
            Self::Done => MARK_DONE,
        }
    }
}

/// Builds the rows messages of one result, cell by cell.
///
/// Before each step of the statement, ask [`RowsWriter::is_full`]; when it is, take the message with
/// [`RowsWriter::take_part`] and go on with the same writer.
#[derive(Debug)]
pub struct RowsWriter {
    out: Writer,
    /// Column count and names, which every message repeats.
    columns: Vec<u8>,
    column_count: usize,
    /// Rows begun in this message.
    row_count: u64,
    /// Where the current row's header stands, and which cell comes next.
    row_at: usize,
    cell: usize,
}

impl RowsWriter {
    /// A writer for rows of these columns. A name ends at its first NUL.
    #[must_use]
    pub fn new<N: AsRef<[u8]>>(names: impl IntoIterator<Item = N>) -> Self {
        let (mut columns, mut column_count) = (Writer::new(), 0);
        columns.u64(0);
        for name in names {
            append_text(&mut columns, name.as_ref());
            column_count += 1;
        }
        columns.set_u64(0, column_count as u64);
        let columns = columns.into_bytes();
        let out = begin_message(&columns);
        Self { out, columns, column_count, row_count: 0, row_at: 0, cell: 0 }
    }

    /// How many columns there are.
    #[must_use]
    pub fn column_count(&self) -> usize {
        self.column_count
    }

    /// Bytes of the current message so far, header included.
    #[must_use]
    pub fn message_bytes(&self) -> usize {
        self.out.len()
    }

    /// Whether the message must end before the statement is stepped again. Never without a row in it: with
    /// column names that fill a message alone, C sends messages without rows for ever.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.row_count > 0 && self.out.len() >= ROWS_MESSAGE_BYTES
    }

    /// Begins a row; its cells follow, one [`RowsWriter::push`] per column.
    pub fn begin_row(&mut self) {
        self.row_at = self.out.len();
        for _ in 0..self.column_count.div_ceil(CELLS_PER_WORD) {
            self.out.u64(0);
        }
        self.row_count += 1;
        self.cell = 0;
    }

    /// Appends the next cell of the row. Cells beyond the number of columns are dropped.
    pub fn push(&mut self, cell: Cell<'_>) {
        if self.cell >= self.column_count {
            return;
        }
        let word_at = self.row_at + self.cell / CELLS_PER_WORD * 8;
        let codes = self.out.as_slice().get(word_at..).and_then(<[u8]>::first_chunk).copied();
        let codes = u64::from_le_bytes(codes.unwrap_or_default());
        let shifted = u64::from(cell.code()) << (4 * (self.cell % CELLS_PER_WORD));
        self.out.set_u64(word_at, codes | shifted);
        cell.encode(&mut self.out);
        self.cell += 1;
    }

    /// Ends the message with the part marker and begins the next one.
    #[must_use]
    pub fn take_part(&mut self) -> Vec<u8> {
        let next = begin_message(&self.columns);
        self.row_count = 0;
        finish_message(std::mem::replace(&mut self.out, next), RowsEnd::Part)
    }

    /// Ends the last message with the done marker.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        finish_message(self.out, RowsEnd::Done)
    }
}

fn begin_message(columns: &[u8]) -> Writer {
    let mut out = Writer::with_capacity(columns.len() + 256);
    out.u64(0).bytes(columns);
    out
}

fn finish_message(mut out: Writer, end: RowsEnd) -> Vec<u8> {
    out.u64(end.mark());
    finish(out, kind::ROWS, 0).unwrap_or_else(too_big)
}

/// A rows message as a client reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows<'a> {
    /// The column names.
    pub columns: Vec<&'a [u8]>,
    /// The rows, each with one cell per column.
    pub rows: Vec<Vec<Cell<'a>>>,
    /// What follows.
    pub end: RowsEnd,
}

impl<'a> Rows<'a> {
    /// The rows in a body. A row cannot be mistaken for a marker: no type code is 14 or 15.
    pub(super) fn decode(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let column_count = r.count("column count", u64::MAX, 8)?;
        let mut columns = Vec::with_capacity(column_count);
        for _ in 0..column_count {
            columns.push(r.text("column name")?);
        }
        let mut rows = Vec::new();
        loop {
            let word = Reader::new(r.rest()).u64("rows marker")?;
            let end = match word {
                MARK_DONE => RowsEnd::Done,
                MARK_PART => RowsEnd::Part,
                found if column_count == 0 => {
                    let (field, expected) = ("rows marker", "done or part");
                    return Err(DecodeError::Value { field, expected, found });
                }
                _ => {
                    rows.push(decode_row(r, column_count)?);
                    continue;
                }
            };
            r.u64("rows marker")?;
            return Ok(Self { columns, rows, end });
        }
    }

    pub(super) fn encode(&self, out: &mut Writer) {
        let mut writer = RowsWriter::new(&self.columns);
        for row in &self.rows {
            writer.begin_row();
            row.iter().for_each(|cell| writer.push(*cell));
        }
        out.bytes(writer.out.as_slice().get(8..).unwrap_or_default()).u64(self.end.mark());
    }
}

fn decode_row<'a>(r: &mut Reader<'a>, column_count: usize) -> Result<Vec<Cell<'a>>, DecodeError> {
    let head = r.take("row header", column_count.div_ceil(CELLS_PER_WORD) * 8)?;
    let codes = head.iter().flat_map(|byte| [byte & 15, byte >> 4]);
    codes.take(column_count).map(|code| decode_cell(r, code)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Context, FrameReader, Response};
    use super::{Cell, Rows, RowsEnd, RowsWriter};

    /// The messages of a result of `rows` rows, made as the server makes them.
    fn messages(mut writer: RowsWriter, rows: impl IntoIterator<Item = Vec<Cell<'static>>>) -> Vec<Vec<u8>> {
        let (mut messages, mut rows) = (Vec::new(), rows.into_iter());
        loop {
            if writer.is_full() {
                messages.push(writer.take_part());
            }
            let Some(row) = rows.next() else { break };
            writer.begin_row();
            row.iter().for_each(|cell| writer.push(*cell));
        }
        messages.push(writer.finish());
        messages
    }

    fn decode(message: &[u8], check: impl FnOnce(Rows<'_>)) {
        let mut reader = FrameReader::new(u64::MAX);
        reader.feed(message);
        match Response::decode(reader.next_frame().unwrap().unwrap(), Context::default()).unwrap() {
            Response::Rows(rows) => check(rows),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_message_ends_with_the_row_that_reaches_the_page() {
        let integers = |n| (0..n).map(|i| vec![Cell::Integer(i)]);
        let body_bytes =
            |n| messages(RowsWriter::new(["n"]), integers(n)).iter().map(|m| m.len() - 8).collect::<Vec<_>>();
        assert_eq!(body_bytes(254), [4088]);
        assert_eq!(body_bytes(255), [4104, 24]);
        assert_eq!(body_bytes(0), [24]);
    }

    #[test]
    fn a_header_that_fills_a_message_alone_still_lets_one_row_into_each() {
        let name = "c".repeat(5000);
        let all = messages(RowsWriter::new([&name]), (0..3).map(|i| vec![Cell::Integer(i)]));
        assert_eq!(all.len(), 4);
        for (at, message) in all.iter().enumerate() {
            decode(message, |rows| {
                assert_eq!(rows.rows.len(), usize::from(at < 3));
                assert_eq!(rows.end, if at < 3 { RowsEnd::Part } else { RowsEnd::Done });
            });
        }
    }

    #[test]
    fn seventeen_cells_take_two_header_words_and_come_back_in_order() {
        let kinds = [
            Cell::Integer(-1),
            Cell::Float(0.5),
            Cell::Text(b"1234567\xff"),
            Cell::Blob(b""),
            Cell::Null,
            Cell::Unixtime(7),
            Cell::Iso8601(b""),
            Cell::Boolean(7),
        ];
        let row: Vec<_> = kinds.iter().cycle().take(17).copied().collect();
        let names: Vec<_> = (0..17).map(|i| format!("c{i}")).collect();
        let all = messages(RowsWriter::new(&names), [row.clone(), row.clone()]);
        decode(&all[0], |rows| assert_eq!(rows.rows, [row.clone(), row]));
    }

    #[test]
    fn a_statement_without_columns_gives_no_rows_and_a_surplus_cell_is_dropped() {
        let all = messages(RowsWriter::new::<&str>([]), []);
        assert_eq!(
            all,
            [vec![2, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]]
        );
        let surplus = messages(RowsWriter::new(["a"]), [vec![Cell::Null, Cell::Integer(1)]]);
        decode(&surplus[0], |rows| assert_eq!(rows.rows, [vec![Cell::Null]]));
    }
}
