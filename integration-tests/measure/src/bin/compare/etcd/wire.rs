//! The four requests of etcd's protocol that a comparison needs, in the encoding of Protocol
//! Buffers.
//!
//! A message is a sequence of fields: the number of the field and the kind of its content, then the
//! content. Here that is always a variable-length number, or a length and that many bytes. Of the
//! answers only single fields are read.

use anyhow::{Context as _, Result};
use bytes::{Buf as _, BufMut as _, Bytes};
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status};

/// Kinds of content.
const NUMBER: u64 = 0;
const BYTES: u64 = 2;

/// Sets the value of a key.
pub(super) async fn put(channel: &Channel, key: Bytes, value: Bytes) -> Result<()> {
    call(channel, "/etcdserverpb.KV/Put", put_request(&key, &value)).await.map(drop)
}

/// Reads a key, linearizably, as is etcd's default; returns whether it exists.
pub(super) async fn get(channel: &Channel, key: Bytes) -> Result<bool> {
    let mut range = Vec::new();
    field(&mut range, 1, &key);
    let found = call(channel, "/etcdserverpb.KV/Range", range).await?;
    Ok(find(&found, 4)?.is_some_and(|count| matches!(count, Content::Number(1..))))
}

/// Sets the values of several keys in one transaction.
pub(super) async fn put_all(channel: &Channel, pairs: Vec<(Bytes, Bytes)>) -> Result<()> {
    let mut transaction = Vec::new();
    for (key, value) in pairs {
        let mut operation = Vec::new();
        field(&mut operation, 2, &put_request(&key, &value));
        field(&mut transaction, 2, &operation);
    }
    call(channel, "/etcdserverpb.KV/Txn", transaction).await.map(drop)
}

/// Whether the member at the other end leads.
pub(super) async fn leads(channel: Channel) -> Result<bool> {
    let status = call(&channel, "/etcdserverpb.Maintenance/Status", Vec::new()).await?;
    let Some(Content::Bytes(header)) = find(&status, 1)? else { return Ok(false) };
    Ok(find(&status, 4)?.is_some_and(|leader| Some(leader) == find(&header, 2).ok().flatten()))
}

async fn call(channel: &Channel, path: &'static str, request: Vec<u8>) -> Result<Bytes> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await?;
    let path = PathAndQuery::from_static(path);
    Ok(grpc.unary(Request::new(request), path, AsIs).await?.into_inner())
}

fn put_request(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut put = Vec::with_capacity(key.len() + value.len() + 8);
    field(&mut put, 1, key);
    field(&mut put, 2, value);
    put
}

fn number(into: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

fn field(into: &mut Vec<u8>, tag: u64, content: &[u8]) {
    number(into, tag << 3 | BYTES);
    number(into, content.len() as u64);
    into.extend_from_slice(content);
}

#[derive(Debug, PartialEq, Eq)]
enum Content {
    Number(u64),
    Bytes(Bytes),
}

/// The first field of a message with this number.
fn find(message: &Bytes, wanted: u64) -> Result<Option<Content>> {
    let mut rest = message.clone();
    while rest.has_remaining() {
        let head = read_number(&mut rest)?;
        let content = match head & 7 {
            NUMBER => Content::Number(read_number(&mut rest)?),
            BYTES => {
                let length = usize::try_from(read_number(&mut rest)?)?;
                anyhow::ensure!(length <= rest.len(), "a field is cut off");
                Content::Bytes(rest.split_to(length))
            }
            kind => anyhow::bail!("a field of kind {kind}"),
        };
        if head >> 3 == wanted {
            return Ok(Some(content));
        }
    }
    Ok(None)
}

fn read_number(from: &mut Bytes) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = from.try_get_u8().context("a number is cut off")?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    anyhow::bail!("a number is too long")
}

/// Messages are already bytes.
struct AsIs;

impl Codec for AsIs {
    type Encode = Vec<u8>;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for AsIs {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put_slice(&message);
        Ok(())
    }
}

impl Decoder for AsIs {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{Content, field, find, number, put_request};

    #[test]
    fn a_put_is_encoded_as_the_protocol_says() {
        assert_eq!(put_request(b"k", b"vw"), [0x0a, 1, b'k', 0x12, 2, b'v', b'w']);
    }

    #[test]
    fn fields_are_found_after_others_and_what_is_cut_off_is_refused() {
        let mut message = Vec::new();
        field(&mut message, 1, &[7; 300]);
        number(&mut message, 4 << 3);
        number(&mut message, u64::MAX);
        let message = Bytes::from(message);
        assert_eq!(find(&message, 4).unwrap(), Some(Content::Number(u64::MAX)));
        assert_eq!(find(&message, 1).unwrap(), Some(Content::Bytes(Bytes::from(vec![7; 300]))));
        assert_eq!(find(&message, 2).unwrap(), None);
        assert!(find(&message.slice(..100), 4).is_err());
        assert!(find(&message.slice(..message.len() - 1), 4).is_err());
    }
}
