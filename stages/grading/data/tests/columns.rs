//! Columns of Parquet: what each kind becomes, and files that unpack to more than they say.

use std::io::Write;

use parquet::data_type::{
    BoolType, DoubleType, FixedLenByteArray, FixedLenByteArrayType, Int32Type,
};

use super::*;

/// One row of one column.
fn column<T: parquet::data_type::DataType>(kind: &str, value: &T::T) -> Result<Row, String> {
    let schema =
        Arc::new(parse_message_type(&format!("message m {{ required {kind}; }}")).unwrap());
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<T>().write_batch(std::slice::from_ref(value), None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    let read = rows(&Bytes::from(bytes), Format::Parquet);
    read.map(|mut rows| rows.remove(0)).map_err(|error| error.to_string())
}

#[test]
fn every_kind_of_column_is_a_value_of_its_own() {
    let bytes = |text: &[u8]| ByteArray::from(text.to_vec());
    let fixed = |text: &[u8]| FixedLenByteArray::from(bytes(text));
    let json = |row: Result<Row, String>| row.unwrap().fields["a"].to_string();
    assert_eq!(json(column::<BoolType>("boolean a", &true)), "true");
    assert_eq!(json(column::<Int64Type>("int64 a", &i64::MIN)), "-9223372036854775808");
    assert_eq!(json(column::<Int64Type>("int64 a (UINT_64)", &-1)), "18446744073709551615");
    assert_eq!(json(column::<DoubleType>("double a", &0.1)), "0.1");
    assert_eq!(json(column::<Int32Type>("int32 a (DATE)", &19_000)), "\"2022-01-08\"");
    assert_eq!(json(column::<Int32Type>("int32 a (DECIMAL(9,2))", &-1_205)), "\"-12.05\"");
    assert_eq!(json(column::<Int32Type>("int32 a (DECIMAL(9,2))", &5)), "\"0.05\"");
    assert_eq!(json(column::<Int32Type>("int32 a (DECIMAL(9,0))", &123)), "\"123\"");
    assert_eq!(json(column::<Int32Type>("int32 a (DECIMAL(9,0))", &-100)), "\"-100\"");
    assert_eq!(json(column::<ByteArrayType>("binary a (UTF8)", &bytes("é".as_bytes()))), "\"é\"");
    assert_eq!(json(column::<ByteArrayType>("binary a", &bytes("é".as_bytes()))), "\"é\"");
    assert_eq!(
        json(column::<FixedLenByteArrayType>("fixed_len_byte_array(2) a", &fixed(b"ok"))),
        "\"ok\""
    );
    let message = column::<ByteArrayType>("binary picture", &bytes(&[0xff, 0xd8])).unwrap_err();
    insta::assert_snapshot!(message, @r#"row 1 cannot be read: column "picture": 2 bytes that are no UTF-8: drop the column, or save it as text"#);
    let no_number = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY]
        .map(|value| column::<DoubleType>("double score", &value).unwrap_err());
    insta::assert_snapshot!(no_number.join("\n"), @r#"
    row 1 cannot be read: column "score": NaN, which is no number: save it as null, or drop the column
    row 1 cannot be read: column "score": inf, which is no number: save it as null, or drop the column
    row 1 cannot be read: column "score": -inf, which is no number: save it as null, or drop the column
    "#);
    let instant = column::<Int64Type>("int64 a (TIMESTAMP(NANOS,true))", &1_000).unwrap();
    assert_eq!(&*instant.noted["a"], "the nanosecond 1000");
}

#[test]
fn a_map_is_an_object() {
    let map = |key: &str| {
        let schema = format!(
            "message m {{ required group a (MAP) {{ repeated group key_value {{ required {key}; required int32 v; }} }} }}"
        );
        let mut bytes = Vec::new();
        let schema = Arc::new(parse_message_type(&schema).unwrap());
        let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::default()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        if key.starts_with("binary") {
            let keys = ["x", "y"].map(ByteArray::from);
            column
                .typed::<ByteArrayType>()
                .write_batch(&keys, Some(&[1, 1]), Some(&[0, 1]))
                .unwrap();
        } else {
            column.typed::<Int32Type>().write_batch(&[7, 8], Some(&[1, 1]), Some(&[0, 1])).unwrap();
        }
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int32Type>().write_batch(&[1, 2], Some(&[1, 1]), Some(&[0, 1])).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
        let read = rows(&Bytes::from(bytes), Format::Parquet);
        read.map(|mut rows| rows.remove(0).fields["a"].to_string())
            .map_err(|error| error.to_string())
    };
    assert_eq!(map("binary k (UTF8)").unwrap(), r#"{"x":1,"y":2}"#);
    insta::assert_snapshot!(map("int32 k").unwrap_err(), @r#"row 1 cannot be read: column "a": a map with the key 7: expected keys that are text"#);
}

/// A file whose only page holds far more than it says, as gzip and brotli can.
#[test]
fn a_page_that_unpacks_to_more_than_it_says_is_refused() {
    let much = vec![0; 64 << 20];
    let mut gzip = flate2::write::GzEncoder::new(vec![], flate2::Compression::new(9));
    gzip.write_all(&much).unwrap();
    let gzip = gzip.finish().unwrap();
    let mut brotli = vec![];
    brotli::CompressorWriter::new(&mut brotli, 4096, 5, 22).write_all(&much).unwrap();
    for (packing, bomb) in [(pages::Packing::Gzip, gzip), (pages::Packing::Brotli, brotli)] {
        let file = page(&bomb, 100);
        let message = pages::check(&file, std::iter::once((0..file.len() as u64, packing)));
        assert_eq!(message, Err("a page unpacks to more than it says"));
    }
}

/// A number as Thrift writes it.
fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = vec![];
    loop {
        let low = u8::try_from(number & 0x7f).unwrap();
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// A page's header and what is packed, without the file around it.
fn page(packed: &[u8], said: u64) -> Vec<u8> {
    let mut bytes = vec![0x15, 0, 0x15];
    bytes.extend(varint(said * 2));
    bytes.push(0x15);
    bytes.extend(varint(packed.len() as u64 * 2));
    bytes.push(0);
    bytes.extend(packed);
    bytes
}

/// Schemas that would end the process, were they followed.
#[test]
fn a_schema_has_bounds() {
    let footer = |element: &[u8], count: u32| {
        let mut schema = vec![0x15, 2, 0x19, 0xfc];
        schema.extend(varint(count.into()));
        schema.extend(element.repeat(usize::try_from(count).unwrap()));
        schema.push(0);
        let length = u32::try_from(schema.len()).unwrap().to_le_bytes();
        Bytes::from([&b"PAR1"[..], &schema, &length, b"PAR1"].concat())
    };
    // A group named `a` of one part, in each other.
    let nested = footer(&[0x48, 1, b'a', 0x15, 2, 0], 100_000);
    let message = rows(&nested, Format::Parquet).unwrap_err().to_string();
    insta::assert_snapshot!(message, @"Parquet cannot be read: its columns nest deeper than 64");
    // One group of many.
    let wide = footer(&[0x48, 1, b'a', 0x15, 0xc0, 0x84, 0x3d, 0], 2);
    let message = rows(&wide, Format::Parquet).unwrap_err().to_string();
    insta::assert_snapshot!(message, @"Parquet cannot be read: 500000 columns, expected at most 4096");
}
