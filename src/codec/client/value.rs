//! Values: parameters of statements, and cells of rows.
//!
//! A parameter tuple whose header fits is valid as a message; a bad value in it is found when it is bound,
//! so [`Params`] is decoded one value at a time.

use crate::base::{DecodeError, Reader, Writer};

use super::Schema;

mod code {
    pub const INTEGER: u8 = 1;
    pub const FLOAT: u8 = 2;
    pub const TEXT: u8 = 3;
    pub const BLOB: u8 = 4;
    pub const NULL: u8 = 5;
    pub const UNIXTIME: u8 = 9;
    pub const ISO8601: u8 = 10;
    pub const BOOLEAN: u8 = 11;
}

/// A parameter of a statement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Param<'a> {
    /// A 64-bit integer.
    Integer(i64),
    /// A double.
    Float(f64),
    /// A text, up to its first NUL.
    Text(&'a [u8]),
    /// A blob.
    Blob(&'a [u8]),
    /// NULL.
    Null,
    /// A time as a text; binds as text.
    Iso8601(&'a [u8]),
    /// Binds 0, or 1 for any other number.
    Boolean(u64),
}

/// A parameter that cannot be bound: its type is none that is accepted, or its value is cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadValue;

/// The parameters of a statement, as they stand in the message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Params<'a> {
    types: &'a [u8],
    /// The values and whatever follows them.
    bodies: &'a [u8],
}

impl<'a> Params<'a> {
    /// The tuple at the end of a request; none at all means no parameters.
    ///
    /// # Errors
    /// [`DecodeError`] when the header does not fit into the body.
    pub fn decode(reader: &mut Reader<'a>, schema: Schema) -> Result<Self, DecodeError> {
        if reader.is_empty() {
            return Ok(Self::default());
        }
        let whole = reader.rest();
        let count = match schema {
            Schema::V0 => u32::from(reader.u8("parameter count")?),
            Schema::V1 => reader.u32("parameter count")?,
        };
        let found = u64::from(count);
        let count = usize::try_from(count).map_err(|_| DecodeError::Range {
            field: "parameter count",
            max: usize::MAX as u64,
            found,
        })?;
        let types = reader.take("parameter types", count)?;
        let used = whole.len().saturating_sub(reader.rest().len());
        reader.take("parameter header padding", used.wrapping_neg() % 8)?;
        let bodies = reader.take("parameter values", reader.rest().len())?;
        // Without types the rest is nobody's.
        Ok(if types.is_empty() { Self::default() } else { Self { types, bodies } })
    }

    /// How many parameters the header announces.
    #[must_use]
    pub fn len(&self) -> usize {
        self.types.len()
    }

    /// Whether there are no parameters.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.types.is_empty()
    }

    /// The parameters in order. The first bad one ends the iteration.
    pub fn iter(&self) -> impl Iterator<Item = Result<Param<'a>, BadValue>> + use<'a> {
        let (types, mut reader, mut bad) = (self.types, Reader::new(self.bodies), false);
        types.iter().map_while(move |&code| {
            if bad {
                return None;
            }
            let value = decode_param(&mut reader, code);
            bad = value.is_err();
            Some(value)
        })
    }

    /// A copy that does not borrow the message: one allocation, whatever the number of parameters.
    #[must_use]
    pub fn to_owned(&self) -> OwnedParams {
        OwnedParams { count: self.types.len(), bytes: [self.types, self.bodies].concat() }
    }

    /// Appends the tuple; nothing when it is empty. `schema` is wide enough for the number of parameters.
    pub(super) fn encode(&self, out: &mut Writer, schema: Schema) {
        if self.is_empty() {
            return;
        }
        match schema {
            Schema::V0 => out.u8(u8::try_from(self.types.len()).unwrap_or(u8::MAX)),
            Schema::V1 => out.u32(u32::try_from(self.types.len()).unwrap_or(u32::MAX)),
        };
        out.bytes(self.types).pad().bytes(self.bodies);
    }
}

fn decode_param<'a>(reader: &mut Reader<'a>, code: u8) -> Result<Param<'a>, BadValue> {
    match decode_cell(reader, code) {
        Ok(Cell::Integer(value)) => Ok(Param::Integer(value)),
        Ok(Cell::Float(value)) => Ok(Param::Float(value)),
        Ok(Cell::Text(value)) => Ok(Param::Text(value)),
        Ok(Cell::Blob(value)) => Ok(Param::Blob(value)),
        Ok(Cell::Null) => Ok(Param::Null),
        Ok(Cell::Iso8601(value)) => Ok(Param::Iso8601(value)),
        Ok(Cell::Boolean(value)) => Ok(Param::Boolean(value.cast_unsigned())),
        // C refuses a time in seconds like an unknown code.
        Ok(Cell::Unixtime(_)) | Err(_) => Err(BadValue),
    }
}

/// Parameters that own their bytes, to go to another thread or to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnedParams {
    count: usize,
    /// `count` type codes, then the values.
    bytes: Vec<u8>,
}

impl OwnedParams {
    /// Parameters made of these values.
    #[must_use]
    pub fn new(values: &[Param<'_>]) -> Self {
        let mut out = Writer::new();
        values.iter().for_each(|value| {
            out.u8(param_code(value));
        });
        for value in values {
            match *value {
                Param::Integer(value) => out.u64(value.cast_unsigned()),
                Param::Float(value) => out.u64(value.to_bits()),
                Param::Text(text) | Param::Iso8601(text) => append_text(&mut out, text),
                Param::Blob(blob) => append_blob(&mut out, blob),
                Param::Null => out.u64(0),
                Param::Boolean(value) => out.u64(value),
            };
        }
        Self { count: values.len(), bytes: out.into_bytes() }
    }

    /// The parameters.
    #[must_use]
    pub fn view(&self) -> Params<'_> {
        let (types, bodies) = self.bytes.split_at_checked(self.count).unwrap_or_default();
        Params { types, bodies }
    }
}

fn param_code(value: &Param<'_>) -> u8 {
    match value {
        Param::Integer(_) => code::INTEGER,
        Param::Float(_) => code::FLOAT,
        Param::Text(_) => code::TEXT,
        Param::Blob(_) => code::BLOB,
        Param::Null => code::NULL,
        Param::Iso8601(_) => code::ISO8601,
        Param::Boolean(_) => code::BOOLEAN,
    }
}

/// A value in a row of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'a> {
    /// A 64-bit integer.
    Integer(i64),
    /// A double.
    Float(f64),
    /// A text, cut at its first NUL.
    Text(&'a [u8]),
    /// A blob.
    Blob(&'a [u8]),
    /// NULL.
    Null,
    /// An integer in a column of dates.
    Unixtime(i64),
    /// A text in a column of dates; empty for NULL.
    Iso8601(&'a [u8]),
    /// An integer in a column of booleans, as it is; 0 for NULL.
    Boolean(i64),
}

impl Cell<'_> {
    /// The type code, which fits into the 4 bits that a row header has for it.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Integer(_) => code::INTEGER,
            Self::Float(_) => code::FLOAT,
            Self::Text(_) => code::TEXT,
            Self::Blob(_) => code::BLOB,
            Self::Null => code::NULL,
            Self::Unixtime(_) => code::UNIXTIME,
            Self::Iso8601(_) => code::ISO8601,
            Self::Boolean(_) => code::BOOLEAN,
        }
    }

    /// Appends the value, without its code.
    pub(super) fn encode(&self, out: &mut Writer) {
        match *self {
            Self::Integer(value) | Self::Unixtime(value) | Self::Boolean(value) => {
                out.u64(value.cast_unsigned())
            }
            Self::Float(value) => out.u64(value.to_bits()),
            Self::Text(text) | Self::Iso8601(text) => append_text(out, text),
            Self::Blob(blob) => append_blob(out, blob),
            Self::Null => out.u64(0),
        };
    }
}

/// The value with this type code.
pub(super) fn decode_cell<'a>(reader: &mut Reader<'a>, code: u8) -> Result<Cell<'a>, DecodeError> {
    Ok(match code {
        code::INTEGER => Cell::Integer(reader.u64("integer")?.cast_signed()),
        code::FLOAT => Cell::Float(f64::from_bits(reader.u64("float")?)),
        code::TEXT => Cell::Text(reader.text("text")?),
        code::BLOB => Cell::Blob(take_blob(reader)?),
        code::NULL => {
            reader.u64("null")?;
            Cell::Null
        }
        code::UNIXTIME => Cell::Unixtime(reader.u64("unix time")?.cast_signed()),
        code::ISO8601 => Cell::Iso8601(reader.text("time")?),
        code::BOOLEAN => Cell::Boolean(reader.u64("boolean")?.cast_signed()),
        _ => {
            let (field, expected) = ("value type", "1 to 5 or 9 to 11");
            return Err(DecodeError::Value { field, expected, found: u64::from(code) });
        }
    })
}

/// What a column's declared type makes of its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnClass {
    /// Values go out as they are stored.
    Plain,
    /// `DATETIME`, `DATE` or `TIMESTAMP`.
    Time,
    /// `BOOLEAN`.
    Boolean,
}

impl ColumnClass {
    /// The class of a column with this declared type, which is compared whole, whatever its case.
    #[must_use]
    pub fn of(decltype: Option<&[u8]>) -> Self {
        let Some(name) = decltype else { return Self::Plain };
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("DATETIME") || is("DATE") || is("TIMESTAMP") {
            Self::Time
        } else if is("BOOLEAN") {
            Self::Boolean
        } else {
            Self::Plain
        }
    }

    /// What goes out for a value of a storage class. A value that does not suit the declared type, at which C
    /// aborts, stays as it is.
    #[must_use]
    pub fn cell(self, stored: Cell<'_>) -> Cell<'_> {
        match (self, stored) {
            (Self::Time, Cell::Integer(value)) => Cell::Unixtime(value),
            (Self::Time, Cell::Text(text)) => Cell::Iso8601(text),
            (Self::Time, Cell::Null) => Cell::Iso8601(b""),
            (Self::Boolean, Cell::Integer(value)) => Cell::Boolean(value),
            (Self::Boolean, Cell::Null) => Cell::Boolean(0),
            (Self::Plain | Self::Time | Self::Boolean, value) => value,
        }
    }
}

/// Appends a text up to its first NUL, which would end it for the reader anyway.
pub(super) fn append_text<'w>(out: &'w mut Writer, text: &[u8]) -> &'w mut Writer {
    out.text(text.split(|&byte| byte == 0).next().unwrap_or_default())
}

fn append_blob<'w>(out: &'w mut Writer, blob: &[u8]) -> &'w mut Writer {
    let zeros = [0; 8];
    let padding = zeros.get(..blob.len().wrapping_neg() % 8).unwrap_or_default();
    out.u64(blob.len() as u64).bytes(blob).bytes(padding)
}

fn take_blob<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
    let blob_len = reader.count("blob length", u64::MAX, 1)?;
    let blob = reader.take("blob", blob_len)?;
    reader.take("blob padding", blob_len.wrapping_neg() % 8)?;
    Ok(blob)
}

#[cfg(test)]
mod tests {
    use super::{BadValue, Cell, ColumnClass, OwnedParams, Param, Params};
    use crate::base::{DecodeError, Reader, Writer};
    use crate::codec::client::Schema;

    fn values<'a>(params: Params<'a>) -> Vec<Result<Param<'a>, BadValue>> {
        params.iter().collect()
    }

    #[test]
    fn every_kind_of_parameter_comes_back_in_both_schemas() {
        let all = [
            Param::Integer(i64::MIN),
            Param::Float(-0.0),
            Param::Text(b"12345678"),
            Param::Blob(b"\0\x01\x02"),
            Param::Null,
            Param::Iso8601(b"2020-01-02"),
            Param::Boolean(77),
            Param::Text(b""),
        ];
        let owned = OwnedParams::new(&all);
        for (schema, header_bytes) in [(Schema::V0, 16), (Schema::V1, 16)] {
            let mut out = Writer::new();
            owned.view().encode(&mut out, schema);
            assert_eq!(out.len(), header_bytes + 8 + 8 + 16 + 16 + 8 + 16 + 8 + 8);
            let params = Params::decode(&mut Reader::new(out.as_slice()), schema).unwrap();
            assert_eq!(values(params), all.map(Ok));
            assert_eq!(params.to_owned(), owned);
        }
    }

    #[test]
    fn a_bad_type_or_a_cut_value_is_found_when_it_is_reached() {
        for (code, body) in [(0, 8), (6, 8), (9, 8), (12, 8), (1, 0), (3, 0)] {
            let mut out = Writer::new();
            out.u8(3).u8(5).u8(code).u8(5).pad().u64(0).bytes(&vec![1; body]);
            let params = Params::decode(&mut Reader::new(out.as_slice()), Schema::V0).unwrap();
            assert_eq!(values(params), [Ok(Param::Null), Err(BadValue)], "type {code}");
        }
        let mut long_blob = Writer::new();
        long_blob.u8(1).u8(4).pad().u64(u64::MAX);
        let params = Params::decode(&mut Reader::new(long_blob.as_slice()), Schema::V0).unwrap();
        assert_eq!(values(params), [Err(BadValue)]);
    }

    #[test]
    fn a_header_beyond_the_body_is_refused_and_an_absent_one_means_none() {
        let short = |bytes: &[u8], schema| Params::decode(&mut Reader::new(bytes), schema).map(|it| it.len());
        assert_eq!(short(&[], Schema::V0), Ok(0));
        assert_eq!(short(&[0; 8], Schema::V0), Ok(0));
        assert_eq!(short(&[8, 1, 1, 1, 1, 1, 1, 1], Schema::V0), cut("parameter types", 8, 7));
        assert_eq!(short(&[4, 0, 0, 0, 1, 1, 1, 1], Schema::V1), Ok(4));
        assert_eq!(short(&[255; 8], Schema::V1), cut("parameter types", u64::from(u32::MAX), 4));
    }

    fn cut(field: &'static str, wanted: u64, found: u64) -> Result<usize, DecodeError> {
        Err(DecodeError::Short { field, wanted, found })
    }

    #[test]
    fn a_declared_type_counts_only_whole_and_only_for_values_that_suit_it() {
        let (time, boolean) = (ColumnClass::of(Some(b"dateTIME")), ColumnClass::of(Some(b"Boolean")));
        assert_eq!((time, boolean), (ColumnClass::Time, ColumnClass::Boolean));
        for plain in [None, Some(&b"DATETIME X"[..]), Some(b"BOOL"), Some(b"")] {
            assert_eq!(ColumnClass::of(plain), ColumnClass::Plain);
        }
        assert_eq!(time.cell(Cell::Null), Cell::Iso8601(b""));
        assert_eq!(time.cell(Cell::Float(1.5)), Cell::Float(1.5));
        assert_eq!(boolean.cell(Cell::Null), Cell::Boolean(0));
        assert_eq!(boolean.cell(Cell::Text(b"yes")), Cell::Text(b"yes"));
        assert_eq!(ColumnClass::Plain.cell(Cell::Null), Cell::Null);
    }
}
